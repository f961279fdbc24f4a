// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/mask_sampler.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/survival/schedules.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>

#include "support/catch.hpp"
#include "support/mask_stream.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using test::digit;
using test::keeps;
using test::refusal;

static_assert(MaskSampler::stream_version == 1);

/// Probabilities of every kind: dyadic, ordinary, next to 1, tiny, subnormal.
Eigen::VectorXd assorted() {
    Eigen::VectorXd p(20);
    p << 0.5, 0.75, 1.0, 0.3, 0x1p-60, 5e-324, std::nextafter(1.0, 0.0), 0.1, 1.0 / 3, 0x1p-1022,
        0.9999, 0.625, 1e-3, 3e-5, 1.0, 0.5 + 0x1p-53, 0.25, 2.0 / 3, 0x1.8p-11,
        0x1.fffffffffffffp-12;
    return p;
}

TEST_CASE("MaskSampler: every bit is U < p of the documented stream", "[mask_sampler]") {
    const Eigen::VectorXd p = assorted();
    for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{42}, ~std::uint64_t{0}})
        for (const std::uint64_t step :
             {std::uint64_t{0}, std::uint64_t{7}, 3 + (std::uint64_t{5} << 32)}) {
            const SurvivalMasks masks = MaskSampler{p, seed}.sample(step, 200);
            for (Index j = 0; j < 200; ++j)
                for (Index l = 0; l < p.size(); ++l)
                    REQUIRE(masks(l, j) == keeps(seed, step, static_cast<std::uint64_t>(j),
                                                 static_cast<std::uint32_t>(l), p(l)));
        }
}

TEST_CASE("MaskSampler: pinned known-answer masks of stream version 1", "[mask_sampler]") {
    const MaskSampler sampler{linear_decay(10, 0.5), 42};
    CHECK(to_string(sampler.sample(7)) == "(1,1,1,1,1,1,1,1,1,0)");
    const SurvivalMasks masks = sampler.sample(7, 256);
    CHECK(to_string(masks.mask(1)) == "(1,1,0,1,1,1,1,0,1,0)");
    CHECK(to_string(masks.mask(63)) == "(1,1,1,1,1,0,1,0,1,1)");
    CHECK(to_string(masks.mask(64)) == "(1,0,1,1,0,0,0,1,1,1)");
    CHECK(to_string(masks.mask(255)) == "(1,0,1,1,1,1,1,1,1,1)");

    // FNV-1a over the packed words of a large draw.
    const MaskSampler large{linear_decay(54, 0.5), 2026};
    std::uint64_t hash = 0xcbf29ce484222325;
    const SurvivalMasks drawn = large.sample(std::uint64_t{1} << 40, 1000);
    for (Index l = 0; l < 54; ++l)
        for (const std::uint64_t word : drawn.words(l)) hash = (hash ^ word) * 0x100000001b3;
    CHECK(hash == 0xf72fda6984627496);
}

TEST_CASE("MaskSampler: same seed and step give the same mask", "[mask_sampler]") {
    const Eigen::VectorXd p = linear_decay(100, 0.5);
    const MaskSampler sampler{p, 42};
    const MaskSampler again{p, 42};
    const SurvivalMasks first = sampler.sample(7, 300);
    (void)sampler.sample(8, 10);
    CHECK(sampler.sample(7, 300) == first);
    CHECK(again.sample(7, 300) == first);
    CHECK(again.sample(7) == first.mask(0));

    const MaskSampler other_seed{p, 43};
    CHECK_FALSE(sampler.sample(8, 300) == first);
    CHECK_FALSE(other_seed.sample(7, 300) == first);
}

TEST_CASE("MaskSampler: draws alike from several threads at once", "[mask_sampler]") {
    const MaskSampler sampler{linear_decay(54, 0.5), 42};
    std::vector<SurvivalMasks> drawn(8);
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            for (std::size_t step = t; step < drawn.size(); step += 4)
                drawn[step] = sampler.sample(step, 500);
        });
    for (std::thread& thread : threads) thread.join();
    for (std::size_t step = 0; step < drawn.size(); ++step)
        CHECK(drawn[step] == sampler.sample(step, 500));
}

TEST_CASE("MaskSampler: a bit depends on no other layer, sample or batch size", "[mask_sampler]") {
    const Eigen::VectorXd p = assorted();
    const SurvivalMasks masks = MaskSampler{p, 3}.sample(5, 1100);
    for (const Index batch : {0, 1, 2, 63, 64, 65, 127, 128, 500, 1023, 1024, 1099}) {
        const SurvivalMasks part = MaskSampler{p, 3}.sample(5, batch);
        REQUIRE(part.batch_size() == batch);
        for (Index j = 0; j < batch; ++j) REQUIRE(part.mask(j) == masks.mask(j));
    }
    for (const Index depth : {0, 1, 7, 16, 17}) {
        Eigen::VectorXd fewer = p.head(depth);
        if (depth > 1) fewer(0) = 0.123;
        const SurvivalMasks part = MaskSampler{fewer, 3}.sample(5, 1100);
        for (Index l = depth > 1 ? 1 : 0; l < depth; ++l)
            for (Index j = 0; j < 1100; ++j) REQUIRE(part(l, j) == masks(l, j));
    }
}

TEST_CASE("MaskSampler: a range of samples equals that part of the batch", "[mask_sampler]") {
    const MaskSampler sampler{assorted(), 9};
    const SurvivalMasks whole = sampler.sample(4, 1200);
    for (const Index first : {0, 1, 31, 63, 64, 65, 128, 500, 639, 640})
        for (const Index batch : {0, 1, 2, 63, 64, 65, 66, 128, 129, 300}) {
            SurvivalMasks part = SurvivalMasks::all(20, batch);  // old contents must go
            sampler.sample(4, first, part);
            REQUIRE(part.batch_size() == batch);
            SurvivalMasks expected{20, batch};
            for (Index j = 0; j < batch; ++j) expected.set_mask(j, whole.mask(first + j));
            REQUIRE(part == expected);
        }
    // The last samples there are.
    const Index last = (Index{1} << 38) - 70;
    SurvivalMasks part{20, 70};
    sampler.sample(4, last, part);
    for (Index j = 0; j < 70; ++j)
        for (Index l = 0; l < 20; ++l)
            REQUIRE(part(l, j) == keeps(9, 4, static_cast<std::uint64_t>(last + j),
                                        static_cast<std::uint32_t>(l), assorted()(l)));
}

TEST_CASE("MaskSampler: draws into the caller's masks without allocating", "[mask_sampler]") {
    const MaskSampler sampler{linear_decay(70, 0.5), 42};
    SurvivalMasks masks = SurvivalMasks::all(70, 130);
    SurvivalMask mask = SurvivalMask::all(70);
    const std::uint64_t* memory = masks.words(0).data();
    const std::uint64_t* mask_memory = mask.words().data();
    for (std::uint64_t step = 0; step < 5; ++step) {
        sampler.sample(step, masks);
        CHECK(masks == sampler.sample(step, 130));
        sampler.sample(step, mask);
        CHECK(mask == sampler.sample(step));
        CHECK(mask == sampler.sample(step, 1).mask(0));
    }
    CHECK(masks.words(0).data() == memory);
    CHECK(mask.words().data() == mask_memory);
}

TEST_CASE("MaskSampler: one mask for many layers equals sample 0's", "[mask_sampler]") {
    for (const Index depth : {0, 1, 15, 16, 17, 63, 64, 65, 1000}) {
        const MaskSampler sampler{uniform_survival(depth, 0.7), 6};
        for (std::uint64_t step = 0; step < 20; ++step)
            REQUIRE(sampler.sample(step) == sampler.sample(step, 200).mask(0));
    }
}

TEST_CASE("MaskSampler: p = 1 keeps always", "[mask_sampler]") {
    const MaskSampler sampler{uniform_survival(70, 1.0), 1};
    CHECK(sampler.sample(0) == SurvivalMask::all(70));
    CHECK(sampler.sample(9, 1000) == SurvivalMasks::all(70, 1000));
    SurvivalMasks part{70, 130};
    sampler.sample(9, 37, part);
    CHECK(part == SurvivalMasks::all(70, 130));
}

TEST_CASE("MaskSampler: p is met to its last binary digit", "[mask_sampler]") {
    // U in [k 2^-53, (k + 1) 2^-53) is known from the stream: p = k 2^-53 must skip, the next p
    // keep.
    for (std::uint64_t sample = 0; sample < 300; ++sample) {
        std::uint64_t k = 0;
        for (std::uint32_t i = 0; i < 53; ++i) k = 2 * k + digit(11, 0, sample, 0, i);
        const Index j = static_cast<Index>(sample);
        if (k > 0) {
            const double at = static_cast<double>(k) * 0x1p-53;
            const MaskSampler sampler{uniform_survival(1, at), 11};
            REQUIRE_FALSE(sampler.sample(0, j + 1)(0, j));
        }
        const double above = static_cast<double>(k + 1) * 0x1p-53;
        const MaskSampler sampler{uniform_survival(1, above), 11};
        REQUIRE(sampler.sample(0, j + 1)(0, j));
    }
}

TEST_CASE("MaskSampler: p = 0.5 and 0.75 are one and two digits", "[mask_sampler]") {
    Eigen::VectorXd p(2);
    p << 0.5, 0.75;
    const SurvivalMasks masks = MaskSampler{p, 5}.sample(1, 1000);
    for (Index j = 0; j < 1000; ++j) {
        const std::uint64_t sample = static_cast<std::uint64_t>(j);
        REQUIRE(masks(0, j) == !digit(5, 1, sample, 0, 0));
        REQUIRE(masks(1, j) == !(digit(5, 1, sample, 1, 0) && digit(5, 1, sample, 1, 1)));
    }
}

TEST_CASE("MaskSampler: tiny p never survives a million draws", "[mask_sampler]") {
    // 2e6 draws at 2^-60 and at 5e-324: false alarms 2e-12.
    Eigen::VectorXd p(2);
    p << 0x1p-60, 5e-324;
    const SurvivalMasks masks = MaskSampler{p, 5}.sample(1, 1000000);
    CHECK(masks.count(0) == 0);
    CHECK(masks.count(1) == 0);
}

TEST_CASE("MaskSampler: more survival keeps all that less survival keeps", "[mask_sampler]") {
    SurvivalMasks below{3, 500};
    for (const double p : {0.01, 0.2, 0.5, 0.50001, 0.9, 1.0}) {
        const SurvivalMasks masks = MaskSampler{uniform_survival(3, p), 8}.sample(2, 500);
        for (Index l = 0; l < 3; ++l)
            for (std::size_t w = 0; w < masks.words(l).size(); ++w)
                REQUIRE((below.words(l)[w] & ~masks.words(l)[w]) == 0);
        below = masks;
    }
}

TEST_CASE("MaskSampler: knows what it was made from", "[mask_sampler]") {
    const MaskSampler sampler{0.5 * uniform_survival(3, 1.0), 99};
    CHECK(sampler.depth() == 3);
    CHECK(sampler.seed() == 99);
    CHECK(sampler.survival_probabilities()(0) == 0.5);
    const MaskSampler none{Eigen::VectorXd{}, 1};
    CHECK(none.sample(0) == SurvivalMask{});
    CHECK(none.sample(0, 5) == SurvivalMasks{0, 5});
}

TEST_CASE("MaskSampler: bad input is refused by name and changes nothing", "[mask_sampler]") {
    const MaskSampler sampler{uniform_survival(3, 0.5), 1};
    SurvivalMasks masks = SurvivalMasks::all(4, 5);
    SurvivalMasks fitting = SurvivalMasks::all(3, 5);
    SurvivalMask mask = SurvivalMask::all(4);
    const auto with = [](double bad) {
        Eigen::VectorXd p = uniform_survival(3, 0.5);
        p(2) = bad;
        return refusal([&] { (void)MaskSampler{p, 1}; });
    };
    const double infinity = std::numeric_limits<double>::infinity();
    const struct {
        std::string got, expected;
    } cases[] = {
        {with(0.0), "survival probability p(2) must lie in (0, 1], got 0"},
        {with(-0.1), "survival probability p(2) must lie in (0, 1], got -0.1"},
        {with(1.0000001), "survival probability p(2) must lie in (0, 1], got 1.0000001"},
        {with(infinity), "survival probability p(2) must lie in (0, 1], got inf"},
        {refusal([] {
             (void)MaskSampler{Eigen::VectorXd::Constant(1 << 22, 0.5), 1};
         }),
         "depth must be less than 4194304, got 4194304"},
        {refusal([&] { (void)sampler.sample(0, -1); }), "batch size must be at least 0, got -1"},
        {refusal([&] { (void)sampler.sample(0, (Index{1} << 38) + 1); }),
         "samples must be less than 274877906944, got 274877906945 samples from 0"},
        {refusal([&] { sampler.sample(0, masks); }), "masks must have 3 layers, got 4"},
        {refusal([&] { sampler.sample(0, 0, masks); }), "masks must have 3 layers, got 4"},
        {refusal([&] { sampler.sample(0, mask); }), "mask must have 3 layers, got 4"},
        {refusal([&] { sampler.sample(0, -1, fitting); }),
         "first sample must be at least 0, got -1"},
        {refusal([&] { sampler.sample(0, (Index{1} << 38) - 4, fitting); }),
         "samples must be less than 274877906944, got 5 samples from 274877906940"},
        {refusal([&] { sampler.sample(0, std::numeric_limits<Index>::max(), fitting); }),
         "samples must be less than 274877906944, got 5 samples from 9223372036854775807"},
    };
    for (const auto& bad : cases) CHECK(bad.got == "MaskSampler: " + bad.expected);
    CHECK(with(std::numeric_limits<double>::quiet_NaN()).find("got nan") != std::string::npos);
    CHECK(masks == SurvivalMasks::all(4, 5));
    CHECK(fitting == SurvivalMasks::all(3, 5));
    CHECK(mask == SurvivalMask::all(4));
}

}  // namespace
