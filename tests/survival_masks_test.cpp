// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/survival_masks.hpp>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using test::refusal;

TEST_CASE("SurvivalMasks: reads back the masks it was made from", "[survival_masks]") {
    std::mt19937_64 random{1};
    for (const Index depth : {1, 3, 63, 64, 65, 130})
        for (const std::size_t batch : {1u, 2u, 63u, 64u, 65u, 200u}) {
            std::vector<SurvivalMask> list;
            std::vector<Index> survivors(static_cast<std::size_t>(depth), 0);
            for (std::size_t j = 0; j < batch; ++j) {
                SurvivalMask mask = SurvivalMask::none(depth);
                for (std::size_t w = 0; w < mask.words().size(); ++w) mask.set_word(w, random());
                for (Index l = 0; l < depth; ++l)
                    survivors[static_cast<std::size_t>(l)] += mask[l] ? 1 : 0;
                list.push_back(mask);
            }
            const SurvivalMasks masks = SurvivalMasks::from_masks(list);
            REQUIRE(masks.depth() == depth);
            REQUIRE(masks.batch_size() == static_cast<Index>(batch));
            for (std::size_t j = 0; j < batch; ++j) {
                REQUIRE(masks.mask(static_cast<Index>(j)) == list[j]);
                for (Index l = 0; l < depth; ++l)
                    REQUIRE(masks(l, static_cast<Index>(j)) == list[j][l]);
            }
            for (Index l = 0; l < depth; ++l)
                REQUIRE(masks.count(l) == survivors[static_cast<std::size_t>(l)]);
        }
}

TEST_CASE("SurvivalMasks: all, none and the constructor", "[survival_masks]") {
    for (const Index batch : {0, 1, 63, 64, 65, 128, 130}) {
        const SurvivalMasks all = SurvivalMasks::all(5, batch);
        const SurvivalMasks none = SurvivalMasks::none(5, batch);
        CHECK(none == SurvivalMasks{5, batch});
        CHECK((all == none) == (batch == 0));
        for (Index l = 0; l < 5; ++l) {
            CHECK(all.count(l) == batch);
            CHECK(none.count(l) == 0);
            CHECK(static_cast<Index>(all.words(l).size()) == (batch + 63) / 64);
        }
        for (Index j = 0; j < batch; ++j) {
            REQUIRE(all.mask(j) == SurvivalMask::all(5));
            REQUIRE(none.mask(j) == SurvivalMask::none(5));
        }
    }
    CHECK(SurvivalMasks{} == SurvivalMasks::all(0, 0));
    CHECK(SurvivalMasks::all(0, 3).mask(2) == SurvivalMask{});
}

TEST_CASE("SurvivalMasks: setters change one bit or one sample", "[survival_masks]") {
    SurvivalMasks masks{70, 130};
    masks.keep(66, 129);
    masks.keep(66, 129);
    CHECK(masks(66, 129));
    CHECK(masks.count(66) == 1);
    CHECK(masks.mask(129).count() == 1);
    masks.skip(66, 129);
    CHECK(masks == SurvivalMasks{70, 130});

    SurvivalMasks full = SurvivalMasks::all(70, 130);
    full.set_mask(64, SurvivalMask::none(70));
    for (Index l = 0; l < 70; ++l) CHECK(full.count(l) == 129);
    CHECK(full.mask(64) == SurvivalMask::none(70));
    CHECK(full.mask(63) == SurvivalMask::all(70));
    CHECK(full.mask(65) == SurvivalMask::all(70));
    full.set_mask(64, SurvivalMask::all(70));
    CHECK(full == SurvivalMasks::all(70, 130));
}

TEST_CASE("SurvivalMasks: sample j is bit j % 64 of word j / 64, unused bits are 0",
          "[survival_masks]") {
    SurvivalMasks masks{2, 70};
    masks.keep(1, 0);
    masks.keep(1, 69);
    CHECK(masks.words(0)[0] == 0);
    CHECK(masks.words(1)[0] == 1);
    CHECK(masks.words(1)[1] == 1u << 5);
    masks.set_word(0, 1, ~std::uint64_t{0});
    CHECK(masks.words(0)[1] == 0x3F);
    CHECK(masks.count(0) == 6);
}

TEST_CASE("SurvivalMasks, SurvivalMask: more than 2^31 are counted", "[survival_masks][slow]") {
    const Index many = (Index{1} << 31) + 64;
    CHECK(SurvivalMasks::all(1, many).count(0) == many);
    CHECK(SurvivalMask::all(many).count() == many);
}

TEST_CASE("SurvivalMasks: shapes of one memory differ", "[survival_masks]") {
    CHECK_FALSE(SurvivalMasks{2, 64} == SurvivalMasks{1, 128});
    CHECK_FALSE(SurvivalMasks{2, 60} == SurvivalMasks{2, 61});
    CHECK_FALSE(SurvivalMasks{2, 0} == SurvivalMasks{3, 0});
}

TEST_CASE("SurvivalMasks: resize skips all, and keeps its memory", "[survival_masks]") {
    SurvivalMasks masks = SurvivalMasks::all(20, 500);
    const std::uint64_t* memory = masks.words(0).data();
    masks.resize(30, 100);
    CHECK(masks == SurvivalMasks{30, 100});
    masks.resize(20, 500);
    CHECK(masks == SurvivalMasks{20, 500});
    CHECK(masks.words(0).data() == memory);
}

TEST_CASE("SurvivalMasks: bad input is refused by name and changes nothing", "[survival_masks]") {
    SurvivalMasks masks = SurvivalMasks::all(3, 4);
    const struct {
        std::string got, expected;
    } cases[] = {
        {refusal([] {
             (void)SurvivalMasks{-1, 4};
         }),
         "depth must be at least 0, got -1"},
        {refusal([] {
             (void)SurvivalMasks{3, -4};
         }),
         "batch size must be at least 0, got -4"},
        {refusal([] { (void)SurvivalMasks::all(-2, 4); }), "depth must be at least 0, got -2"},
        {refusal([] { (void)SurvivalMasks::none(3, -2); }),
         "batch size must be at least 0, got -2"},
        {refusal([] { (void)SurvivalMasks::from_masks({}); }),
         "masks must not be empty, got 0 masks"},
        {refusal([] {
             (void)SurvivalMasks::from_masks({SurvivalMask{1, 0}, SurvivalMask{1, 0, 1}});
         }),
         "mask of sample 1 must have 2 layers, got 3"},
        {refusal([&] { masks.resize(3, -1); }), "batch size must be at least 0, got -1"},
        {refusal([&] { masks.resize(-3, 1); }), "depth must be at least 0, got -3"},
        {refusal([&] { (void)masks.mask(4); }), "sample must lie in [0, 4), got 4"},
        {refusal([&] { (void)masks.mask(-1); }), "sample must lie in [0, 4), got -1"},
        {refusal([&] { (void)masks.count(3); }), "layer must lie in [0, 3), got 3"},
        {refusal([&] { masks.keep(3, 0); }), "layer must lie in [0, 3), got 3"},
        {refusal([&] { masks.keep(0, 4); }), "sample must lie in [0, 4), got 4"},
        {refusal([&] { masks.skip(-1, 0); }), "layer must lie in [0, 3), got -1"},
        {refusal([&] { masks.skip(0, -7); }), "sample must lie in [0, 4), got -7"},
        {refusal([&] { masks.set_mask(4, SurvivalMask::none(3)); }),
         "sample must lie in [0, 4), got 4"},
        {refusal([&] { masks.set_mask(2, SurvivalMask::none(5)); }),
         "mask of sample 2 must have 3 layers, got 5"},
    };
    for (const auto& bad : cases) CHECK(bad.got == "SurvivalMasks: " + bad.expected);
    CHECK(masks == SurvivalMasks::all(3, 4));
}

}  // namespace
