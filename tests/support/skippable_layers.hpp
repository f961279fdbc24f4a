// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

/// Skippable layers that several tests are made of.
namespace stochastic_depth::test {

/// x + relu(weight x + bias) for numbers x, kept with probability p.
[[nodiscard]] inline auto relu_layer(double weight, double bias, double p) {
    return StochasticDepth{
        Residual{Sequential{Linear<double>{Eigen::MatrixXd::Constant(1, 1, weight),
                                           Eigen::VectorXd::Constant(1, bias)},
                            ReLU<double>{}}},
        SurvivalProbability{p}};
}

}  // namespace stochastic_depth::test
