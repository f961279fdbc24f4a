// SPDX-License-Identifier: MIT
#include <stochastic_depth/analysis/gradient_variance.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/exact_gradient.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>

#include "support/catch.hpp"
#include "support/layers.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::VectorXd;

using Branch = Sequential<Linear<double>, Tanh<double>, Linear<double>>;
using Block = StochasticDepth<Residual<Branch>>;
using Network = Sequential<Linear<double>, Stack<Block>>;
using Loss = MeanSquaredError<double>;

constexpr Index width = 3, inner = 4, outer_parameters = 2 * width + width,
                first_parameters = inner * width + inner, second_parameters = width * inner + width;

/// A network and its conversion: the same with the branches' last Linear divided by p, so that
/// x + s F(x) is x + (s / p) F(x) of the other.
struct Pair {
    Network network, converted;
    /// What a derivative by a parameter of `converted` times makes one by that of `network`.
    VectorXd factors;
};

Pair random_pair(Philox& random, const VectorXd& p) {
    std::vector<Block> blocks, converted;
    VectorXd factors =
        VectorXd::Ones(outer_parameters + p.size() * (first_parameters + second_parameters));
    const auto stem = test::linear<double>(random, 2, width);
    for (Index l = 0; l < p.size(); ++l) {
        const auto first = test::linear<double>(random, width, inner);
        const auto second = test::linear<double>(random, inner, width);
        const Linear<double> divided{MatrixXd(second.weights() / p(l)),
                                     VectorXd(second.bias() / p(l))};
        blocks.emplace_back(Residual{Branch{first, {}, second}}, SurvivalProbability{p(l)});
        converted.emplace_back(Residual{Branch{first, {}, divided}}, SurvivalProbability{p(l)});
        factors.segment(
            outer_parameters + l * (first_parameters + second_parameters) + first_parameters,
            second_parameters) /= p(l);
    }
    return {Network{stem, Stack<Block>{std::move(blocks)}},
            Network{stem, Stack<Block>{std::move(converted)}}, factors};
}

VectorXd stochastic_gradient(const Network& network, const MatrixXd& x, const MatrixXd& targets,
                             const SurvivalMasks& masks, Scaling scaling) {
    TrainingStep<Network, Loss> step(network, Loss{}, {.scaling = scaling});
    (void)step.differentiate(network, x, targets, masks);
    return test::slopes(network, step.gradient());
}

TEST_CASE(
    "TrainingStep: with inverted scaling, gradients are those of the converted network, under every "
    "pair of masks and in the mean",
    "[gradient_variance_scaling]") {
    Philox random{1};
    for (const VectorXd& p : {VectorXd{{0.7, 0.4}}, VectorXd{{0.25, 1.0, 0.9}}}) {
        const auto [network, converted, factors] = random_pair(random, p);
        const MatrixXd x = test::random_matrix<double>(random, 2, 2);
        const MatrixXd targets = test::random_matrix<double>(random, width, 2);
        auto exact_slopes = converted.zero_gradient();
        ExactGradient{}.of_expected_loss(converted, x, targets, Loss{}, exact_slopes);
        const VectorXd exact = factors.cwiseProduct(test::slopes(converted, exact_slopes));

        const auto codes = std::uint64_t{1} << p.size();
        VectorXd mean = VectorXd::Zero(exact.size());
        double variance = 0;
        for (std::uint64_t a = 0; a < codes; ++a)
            for (std::uint64_t b = 0; b < codes; ++b) {
                SurvivalMasks masks{p.size(), 2};
                double probability = 1;
                for (Index l = 0; l < p.size(); ++l) {
                    masks.set_word(l, 0, (a >> l & 1) | (b >> l & 1) << 1);
                    for (Index j = 0; j < 2; ++j) probability *= masks(l, j) ? p(l) : 1 - p(l);
                }
                const VectorXd g =
                    stochastic_gradient(network, x, targets, masks, Scaling::inverted);
                const VectorXd of_converted = factors.cwiseProduct(
                    stochastic_gradient(converted, x, targets, masks, Scaling::none));
                REQUIRE((g - of_converted).cwiseAbs().maxCoeff() <=
                        1e-12 * (1 + of_converted.cwiseAbs().maxCoeff()));
                mean += probability * g;
                variance += probability * (g - exact).squaredNorm();
            }
        CHECK((mean - exact).norm() <= 1e-12 * exact.norm());

        const GradientVariances all =
            gradient_variance(network, x, targets, Loss{}, {.scaling = Scaling::inverted});
        CHECK((all.gradient - exact).norm() <= 1e-12 * exact.norm());
        CHECK(std::abs(all.sample.variance - variance) <= 1e-12 * variance);
        CHECK(variance > 0.001 * exact.squaredNorm());
        // Not what the definition gives.
        const GradientVariances unscaled = gradient_variance(network, x, targets, Loss{});
        CHECK((unscaled.gradient - exact).norm() > 0.01 * exact.norm());
    }
}

}  // namespace
