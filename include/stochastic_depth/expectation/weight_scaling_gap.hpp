// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>

namespace stochastic_depth {

/// How far the usual test-time rule is from the truth: weight scaling minus f_SD(x), [outputs x
/// batch].
///
/// \param network  L skippable layers.
/// \param x        Inputs, [features x batch].
/// \param exact    How to compute f_SD.
/// \throws std::invalid_argument, std::length_error  as ExactExpectation does.
/// \complexity     2^L - 1 + L layer evaluations for each column.
template <MaskedNetwork Network>
[[nodiscard]] Matrix<typename Network::Scalar> weight_scaling_gap(
    const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
    const ExactExpectation& exact = ExactExpectation()) {
    const Matrix<typename Network::Scalar> truth = exact(network, x).mean;
    return WeightScaling()(network, x).mean - truth;
}

}  // namespace stochastic_depth
