// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/law_mask_sampler.hpp>

#include <cmath>
#include <cstdint>

#include <stochastic_depth/random/philox.hpp>

#include "support/catch.hpp"
#include "support/laws.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;

TEST_CASE("LawMaskSampler: masks come as often as the law says", "[law_mask_sampler]") {
    Philox random{7};
    constexpr Index count = 20000;
    int large = 0, tests = 0;
    test::for_each_law(random, 5, [&](const auto& law) {
        const SurvivalMasks masks = LawMaskSampler{law, 11}.sample(3, count);
        Eigen::VectorXd seen = Eigen::VectorXd::Zero(32);
        for (Index j = 0; j < count; ++j) {
            Index at = 0;
            for (Index l = 0; l < 5; ++l) at = 2 * at + (masks(l, j) ? 0 : 1);
            seen(at) += 1;
        }
        for (const SurvivalMask& mask : test::all_masks(5)) {
            Index at = 0;
            for (Index l = 0; l < 5; ++l) at = 2 * at + (mask[l] ? 0 : 1);
            const double p = probability(mask, law);
            // Masks of probability 0 never come, certain ones always.
            if (p == 0 || p == 1) {
                CHECK(seen(at) == p * count);
                continue;
            }
            const double sigma = std::sqrt(p * (1 - p) * count);
            CHECK(std::abs(seen(at) - p * count) <= 5 * sigma + 3);  // 1e-4 over all of them
            large += std::abs(seen(at) - p * count) > 2 * sigma ? 1 : 0;
            ++tests;
        }
    });
    CHECK(tests > 60);
    CHECK(large < tests / 5);
}

/// The stream, written down a second time.
bool bit(std::uint64_t seed, std::uint64_t step, std::uint64_t sample, std::uint32_t layer,
         double p) {
    const auto low = [](std::uint64_t word) { return static_cast<std::uint32_t>(word); };
    const auto key = philox4x32_10({low(seed), low(seed >> 32), 0, 0}, {8, 1});
    const auto block = philox4x32_10(
        {layer / 2 + (low(sample >> 32) << 21), low(sample), low(step), low(step >> 32)},
        {key[0], key[1]});
    const std::uint32_t high = block[layer % 2 * 2], rest = block[layer % 2 * 2 + 1];
    return std::ldexp(high, -32) + std::ldexp(rest >> 11, -53) < p;
}

TEST_CASE("LawMaskSampler: a mask is a function of law, seed, step and sample alone",
          "[law_mask_sampler]") {
    const test::TwoBackLaw law{9};
    const LawMaskSampler sampler{law, 0x1234567890};
    const SurvivalMasks whole = sampler.sample(5, 200);
    CHECK(sampler.sample(5) == whole.mask(0));
    for (const Index first : {0, 1, 63, 64, 130}) {
        SurvivalMasks part = SurvivalMasks::all(9, 70);  // old contents must go
        sampler.sample(5, first, part);
        for (Index j = 0; j < 70; ++j) CHECK(part.mask(j) == whole.mask(first + j));
    }
    CHECK_FALSE(sampler.sample(6, 200) == whole);
    CHECK_FALSE(LawMaskSampler{law, 1}.sample(5, 200) == whole);
    // Of the last samples and of a late step, bit by bit.
    const Index last = (Index{1} << 38) - 50;
    const std::uint64_t step = 0xABCDEF0123456789;
    SurvivalMasks masks{9, 50};
    sampler.sample(step, last, masks);
    for (Index j = 0; j < 50; ++j) {
        auto state = law.start();
        for (Index l = 0; l < 9; ++l) {
            CHECK(masks(l, j) == bit(sampler.seed(), step, static_cast<std::uint64_t>(last + j),
                                     static_cast<std::uint32_t>(l),
                                     law.survival_probability(l, state)));
            state = law.next(l, state, masks(l, j));
        }
    }
    SurvivalMask mask = SurvivalMask::all(9);
    const std::uint64_t* const memory = mask.words().data();
    sampler.sample(7, mask);
    CHECK(mask == sampler.sample(7));
    CHECK(mask.words().data() == memory);
}

TEST_CASE("LawMaskSampler: no layers, no samples, and what is refused", "[law_mask_sampler]") {
    CHECK(LawMaskSampler{test::TwoBackLaw{0}, 1}.sample(0, 3) == SurvivalMasks{0, 3});
    CHECK(LawMaskSampler{test::TwoBackLaw{4}, 1}.sample(0, 0) == SurvivalMasks{4, 0});
    const LawMaskSampler sampler{test::TwoBackLaw{4}, 1};
    SurvivalMask mask = SurvivalMask::none(3);
    SurvivalMasks masks{3, 2}, fitting{4, 2};
    CHECK(test::refusal([&] { sampler.sample(0, mask); }) ==
          "LawMaskSampler: mask must have 4 layers, got 3");
    CHECK(test::refusal([&] { sampler.sample(0, masks); }) ==
          "LawMaskSampler: masks must have 4 layers, got 3");
    CHECK(test::refusal([&] { sampler.sample(0, -1, fitting); }) ==
          "LawMaskSampler: first sample must be at least 0, got -1");
    CHECK(test::refusal([&] { (void)sampler.sample(0, -1); }) ==
          "LawMaskSampler: batch size must be at least 0, got -1");
    CHECK(
        test::refusal([&] { sampler.sample(0, Index{1} << 38, fitting); }) ==
        "LawMaskSampler: samples must be less than 274877906944, got 2 samples from 274877906944");
    CHECK(test::refusal([&] {
              (void)LawMaskSampler{test::TwoBackLaw{1 << 22}, 1};
          }) == "LawMaskSampler: depth must lie in [0, 4194304), got 4194304");
}

}  // namespace
