// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/mask_sampler.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include <stochastic_depth/survival/schedules.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;

/// Regularised upper incomplete gamma function Q(a, x): the chance that a chi-square variable with
/// 2 a degrees of freedom exceeds 2 x. Series for x < a + 1, else continued fraction (Lentz).
double upper_gamma(double a, double x) {
    const double scale = std::exp(a * std::log(x) - x - std::lgamma(a));
    if (x < a + 1) {
        double term = 1 / a, sum = term;
        for (double n = a + 1; term > sum * 1e-16; ++n) sum += term *= x / n;
        return 1 - sum * scale;
    }
    double b = x + 1 - a, c = 1e300, d = 1 / b, product = d;
    for (double i = 1; i < 1e6; ++i) {
        const double an = -i * (i - a);
        b += 2;
        d = 1 / (an * d + b);
        c = b + an / c;
        product *= d * c;
        if (std::abs(d * c - 1) < 1e-15) break;
    }
    return scale * product;
}

TEST_CASE("MaskSampler: each layer survives at its own rate", "[mask_sampler_statistics]") {
    // z of 54 layers over samples, and over steps: within 6 sigma. False alarms: 108 x 2e-9 = 2e-7.
    const Eigen::VectorXd p = linear_decay(54, 0.5);
    const MaskSampler sampler{p, 1};
    constexpr Index n = 200000;
    const SurvivalMasks masks = sampler.sample(0, n);
    Eigen::VectorXd over_steps = Eigen::VectorXd::Zero(54);
    constexpr int steps = 20000;
    for (std::uint64_t step = 0; step < steps; ++step) {
        const SurvivalMask mask = sampler.sample(step);
        for (Index l = 0; l < 54; ++l) over_steps(l) += mask[l] ? 1 : 0;
    }
    for (Index l = 0; l < 54; ++l) {
        const double sigma = std::sqrt(p(l) * (1 - p(l)));
        CHECK(std::abs(static_cast<double>(masks.count(l)) - n * p(l)) < 6 * sigma * std::sqrt(n));
        CHECK(std::abs(over_steps(l) - steps * p(l)) < 6 * sigma * std::sqrt(steps));
    }
}

TEST_CASE("MaskSampler: layers, samples, steps and seeds are pairwise independent",
          "[mask_sampler_statistics]") {
    // For independent bits a, b the sum of (a - p)(b - q) over n samples has sigma
    // sqrt(n p (1 - p) q (1 - q)). About 380 pairs within 6 sigma: false alarms 8e-7.
    constexpr Index depth = 24, n = 64 * 2000;
    const Eigen::VectorXd p = linear_decay(depth, 0.3);
    const SurvivalMasks a = MaskSampler{p, 1}.sample(0, n);
    const auto check = [&](const SurvivalMasks& x, Index l, const SurvivalMasks& y, Index m) {
        double both = 0;
        for (std::size_t w = 0; w < x.words(l).size(); ++w)
            both += std::popcount(x.words(l)[w] & y.words(m)[w]);
        const double sum = both - p(m) * static_cast<double>(x.count(l)) -
                           p(l) * static_cast<double>(y.count(m)) + n * p(l) * p(m);
        CHECK(std::abs(sum) < 6 * std::sqrt(n * p(l) * (1 - p(l)) * p(m) * (1 - p(m))));
    };
    for (Index l = 0; l < depth; ++l)
        for (Index m = l + 1; m < depth; ++m) check(a, l, a, m);

    SurvivalMasks next_step = MaskSampler{p, 1}.sample(1, n);
    SurvivalMasks far_step = MaskSampler{p, 1}.sample(std::uint64_t{1} << 32, n);
    SurvivalMasks next_seed = MaskSampler{p, 2}.sample(0, n);
    SurvivalMasks far_seed = MaskSampler{p, 1 + (std::uint64_t{1} << 32)}.sample(0, n);
    SurvivalMasks next_sample{depth, n}, next_group{depth, n};
    MaskSampler{p, 1}.sample(0, 1, next_sample);
    MaskSampler{p, 1}.sample(0, 64, next_group);
    for (const auto* b : {&next_step, &far_step, &next_seed, &far_seed, &next_sample, &next_group})
        for (Index l = 0; l < depth; l += 6) check(a, l, *b, l);
}

TEST_CASE("upper_gamma: agrees with closed forms and tables", "[mask_sampler_statistics]") {
    // Q(1, x) = exp(-x); Q(2, x) = (1 + x) exp(-x); Q(1/2, x) = erfc(sqrt x).
    for (const double x : {0.1, 0.9, 1.5, 4.0, 20.0}) {
        CHECK(std::abs(upper_gamma(1, x) / std::exp(-x) - 1) < 1e-13);
        CHECK(std::abs(upper_gamma(2, x) / ((1 + x) * std::exp(-x)) - 1) < 1e-12);
        CHECK(std::abs(upper_gamma(0.5, x) / std::erfc(std::sqrt(x)) - 1) < 1e-12);
    }
    // The 0.95 quantile of chi-square with 100 degrees of freedom is 124.342113.
    CHECK(std::abs(upper_gamma(50, 124.342113 / 2) - 0.05) < 1e-8);
}

TEST_CASE("MaskSampler: all 2^12 masks come at the rate P(S)", "[mask_sampler_statistics]") {
    // Chi-square, cells pooled to an expectation of at least 20; refused beyond 1e-6 at either end:
    // false alarms 2e-6. The same counts must refuse a p that is wrong by 1 %.
#ifdef NDEBUG
    constexpr Index draws = 100000000;
#else
    constexpr Index draws = 1000000;
#endif
    constexpr Index depth = 12, batch = 1 << 16;
    const Eigen::VectorXd p = linear_decay(depth, 0.5);
    const MaskSampler sampler{p, 20160930};
    std::vector<std::uint32_t> counts(1u << depth, 0);
    SurvivalMasks masks{depth, batch};
    Index drawn = 0;
    for (std::uint64_t step = 0; drawn < draws; ++step) {
        sampler.sample(step, masks);
        for (std::size_t w = 0; w < batch / 64 && drawn < draws; ++w) {
            std::uint64_t row[depth];
            for (Index l = 0; l < depth; ++l) row[l] = masks.words(l)[w];
            for (unsigned j = 0; j < 64 && drawn < draws; ++j, ++drawn) {
                std::uint64_t cell = 0;
                for (Index l = 0; l < depth; ++l) cell |= (row[l] >> j & 1u) << l;
                ++counts[cell];
            }
        }
    }

    REQUIRE(std::accumulate(counts.begin(), counts.end(), Index{0}) == draws);

    const auto chance_of_more = [&](const Eigen::VectorXd& claimed) {
        std::vector<std::pair<double, std::uint32_t>> cells;
        for (std::uint64_t bits = 0; bits < counts.size(); ++bits) {
            SurvivalMask mask = SurvivalMask::none(depth);
            mask.set_word(0, bits);
            cells.emplace_back(draws * probability(mask, claimed), counts[bits]);
        }
        std::sort(cells.begin(), cells.end());
        double statistic = 0, expected = 0, observed = 0;
        int pools = 0;
        double rest = draws;
        for (const auto& [expectation, count] : cells) {
            expected += expectation;
            observed += count;
            rest -= expectation;
            if (expected < 20 || (rest > 1e-3 && rest < 20)) continue;
            statistic += (observed - expected) * (observed - expected) / expected;
            expected = observed = 0;
            ++pools;
        }
        REQUIRE(observed == 0);
        REQUIRE(pools > 200);
        return upper_gamma((pools - 1) / 2.0, statistic / 2);
    };
    const double chance = chance_of_more(p);
    INFO("chance of a larger chi-square: " << chance);
    CHECK(chance > 1e-6);
    CHECK(chance < 1 - 1e-6);
    CHECK(chance_of_more((p.array() * 0.99).matrix()) < 1e-6);
}

}  // namespace
