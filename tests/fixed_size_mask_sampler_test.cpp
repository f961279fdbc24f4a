// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/fixed_size_mask_sampler.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <vector>

#include <stochastic_depth/random/random_words.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/survival/schedules.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using test::refusal;

Eigen::VectorXd probabilities() { return Eigen::VectorXd{{0.99, 0.9, 1.0, 0.75, 0.5, 0.3, 0.01}}; }

std::uint64_t hash(const SurvivalMasks& masks) {
    std::uint64_t value = 0xcbf29ce484222325;
    for (Index l = 0; l < masks.depth(); ++l)
        for (const std::uint64_t word : masks.words(l)) value = (value ^ word) * 0x100000001b3;
    return value;
}

TEST_CASE("FixedSizeMaskSampler: floor(p n) samples keep a layer, or one more",
          "[fixed_size_mask_sampler]") {
    const Eigen::VectorXd p = probabilities();
    const FixedSizeMaskSampler sampler{p, 1};
    for (const Index n : {0, 1, 2, 3, 7, 63, 64, 65, 100, 128, 1000, 1001})
        for (std::uint64_t step = 0; step < 50; ++step) {
            const SurvivalMasks masks = sampler.sample(step, n);
            REQUIRE(masks.depth() == p.size());
            REQUIRE(masks.batch_size() == n);
            for (Index l = 0; l < p.size(); ++l) {
                const long double product = static_cast<long double>(p(l)) * n;
                const auto least = static_cast<Index>(std::floor(product));
                INFO("n " << n << ", layer " << l << ", kept " << masks.count(l));
                REQUIRE(masks.count(l) >= least);
                REQUIRE(masks.count(l) <= least + (product > static_cast<long double>(least)));
            }
        }
}

TEST_CASE("FixedSizeMaskSampler: the size of a subset is p n on average",
          "[fixed_size_mask_sampler]") {
    constexpr std::uint64_t steps = 20'000;
    const Eigen::VectorXd p{{0.9, 1.0 / 3, 0.1, 0.3, 0.05, 0.0625}};
    const FixedSizeMaskSampler sampler{p, 2};
    for (const Index n : {1, 2, 10, 33, 64}) {
        SurvivalMasks masks{p.size(), n};
        Eigen::VectorXd kept = Eigen::VectorXd::Zero(p.size());
        for (std::uint64_t step = 0; step < steps; ++step) {
            sampler.sample(step, masks);
            for (Index l = 0; l < p.size(); ++l) kept(l) += static_cast<double>(masks.count(l));
        }
        for (Index l = 0; l < p.size(); ++l) {
            const double expected = p(l) * static_cast<double>(n);
            const double fraction = expected - std::floor(expected);
            const double sigma = std::sqrt(fraction * (1 - fraction) / steps);
            INFO("n " << n << ", layer " << l);
            // 30 checks beyond 5 sigma: once in 6e4 choices of the seed. What is added is the
            // rounding of the expectation.
            CHECK(std::abs(kept(l) / steps - expected) <= 5 * sigma + 1e-13);
        }
    }
}

TEST_CASE("FixedSizeMaskSampler: the size is compared with p n unrounded, digit by digit",
          "[fixed_size_mask_sampler]") {
    // U of layer 0 at a step is known from the stream. Of the two neighbouring doubles p whose p n
    // enclose 4 + U, the lower one must keep 4 and the upper one 5 of n = 7. In double arithmetic
    // both products mostly round to one number.
    constexpr std::uint64_t n = 7, least = 4;
    const auto key = detail::stream_key(3, detail::StreamPurpose::fixed_size_masks,
                                        FixedSizeMaskSampler::stream_version);
    for (std::uint32_t step = 0; step < 300; ++step) {
        detail::RandomWords words{key, {0, step, 0}};
        const std::uint64_t high = words();
        const std::uint64_t u = high << 32 | words();
        // In units of 2^-61; p is a multiple of 2^-53.
        const std::uint64_t below = (least << 61 | u >> 3) / (n << 8);
        const auto kept = [&](std::uint64_t multiple) {
            const double p = static_cast<double>(multiple) * 0x1p-53;
            return FixedSizeMaskSampler{uniform_survival(1, p), 3}.sample(step, 7).count(0);
        };
        REQUIRE(kept(below) == least);
        REQUIRE(kept(below + 1) == least + 1);
    }
}

TEST_CASE("FixedSizeMaskSampler: probabilities near 0 and 1 keep nobody and everybody",
          "[fixed_size_mask_sampler]") {
    const Eigen::VectorXd p{{0x1p-60, std::numeric_limits<double>::denorm_min(), 1 - 0x1p-53,
                             std::numeric_limits<double>::min()}};
    const FixedSizeMaskSampler sampler{p, 3};
    for (const Index n : {1, 64, 1000})
        for (std::uint64_t step = 0; step < 20; ++step) {
            const SurvivalMasks masks = sampler.sample(step, n);
            // Otherwise once in 1e9 choices of the seed.
            CHECK(masks.count(0) == 0);
            CHECK(masks.count(1) == 0);
            CHECK(masks.count(2) == n);
            CHECK(masks.count(3) == 0);
        }
}

TEST_CASE("FixedSizeMaskSampler: samples are kept with probability p, pairs as in a random subset",
          "[fixed_size_mask_sampler]") {
    constexpr std::uint64_t steps = 20'000;
    constexpr Index n = 11;
    const Eigen::VectorXd p{{0.8, 0.5, 0.13}};
    const FixedSizeMaskSampler sampler{p, 5};
    SurvivalMasks masks{p.size(), n};
    std::vector<Eigen::MatrixXd> together(3, Eigen::MatrixXd::Zero(n, n));
    for (std::uint64_t step = 0; step < steps; ++step) {
        sampler.sample(step, masks);
        for (Index l = 0; l < 3; ++l)
            for (Index i = 0; i < n; ++i)
                for (Index j = 0; j <= i; ++j)
                    together[static_cast<std::size_t>(l)](i, j) += masks(l, i) && masks(l, j);
    }
    for (Index l = 0; l < 3; ++l) {
        // E[k (k - 1)] with k = least or least + 1.
        const double mean = p(l) * n, least = std::floor(mean), fraction = mean - least;
        const double pairs = (1 - fraction) * least * (least - 1) + fraction * (least + 1) * least;
        for (Index i = 0; i < n; ++i)
            for (Index j = 0; j <= i; ++j) {
                const double expected = i == j ? p(l) : pairs / (n * (n - 1.0));
                const double sigma = std::sqrt(expected * (1 - expected) / steps);
                INFO("layer " << l << ", samples " << i << ", " << j);
                // 198 checks beyond 5.5 sigma: once in 1e5 choices of the seed.
                CHECK(std::abs(together[static_cast<std::size_t>(l)](i, j) / steps - expected) <=
                      5.5 * sigma);
            }
    }
}

TEST_CASE("FixedSizeMaskSampler: every subset of k samples is as likely as another",
          "[fixed_size_mask_sampler]") {
    constexpr std::uint64_t steps = 40'000;
    // 3 of 7 directly, 4 of 7 as what 3 leave: 35 subsets each.
    const FixedSizeMaskSampler sampler{Eigen::VectorXd{{3.0 / 7, 4.0 / 7}}, 6};
    SurvivalMasks masks{2, 7};
    std::map<std::uint64_t, double> hits[2];
    for (std::uint64_t step = 0; step < steps; ++step) {
        sampler.sample(step, masks);
        for (Index l = 0; l < 2; ++l) ++hits[l][masks.words(l)[0]];
    }
    for (const auto& of_layer : hits) {
        REQUIRE(of_layer.size() == 35);
        const double expected = steps / 35.0;
        double chi_squared = 0;
        for (const auto& [subset, count] : of_layer)
            chi_squared += (count - expected) * (count - expected) / expected;
        // 34 degrees of freedom: beyond 80 once in 7e4 choices of the seed.
        CHECK(chi_squared <= 80);
    }
}

TEST_CASE("FixedSizeMaskSampler: layers, steps and seeds are independent of each other",
          "[fixed_size_mask_sampler]") {
    constexpr std::uint64_t steps = 20'000;
    constexpr Index n = 5;
    // p n = 2.75 and 1.5: sizes vary too.
    const Eigen::VectorXd p{{0.55, 0.3, 0.55}};
    const FixedSizeMaskSampler sampler{p, 7}, other{p, 8};
    const auto centred = [&](const SurvivalMasks& masks, Index l, Index j) {
        return (masks(l, j) ? 1.0 : 0.0) - p(l);
    };
    const auto size = [&](const SurvivalMasks& masks, Index l) {
        return static_cast<double>(masks.count(l)) - p(l) * n;
    };
    const auto size_variance = [&](Index l) {
        const double fraction = p(l) * n - std::floor(p(l) * n);
        return fraction * (1 - fraction);
    };
    struct Pair {
        int which;
        Index k, l;
    };
    const Pair pairs[] = {{0, 0, 1}, {0, 0, 2}, {0, 1, 2}, {1, 0, 0},
                          {1, 1, 1}, {2, 0, 0}, {2, 1, 1}};
    double bits[7][2] = {}, sizes[7] = {};
    for (std::uint64_t step = 0; step < steps; ++step) {
        const SurvivalMasks now = sampler.sample(step, n);
        const SurvivalMasks partners[] = {now, sampler.sample(step + steps, n),
                                          other.sample(step, n)};
        for (int i = 0; i < 7; ++i) {
            const auto& [which, k, l] = pairs[i];
            bits[i][0] += centred(now, k, 0) * centred(partners[which], l, 0);
            bits[i][1] += centred(now, k, 2) * centred(partners[which], l, 4);
            sizes[i] += size(now, k) * size(partners[which], l);
        }
    }
    for (int i = 0; i < 7; ++i) {
        const auto& [which, k, l] = pairs[i];
        const double sigma = std::sqrt(p(k) * (1 - p(k)) * p(l) * (1 - p(l)) / steps);
        INFO("pair " << i);
        // 21 checks beyond 5 sigma: once in 8e4 choices of the seed.
        CHECK(std::abs(bits[i][0] / steps) <= 5 * sigma);
        CHECK(std::abs(bits[i][1] / steps) <= 5 * sigma);
        CHECK(std::abs(sizes[i] / steps) <=
              5 * std::sqrt(size_variance(k) * size_variance(l) / steps));
    }
}

TEST_CASE("FixedSizeMaskSampler: pinned known-answer masks of stream version 1",
          "[fixed_size_mask_sampler]") {
    STATIC_REQUIRE(FixedSizeMaskSampler::stream_version == 1);
    const FixedSizeMaskSampler sampler{probabilities(), 42};
    const SurvivalMasks masks = sampler.sample(7, 20);
    const std::uint64_t rows[] = {0xfffff, 0xdffef, 0xfffff, 0xdfd73, 0x36ac6, 0x81628, 0};
    for (Index l = 0; l < 7; ++l) {
        INFO("layer " << l);
        CHECK(masks.words(l)[0] == rows[l]);
    }
    const FixedSizeMaskSampler large{linear_decay(54, 0.5), 2026};
    CHECK(hash(large.sample(std::uint64_t{1} << 40, 1000)) == 0xd4fadabea98e89b3);
    CHECK(hash(large.sample(3, 1)) == 0xb19cbc5a3191257f);
}

TEST_CASE("FixedSizeMaskSampler: masks depend on seed, step, p and batch size alone",
          "[fixed_size_mask_sampler]") {
    const Eigen::VectorXd p = probabilities();
    const FixedSizeMaskSampler sampler{p, 9};
    const SurvivalMasks first = sampler.sample(3, 130);
    SurvivalMasks again = SurvivalMasks::all(p.size(), 130);
    (void)sampler.sample(4, 10);
    sampler.sample(3, again);
    CHECK(again == first);
    CHECK(FixedSizeMaskSampler{p, 9}.sample(3, 130) == first);
    CHECK_FALSE(sampler.sample(4, 130) == first);
    CHECK_FALSE(FixedSizeMaskSampler{p, 10}.sample(3, 130) == first);
    CHECK_FALSE(sampler.sample(3 + (std::uint64_t{1} << 32), 130) == first);

    // Another layer's p changes nothing.
    Eigen::VectorXd changed = p;
    changed(1) = 0.2;
    const SurvivalMasks others = FixedSizeMaskSampler{changed, 9}.sample(3, 130);
    for (Index l = 0; l < p.size(); ++l)
        for (std::size_t w = 0; w < 3; ++w)
            CHECK((others.words(l)[w] == first.words(l)[w]) == (l != 1));
}

TEST_CASE("FixedSizeMaskSampler: p = 1 keeps every sample, and an empty batch has masks of no bits",
          "[fixed_size_mask_sampler]") {
    const FixedSizeMaskSampler certain{Eigen::VectorXd::Ones(3), 1};
    CHECK(certain.sample(0, 70) == SurvivalMasks::all(3, 70));
    CHECK(certain.sample(0, 0) == SurvivalMasks(3, 0));
    const FixedSizeMaskSampler none{Eigen::VectorXd(0), 1};
    CHECK(none.sample(0, 70) == SurvivalMasks(0, 70));
    CHECK(none.depth() == 0);
    CHECK(none.seed() == 1);
}

TEST_CASE("FixedSizeMaskSampler: bad input is refused, and masks stay as they were",
          "[fixed_size_mask_sampler]") {
    const auto make = [](const Eigen::VectorXd& p) {
        return [p] { (void)FixedSizeMaskSampler(p, 0); };
    };
    const double nan = std::numeric_limits<double>::quiet_NaN();
    CHECK(refusal(make(Eigen::VectorXd{{0.5, 0.0}})) ==
          "FixedSizeMaskSampler: survival probability p(1) must lie in (0, 1], got 0");
    CHECK(refusal(make(Eigen::VectorXd{{1.5}})) ==
          "FixedSizeMaskSampler: survival probability p(0) must lie in (0, 1], got 1.5");
    CHECK(refusal(make(Eigen::VectorXd{{-0.25}})) ==
          "FixedSizeMaskSampler: survival probability p(0) must lie in (0, 1], got -0.25");
    CHECK(refusal(make(Eigen::VectorXd{{nan}})) ==
          "FixedSizeMaskSampler: survival probability p(0) must lie in (0, 1], got nan");
    CHECK(refusal(make(Eigen::VectorXd::Ones(Index{1} << 22))) ==
          "FixedSizeMaskSampler: depth must be less than 4194304, got 4194304");

    const FixedSizeMaskSampler sampler{Eigen::VectorXd{{0.5, 0.5}}, 1};
    CHECK(refusal([&] { (void)sampler.sample(0, -1); }) ==
          "FixedSizeMaskSampler: batch size must lie in [0, 4294967296), got -1");
    CHECK(refusal([&] { (void)sampler.sample(0, Index{1} << 32); }) ==
          "FixedSizeMaskSampler: batch size must lie in [0, 4294967296), got 4294967296");
    SurvivalMasks masks = SurvivalMasks::all(3, 5);
    CHECK(refusal([&] { sampler.sample(0, masks); }) ==
          "FixedSizeMaskSampler: masks must have 2 layers, got 3");
    CHECK(masks == SurvivalMasks::all(3, 5));
}

}  // namespace
