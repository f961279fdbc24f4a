// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/survival_mask.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using test::refusal;

static_assert(!std::is_convertible_v<int, SurvivalMask>);

TEST_CASE("SurvivalMask: is written as the mathematics writes it", "[survival_mask]") {
    const SurvivalMask mask{1, 0, 1};
    CHECK(mask.size() == 3);
    CHECK(mask.count() == 2);
    CHECK(mask[0]);
    CHECK_FALSE(mask[1]);
    CHECK(mask[2]);
    CHECK(to_string(mask) == "(1,0,1)");
    CHECK(to_string(SurvivalMask{0}) == "(0)");
    CHECK(to_string(SurvivalMask{}) == "()");
}

TEST_CASE("SurvivalMask: all and none at sizes about a word", "[survival_mask]") {
    for (const Index size : {0, 1, 2, 63, 64, 65, 127, 128, 129, 1000}) {
        const SurvivalMask all = SurvivalMask::all(size);
        const SurvivalMask none = SurvivalMask::none(size);
        CHECK(all.size() == size);
        CHECK(all.count() == size);
        CHECK(none.size() == size);
        CHECK(none.count() == 0);
        CHECK((all == none) == (size == 0));
        CHECK(static_cast<Index>(all.words().size()) == (size + 63) / 64);
        for (Index l = 0; l < size; ++l) {
            REQUIRE(all[l]);
            REQUIRE_FALSE(none[l]);
        }
    }
    CHECK(SurvivalMask::all(3) == SurvivalMask{1, 1, 1});
    CHECK(SurvivalMask::none(2) == SurvivalMask{0, 0});
}

TEST_CASE("SurvivalMask: keep and skip change one layer", "[survival_mask]") {
    for (const Index size : {1, 64, 65, 200})
        for (Index l = 0; l < size; ++l) {
            SurvivalMask mask = SurvivalMask::none(size);
            mask.keep(l);
            mask.keep(l);
            REQUIRE(mask.count() == 1);
            REQUIRE(mask[l]);
            mask.skip(l);
            mask.skip(l);
            REQUIRE(mask == SurvivalMask::none(size));
            mask = SurvivalMask::all(size);
            mask.skip(l);
            REQUIRE(mask.count() == size - 1);
            REQUIRE_FALSE(mask[l]);
        }
}

TEST_CASE("SurvivalMask: masks of two sizes differ", "[survival_mask]") {
    CHECK_FALSE(SurvivalMask{1, 0} == SurvivalMask{1, 0, 0});
    CHECK_FALSE(SurvivalMask{1, 0} == SurvivalMask{1, 1});
    CHECK(SurvivalMask{} == SurvivalMask::all(0));
}

TEST_CASE("SurvivalMask: a word drops the bits past the size", "[survival_mask]") {
    SurvivalMask mask = SurvivalMask::none(70);
    mask.set_word(1, ~std::uint64_t{0});
    CHECK(mask.count() == 6);
    mask.set_word(0, 0x8000000000000001);
    CHECK(mask[0]);
    CHECK(mask[63]);
    CHECK(mask.count() == 8);
    CHECK(mask.words()[1] == 0x3F);
}

TEST_CASE("SurvivalMask: resize skips all, and keeps its memory", "[survival_mask]") {
    SurvivalMask mask = SurvivalMask::all(200);
    const std::uint64_t* memory = mask.words().data();
    mask.resize(70);
    CHECK(mask == SurvivalMask::none(70));
    mask.resize(200);
    CHECK(mask == SurvivalMask::none(200));
    CHECK(mask.words().data() == memory);
}

TEST_CASE("SurvivalMask: a moved-from mask can be used again", "[survival_mask]") {
    SurvivalMask mask{1, 0, 1};
    const SurvivalMask taken = std::move(mask);
    CHECK(taken == SurvivalMask{1, 0, 1});
    mask = SurvivalMask{0, 1};
    CHECK(mask.count() == 1);
}

TEST_CASE("SurvivalMask: bad input is refused by name and changes nothing", "[survival_mask]") {
    SurvivalMask mask{1, 0, 1};
    CHECK(refusal([] {
              (void)SurvivalMask{1, 2, 0};
          }) == "SurvivalMask: entry 1 must be 0 or 1, got 2");
    CHECK(refusal([] { (void)SurvivalMask{-1}; }) ==
          "SurvivalMask: entry 0 must be 0 or 1, got -1");
    CHECK(refusal([] { (void)SurvivalMask{7}; }) == "SurvivalMask: entry 0 must be 0 or 1, got 7");
    CHECK(refusal([] { (void)SurvivalMask::all(-1); }) ==
          "SurvivalMask: size must be at least 0, got -1");
    CHECK(refusal([] { (void)SurvivalMask::none(-5); }) ==
          "SurvivalMask: size must be at least 0, got -5");
    CHECK(refusal([&] { mask.resize(-2); }) == "SurvivalMask: size must be at least 0, got -2");
    CHECK(refusal([&] { mask.keep(3); }) == "SurvivalMask: layer must lie in [0, 3), got 3");
    CHECK(refusal([&] { mask.skip(-1); }) == "SurvivalMask: layer must lie in [0, 3), got -1");
    CHECK(mask == SurvivalMask{1, 0, 1});
}

TEST_CASE("probability: is the product, by hand", "[survival_mask]") {
    const Eigen::Vector3d p{0.8, 0.7, 0.6};
    const struct {
        SurvivalMask mask;
        double probability;
    } rows[] = {{{1, 1, 1}, 0.336}, {{1, 1, 0}, 0.224}, {{1, 0, 1}, 0.144}, {{1, 0, 0}, 0.096},
                {{0, 1, 1}, 0.084}, {{0, 1, 0}, 0.056}, {{0, 0, 1}, 0.036}, {{0, 0, 0}, 0.024}};
    for (const auto& row : rows)
        CHECK(std::abs(probability(row.mask, p) - row.probability) < 1e-16);
    CHECK(probability(SurvivalMask{}, Eigen::VectorXd{}) == 1.0);
    CHECK(probability(SurvivalMask{0, 1}, Eigen::Vector2d{1.0, 0.5}) == 0.0);
}

TEST_CASE("probability: sums to 1 over all masks", "[survival_mask]") {
    constexpr Index depth = 14;
    Eigen::VectorXd p(depth);
    for (Index l = 0; l < depth; ++l) p(l) = 1.0 / static_cast<double>(l + 1);
    double sum = 0;
    for (std::uint64_t bits = 0; bits < (1u << depth); ++bits) {
        SurvivalMask mask = SurvivalMask::none(depth);
        mask.set_word(0, bits);
        sum += probability(mask, p);
    }
    CHECK(std::abs(sum - 1.0) < 1e-13);
}

TEST_CASE("probability: bad input is refused by name", "[survival_mask]") {
    const SurvivalMask mask{1, 0, 1};
    CHECK(refusal([&] {
              (void)probability(mask, Eigen::Vector2d{0.5, 0.5});
          }) ==
          "probability: mask must have one entry for each of 2 survival probabilities, got 3");
    for (const double bad : {0.0, -0.5, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
        const std::string what = refusal([&] {
            (void)probability(mask, Eigen::Vector3d{0.5, bad, 0.5});
        });
        CHECK(what.find("probability: survival probability p(1) must lie in (0, 1], got ") == 0);
    }
}

}  // namespace
