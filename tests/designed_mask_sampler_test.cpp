// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/designed_mask_sampler.hpp>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include <stochastic_depth/survival/schedules.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using test::refusal;

const MaskDesign designs[] = {MaskDesign::independent, MaskDesign::antithetic,
                              MaskDesign::stratified, MaskDesign::lattice};

Eigen::VectorXd probabilities() {
    return Eigen::VectorXd{{0.99, 0.9, 1.0, 0.75, 0.5, 0.5, 0.3, 0.01, 0.6}};
}

SurvivalMasks drawn(const DesignedMaskSampler& sampler, Index first_group, Index groups) {
    SurvivalMasks masks(sampler.depth(), groups * sampler.group_size());
    sampler.sample(first_group, masks);
    return masks;
}

TEST_CASE(
    "DesignedMaskSampler: every mask of a group keeps layer l with probability p_l, and pairs of layers "
    "independently",
    "[designed_mask_sampler]") {
    const Eigen::VectorXd p = probabilities();
    constexpr Index groups = 20'000, size = 8;
    for (const MaskDesign design : designs) {
        const auto masks = drawn({p, 5, design, size}, 0, groups);
        for (Index i = 0; i < size; ++i)
            for (Index l = 0; l < p.size(); ++l)
                for (Index k = l; k < p.size(); ++k) {
                    double kept = 0;
                    for (Index g = 0; g < groups; ++g)
                        kept += masks(l, g * size + i) && masks(k, g * size + i);
                    const double expected = l == k ? p(l) : p(l) * p(k);
                    const double sigma = std::sqrt(expected * (1 - expected) / groups);
                    INFO("design " << static_cast<int>(design) << ", mask " << i << ", layers " << l
                                   << ", " << k);
                    // 4 designs x 8 x 45 beyond 5.5 sigma: once in 2e4 choices of the seed.
                    CHECK(std::abs(kept / groups - expected) <= 5.5 * sigma);
                }
    }
}

TEST_CASE("DesignedMaskSampler: groups are independent of each other", "[designed_mask_sampler]") {
    const Eigen::VectorXd p = probabilities();
    constexpr Index groups = 20'001, size = 6;
    for (const MaskDesign design : designs) {
        const auto masks = drawn({p, 6, design, size}, 0, groups);
        for (Index i = 0; i < size; ++i)
            for (const Index l : {1, 4, 6}) {
                double sum = 0;
                for (Index g = 0; g + 1 < groups; ++g)
                    sum += ((masks(l, g * size + i) ? 1 : 0) - p(l)) *
                           ((masks(l, (g + 1) * size) ? 1 : 0) - p(l));
                const double sigma = p(l) * (1 - p(l)) / std::sqrt(groups - 1.0);
                // 72 beyond 5 sigma: once in 2e4 choices of the seed.
                CHECK(std::abs(sum / (groups - 1)) <= 5 * sigma);
            }
    }
}

TEST_CASE(
    "DesignedMaskSampler: of m stratified or lattice masks, floor or ceil of m p_l keep layer l",
    "[designed_mask_sampler]") {
    const Eigen::VectorXd p = probabilities();
    for (const MaskDesign design : {MaskDesign::stratified, MaskDesign::lattice})
        for (const Index size : {1, 2, 3, 10, 64, 100, 257}) {
            const auto masks = drawn({p, 7, design, size}, 3, 20);
            for (Index l = 0; l < p.size(); ++l)
                for (Index g = 0; g < 20; ++g) {
                    Index kept = 0;
                    for (Index i = 0; i < size; ++i) kept += masks(l, g * size + i) ? 1 : 0;
                    INFO("size " << size << ", layer " << l << ", kept " << kept);
                    // m p_l itself may be rounded: 100 x 0.99.
                    const double expected = static_cast<double>(size) * p(l);
                    CHECK(std::abs(static_cast<double>(kept) - expected) < 1 + 1e-12);
                }
        }
}

TEST_CASE(
    "DesignedMaskSampler: of an antithetic pair, one keeps a layer of p <= 1/2 at most, and one of "
    "p >= 1/2 at least",
    "[designed_mask_sampler]") {
    const Eigen::VectorXd p = probabilities();
    const auto masks = drawn({p, 8, MaskDesign::antithetic, 2}, 0, 2000);
    for (Index l = 0; l < p.size(); ++l)
        for (Index j = 0; j < 4000; j += 2) {
            if (p(l) <= 0.5) CHECK_FALSE((masks(l, j) && masks(l, j + 1)));
            if (p(l) >= 0.5) CHECK((masks(l, j) || masks(l, j + 1)));
        }
}

TEST_CASE("DesignedMaskSampler: a lattice balances pairs of layers, stratified masks do not",
          "[designed_mask_sampler]") {
    // Over m independent points, the mean of a product of two centred bits has the variance v / m.
    const Eigen::VectorXd p = linear_decay(12, 0.5);
    constexpr Index size = 251, groups = 400;
    const auto relative_variance = [&](MaskDesign design) {
        const auto masks = drawn({p, 9, design, size}, 0, groups);
        double sum = 0;
        for (Index l = 0; l < 12; ++l)
            for (Index k = 0; k < l; ++k)
                for (Index g = 0; g < groups; ++g) {
                    double mean = 0;
                    for (Index i = 0; i < size; ++i) {
                        const Index j = g * size + i;
                        mean +=
                            ((masks(l, j) ? 1 : 0) - p(l)) * ((masks(k, j) ? 1 : 0) - p(k)) / size;
                    }
                    sum += mean * mean * size / (p(l) * (1 - p(l)) * p(k) * (1 - p(k)));
                }
        return sum / (66 * groups);
    };
    CHECK(std::abs(relative_variance(MaskDesign::stratified) - 1) <= 0.05);
    CHECK(relative_variance(MaskDesign::lattice) <= 0.25);
}

TEST_CASE("DesignedMaskSampler: independent masks are those of MaskSampler",
          "[designed_mask_sampler]") {
    const Eigen::VectorXd p = probabilities();
    const MaskSampler plain{p, 10};
    for (const Index size : {1, 7, 64}) {
        SurvivalMasks expected(p.size(), 3 * size);
        plain.sample(0, 5 * size, expected);
        CHECK(drawn({p, 10, MaskDesign::independent, size}, 5, 3) == expected);
    }
}

TEST_CASE("DesignedMaskSampler: a group is the same whenever it is drawn, seeds differ",
          "[designed_mask_sampler]") {
    const Eigen::VectorXd p = probabilities();
    for (const MaskDesign design : designs) {
        const DesignedMaskSampler sampler{p, 11, design, 10};
        const auto all = drawn(sampler, 4, 5);
        const auto last = drawn(sampler, 8, 1);
        for (Index i = 0; i < 10; ++i) CHECK(all.mask(40 + i) == last.mask(i));
        CHECK_FALSE(drawn({p, 12, design, 10}, 4, 5) == all);
        // A layer's bits do not depend on the other layers' p, but for the lattice, which is made
        // for all.
        if (design == MaskDesign::lattice) continue;
        Eigen::VectorXd other = p;
        other(0) = 0.4;
        const auto changed = drawn({other, 11, design, 10}, 4, 5);
        for (Index l = 1; l < p.size(); ++l)
            for (Index j = 0; j < 50; ++j) CHECK(changed(l, j) == all(l, j));
    }
}

TEST_CASE("DesignedMaskSampler: known masks", "[designed_mask_sampler]") {
    const Eigen::VectorXd p{{0.9, 0.5, 0.3}};
    const auto text = [&](MaskDesign design) {
        const auto masks = drawn({p, 2026, design, 4}, 0, 2);
        std::string all;
        for (Index j = 0; j < 8; ++j) all += to_string(masks.mask(j));
        return all;
    };
    CHECK(text(MaskDesign::antithetic) ==
          "(1,0,1)(1,1,0)(1,0,1)(1,1,0)(1,1,0)(1,0,1)(1,1,1)(1,0,0)");
    CHECK(text(MaskDesign::stratified) ==
          "(1,1,0)(1,1,0)(1,0,1)(0,0,0)(1,1,0)(1,0,0)(0,1,1)(1,0,0)");
    CHECK(text(MaskDesign::lattice) == "(1,0,1)(1,0,0)(1,1,0)(1,1,0)(1,1,0)(1,0,1)(1,0,0)(1,1,0)");
}

TEST_CASE("lattice_generator: steps have no divisor in common with the number of points",
          "[designed_mask_sampler]") {
    for (const Index points : {1, 2, 6, 97, 360, 1000}) {
        for (const Index step : detail::lattice_generator(linear_decay(24, 0.5), points)) {
            CHECK(std::gcd(step, points) == 1);
            CHECK(step >= 1);
            CHECK(step <= std::max<Index>(1, points - 1));
        }
    }
}

TEST_CASE("layers_by_variance: the largest p (1 - p) first, ties to the later layer",
          "[designed_mask_sampler]") {
    CHECK(detail::layers_by_variance(Eigen::VectorXd{{0.9, 1.0, 0.5, 0.75, 0.25, 0.5}}) ==
          std::vector<Index>{5, 2, 4, 3, 0});
    CHECK(detail::layers_by_variance(linear_decay(4, 0.5)) == std::vector<Index>{3, 2, 1, 0});
}

TEST_CASE("DesignedMaskSampler: arguments out of range are refused", "[designed_mask_sampler]") {
    const Eigen::VectorXd p = probabilities();
    const auto refused = [&](MaskDesign design, Index size) {
        return refusal([&] { (void)DesignedMaskSampler{p, 1, design, size}; });
    };
    CHECK(refused(MaskDesign::stratified, 0) ==
          "DesignedMaskSampler: group size must lie in [1, 2^32), got 0");
    CHECK(refused(MaskDesign::antithetic, 3) ==
          "DesignedMaskSampler: group size of antithetic masks must be even, got 3");
    const DesignedMaskSampler sampler{p, 1, MaskDesign::stratified, 4};
    SurvivalMasks masks(p.size(), 6);
    CHECK(refusal([&] { sampler.sample(0, masks); }) ==
          "DesignedMaskSampler: number of masks must be a multiple of 4, got 6");
    masks.resize(3, 8);
    CHECK(refusal([&] { sampler.sample(0, masks); }) ==
          "DesignedMaskSampler: masks must have 9 layers, got 3");
    masks.resize(p.size(), 8);
    CHECK(refusal([&] { sampler.sample(-1, masks); }) ==
          "DesignedMaskSampler: first group must be at least 0, got -1");
}

}  // namespace
