// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <tuple>
#include <vector>

#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>

#include "support/catch.hpp"

namespace stochastic_depth::test {

using OneWeight = Sequential<Linear<double>>;

/// One weight, and a bias that stays 0.
inline OneWeight one_weight(double weight) {
    return OneWeight{
        Linear<double>{Eigen::MatrixXd::Constant(1, 1, weight), Eigen::VectorXd::Zero(1)}};
}

/// The weights after each step of an optimizer with these gradients.
template <template <class> class Optimizer, class Options>
std::vector<double> trajectory(const Options& options, double weight,
                               const std::vector<double>& slopes) {
    OneWeight network = one_weight(weight);
    Optimizer<OneWeight> optimizer{network, options};
    auto gradient = network.zero_gradient();
    std::vector<double> weights;
    for (const double slope : slopes) {
        std::get<0>(gradient.layers).weights(0, 0) = slope;
        optimizer.step(network, gradient);
        weights.push_back(std::get<0>(network.layers()).weights()(0, 0));
        CHECK(std::get<0>(network.layers()).bias()(0) == 0.0);
    }
    return weights;
}

inline void check_weights(const std::vector<double>& weights, const std::vector<double>& expected,
                          double tolerance) {
    REQUIRE(weights.size() == expected.size());
    for (std::size_t i = 0; i < weights.size(); ++i) {
        INFO("step " << i);
        CHECK(std::abs(weights[i] - expected[i]) <= tolerance);
    }
}

}  // namespace stochastic_depth::test
