// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>

#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/parameters.hpp"

namespace stochastic_depth::test {

/// The largest difference between the gradient of a training step and central differences of its
/// loss by each parameter, in units of the largest slope. Fourth order, steps of 1e-4: small ones,
/// since statistics of a few samples bend sharply; rounding then leaves errors of about 1e-11.
template <class Network>
[[nodiscard]] double step_gradient_error(const Network& network, const Matrix<double>& x,
                                         const Matrix<double>& targets, const SurvivalMasks& masks,
                                         TrainingStepOptions options = {}) {
    TrainingStep step{network, MeanSquaredError<double>{}, options};
    Network copy = network;
    step.differentiate(copy, x, targets, masks, 0);
    const Eigen::VectorXd got = slopes(copy, step.gradient());
    // In the order of `slopes`, which is that of a visit without gradients.
    Eigen::VectorXd expected = Eigen::VectorXd::Zero(got.size());
    Index at = 0;
    for_each_parameter(copy, [&](double& parameter) {
        const double here = parameter;
        const auto loss = [&](double shift) {
            parameter = here + shift;
            return step.differentiate(copy, x, targets, masks, 0).loss;
        };
        const double h = 1e-4;
        expected(at++) = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h);
        parameter = here;
    });
    return (got - expected).cwiseAbs().maxCoeff() / expected.cwiseAbs().maxCoeff();
}

}  // namespace stochastic_depth::test
