// SPDX-License-Identifier: MIT
#include <stochastic_depth/analysis/gradient_variance.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include <stochastic_depth/expectation/exact_gradient.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>

#include "support/catch.hpp"
#include "support/gradient_networks.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/refusal.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using Eigen::VectorXi;
using test::Network;

using Loss = SoftmaxCrossEntropy<double>;
using Step = TrainingStep<Network, Loss>;

/// The gradient of a batch under masks, as one vector.
VectorXd gradient_under(const Network& network, const MatrixXd& x, const VectorXi& labels,
                        const SurvivalMasks& masks) {
    Step step(network, Loss{});
    (void)step.differentiate(network, x, labels, masks);
    return test::slopes(network, step.gradient());
}

VectorXd exact_gradient(const Network& network, const MatrixXd& x, const VectorXi& labels) {
    auto gradient = network.zero_gradient();
    ExactGradient{}.of_expected_loss(network, x, labels, Loss{}, gradient);
    return test::slopes(network, gradient);
}

/// Calls visit(masks, probability) for all ways in which the samples of a batch draw their masks.
/// With subsets, the sizes of a layer's subsets are independent of other layers'.
template <class Visit>
void for_all_masks(const VectorXd& p, Index n, MaskScope scope, const Visit& visit) {
    const Index bits = scope == MaskScope::batch ? p.size() : p.size() * n;
    for (std::uint64_t code = 0; code < std::uint64_t{1} << bits; ++code) {
        SurvivalMasks masks{p.size(), n};
        double probability = 1;
        for (Index l = 0; l < p.size(); ++l) {
            Index kept = 0;
            for (Index j = 0; j < n; ++j) {
                const Index bit = scope == MaskScope::batch ? l : l * n + j;
                if ((code >> bit & 1) == 0) continue;
                masks.keep(l, j);
                ++kept;
            }
            const double expected = p(l) * static_cast<double>(n);
            if (scope == MaskScope::subset) {
                const double least = std::floor(expected), more = expected - least;
                double size_has = 0;
                if (kept == static_cast<Index>(least)) size_has = 1 - more;
                if (kept == static_cast<Index>(least) + 1) size_has = more;
                double subsets = 1;
                for (Index i = 0; i < kept; ++i)
                    subsets *= static_cast<double>(n - i) / static_cast<double>(i + 1);
                probability *= size_has / subsets;
            } else {
                const Index drawn = scope == MaskScope::batch ? 1 : n;
                const Index ones = scope == MaskScope::batch ? kept / n : kept;
                probability *= std::pow(p(l), static_cast<double>(ones)) *
                               std::pow(1 - p(l), static_cast<double>(drawn - ones));
            }
        }
        if (probability > 0) visit(masks, probability);
    }
}

struct Moments {
    VectorXd mean;
    double variance = 0;
    VectorXd by_parameter;
};

Moments brute_force(const Network& network, const MatrixXd& x, const VectorXi& labels,
                    MaskScope scope) {
    const VectorXd exact = exact_gradient(network, x, labels);
    Moments moments{VectorXd::Zero(exact.size()), 0, VectorXd::Zero(exact.size())};
    for_all_masks(network.survival_probabilities(), x.cols(), scope,
                  [&](const SurvivalMasks& masks, double probability) {
                      const VectorXd g = gradient_under(network, x, labels, masks);
                      moments.mean += probability * g;
                      moments.by_parameter += probability * (g - exact).cwiseAbs2();
                  });
    moments.variance = moments.by_parameter.sum();
    return moments;
}

const GradientVariance& of_scope(const GradientVariances& all, MaskScope scope) {
    if (scope == MaskScope::batch) return all.batch;
    return scope == MaskScope::sample ? all.sample : all.subset;
}

void check_close(double value, double expected, double scale) {
    INFO(value << " against " << expected);
    CHECK(std::abs(value - expected) <= 1e-12 * scale);
}

TEST_CASE(
    "gradient_variance: under every scope, the mean over all masks is the gradient of the expected "
    "loss, and the mean squared distance is the one reported",
    "[gradient_variance]") {
    Philox random{1};
    struct Case {
        VectorXd p;
        Index n;
    };
    const Case cases[] = {
        {VectorXd{{0.7, 0.4}}, 1}, {VectorXd{{0.7, 0.4}}, 2},       {VectorXd{{0.5, 0.75}}, 4},
        {VectorXd{{0.3, 0.9}}, 5}, {VectorXd{{0.8, 0.5, 0.35}}, 2}, {VectorXd{{0.8, 1.0, 0.35}}, 3},
        {VectorXd{{0.6}}, 7}};
    for (const auto& [p, n] : cases) {
        const Network network = test::network(random, p);
        const MatrixXd x = test::random_matrix<double>(random, 3, n);
        const VectorXi labels = test::random_labels(random, n, 2);
        const VectorXd exact = exact_gradient(network, x, labels);
        const GradientVariances all = gradient_variance(network, x, labels, Loss{});
        CHECK((all.gradient - exact).norm() <= 1e-12 * exact.norm());
        check_close(all.squared_norm, exact.squaredNorm(), exact.squaredNorm());
        for (const MaskScope scope : {MaskScope::batch, MaskScope::sample, MaskScope::subset}) {
            INFO("p " << p.transpose() << ", n " << n << ", scope " << static_cast<int>(scope));
            const Moments expected = brute_force(network, x, labels, scope);
            const GradientVariance& variance = of_scope(all, scope);
            CHECK((expected.mean - exact).norm() <= 1e-12 * exact.norm());
            REQUIRE(expected.variance > 0.001 * exact.squaredNorm());
            check_close(variance.variance, expected.variance, expected.variance);
            check_close(variance.relative, expected.variance / exact.squaredNorm(),
                        variance.relative);
            check_close(variance.by_layer.sum(), expected.variance, expected.variance);
            check_close(variance.by_bit.sum(), expected.variance, expected.variance);

            // Parameters: those of the stem, of each layer, of the head.
            const Index outside = p.size(), in_layer = 4 * 4 + 4, in_stem = 4 * 3 + 4;
            VectorXd by_layer = VectorXd::Zero(p.size() + 1);
            for (Index i = 0; i < exact.size(); ++i) {
                const Index l = (i - in_stem) / in_layer;
                by_layer(i < in_stem || l >= p.size() ? outside : l) += expected.by_parameter(i);
            }
            for (Index l = 0; l <= p.size(); ++l)
                check_close(variance.by_layer(l), by_layer(l), expected.variance);
        }
    }
}

TEST_CASE("gradient_variance: the part of one bit is the variance of the mean over the others",
          "[gradient_variance]") {
    Philox random{2};
    const VectorXd p{{0.7, 1.0, 0.4, 0.55}};
    const Network network = test::network(random, p);
    const Index n = 3;
    const MatrixXd x = test::random_matrix<double>(random, 3, n);
    const VectorXi labels = test::random_labels(random, n, 2);
    const GradientVariances all = gradient_variance(network, x, labels, Loss{});
    const VectorXd exact = exact_gradient(network, x, labels);
    for (Index l = 0; l < p.size(); ++l) {
        VectorXd kept = VectorXd::Zero(exact.size());
        for_all_masks(p, n, MaskScope::batch, [&](const SurvivalMasks& masks, double probability) {
            if (masks(l, 0)) kept += probability / p(l) * gradient_under(network, x, labels, masks);
        });
        // The mean where the layer is skipped follows from that where it is kept.
        const double odds = p(l) / (1 - p(l));
        const double expected = p(l) < 1 ? odds * (kept - exact).squaredNorm() : 0.0;
        check_close(all.batch.by_bit(l), expected, all.batch.variance);
    }
    CHECK(all.batch.by_bit(1) == 0);
    CHECK(all.batch.by_bit(p.size()) > 0);
}

TEST_CASE(
    "gradient_variance: a layer inside a skippable layer owns its parameters, and a shortcut "
    "that stands in for a layer belongs to none",
    "[gradient_variance]") {
    Philox random{3};
    const auto linear = [&](Index size) { return test::linear<double>(random, size, size); };
    const StochasticDepth inner{Residual{Sequential{linear(3), Tanh<double>{}}},
                                SurvivalProbability{0.6}};
    const StochasticDepth outer{Residual{Sequential{inner, linear(3)}, linear(3)},
                                SurvivalProbability{0.7}};
    const Sequential network{outer};
    const MatrixXd x = test::random_matrix<double>(random, 3, 1);
    const VectorXi labels = test::random_labels(random, 1, 3);
    const GradientVariances all = gradient_variance(network, x, labels, Loss{});

    // In the order of the parameters: 12 of the inner layer, 12 of the outer one's branch, 12 of its
    // shortcut.
    auto gradient = network.zero_gradient();
    ExactGradient{}.of_expected_loss(network, x, labels, Loss{}, gradient);
    const VectorXd exact = test::slopes(network, gradient);
    REQUIRE(exact.size() == 36);
    VectorXd expected = VectorXd::Zero(3);
    for (unsigned code = 0; code < 4; ++code) {
        SurvivalMask mask = SurvivalMask::none(2);
        if ((code & 1) != 0) mask.keep(0);
        if ((code & 2) != 0) mask.keep(1);
        const double probability = ((code & 1) != 0 ? 0.7 : 0.3) * ((code & 2) != 0 ? 0.6 : 0.4);
        TrainingStep<std::remove_cv_t<decltype(network)>, Loss> step(network, Loss{});
        (void)step.differentiate(network, x, labels, mask);
        const VectorXd squares = (test::slopes(network, step.gradient()) - exact).cwiseAbs2();
        expected(1) += probability * squares.head(12).sum();
        expected(0) += probability * squares.segment(12, 12).sum();
        expected(2) += probability * squares.tail(12).sum();
    }
    for (Index l = 0; l < 3; ++l)
        check_close(all.batch.by_layer(l), expected(l), all.batch.variance);
}

TEST_CASE("gradient_variance: nothing to skip leaves no variance, and one sample has one scope",
          "[gradient_variance]") {
    Philox random{4};
    const Network certain = test::network(random, VectorXd::Ones(3));
    const MatrixXd x = test::random_matrix<double>(random, 3, 4);
    const VectorXi labels = test::random_labels(random, 4, 2);
    const GradientVariances none = gradient_variance(certain, x, labels, Loss{});
    CHECK(none.squared_norm > 0);
    for (const MaskScope scope : {MaskScope::batch, MaskScope::sample, MaskScope::subset}) {
        CHECK(of_scope(none, scope).variance == 0);
        CHECK(of_scope(none, scope).by_layer.size() == 4);
    }
    const Network network = test::network(random, VectorXd{{0.5, 0.9, 0.3}});
    const GradientVariances one = gradient_variance(network, x.leftCols(1), labels.head(1), Loss{});
    CHECK(one.batch.variance > 0);
    check_close(one.sample.variance, one.batch.variance, one.batch.variance);
    check_close(one.subset.variance, one.batch.variance, one.batch.variance);
}

TEST_CASE("gradient_variance: bad input and budgets are refused before any work",
          "[gradient_variance]") {
    Philox random{5};
    const Network network = test::network(random, VectorXd{{0.5, 0.9, 0.3}});
    const MatrixXd x = test::random_matrix<double>(random, 3, 4);
    const VectorXi labels = test::random_labels(random, 4, 2);
    const auto call = [&](const MatrixXd& inputs, const VectorXi& targets,
                          GradientVarianceOptions options = {}) {
        return
            [=, &network] { (void)gradient_variance(network, inputs, targets, Loss{}, options); };
    };
    CHECK(test::refusal(call(x.leftCols(0), labels.head(0))) ==
          "gradient_variance: x must have at least 1 column, got 0");
    CHECK(test::refusal(call(x, labels.head(3))) ==
          "gradient_variance: targets must be for 4 samples, got 3");
    CHECK(holds(test::refusal(call(x.topRows(2), labels)), "Linear: input must have 3 rows",
                "got 2"));
    CHECK(holds(test::refusal(call(x, labels.array() + 2)), "SoftmaxCrossEntropy", "label"));
    CHECK(thrown<std::length_error>(call(x, labels, {.max_gradients = 31})) ==
          "gradient_variance: the masks of 3 layers for 4 samples take 32 gradients, which must be "
          "at most 31; use sampled_gradient_variance");
    CHECK(thrown<std::length_error>(call(x, labels, {.max_numbers = 1000})) ==
          "gradient_variance: the masks of 3 layers for 86 parameters take 1376 numbers in memory, "
          "which must be at most 1000; use sampled_gradient_variance");
    CHECK(thrown<std::length_error>(call(x, labels, {.max_gradients = 32, .max_numbers = 1376})) ==
          "nothing thrown");
}

}  // namespace
