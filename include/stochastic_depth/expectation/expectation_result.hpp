// SPDX-License-Identifier: MIT
#pragma once

#include <limits>

#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Where an expectation comes from.
enum class ExpectationMethod { exact, sampled, weight_scaling };

/// What is known of the network's output over random masks, for each output and each sample of a
/// batch. ExactExpectation, MonteCarloExpectation and WeightScaling all answer with one; a quantity
/// that a method cannot tell is NaN.
template <class Scalar>
struct ExpectationResult {
    ExpectationMethod method = ExpectationMethod::exact;
    /// E[NN(x, S)] or its estimate, [outputs x batch].
    Matrix<Scalar> mean;
    /// Var[NN(x, S)] or its estimate, [outputs x batch].
    Matrix<Scalar> variance;
    /// Standard error of the mean, [outputs x batch]; 0 where the mean is exact.
    Matrix<Scalar> standard_error;
    /// Degrees of freedom of the standard error; infinite where the mean is exact.
    double degrees_of_freedom = std::numeric_limits<double>::quiet_NaN();
    /// Evaluations of skippable layers that it took for each column of x.
    double layer_evaluations = 0;
    /// Masks that were sampled; 0 where the mean does not come from a sample.
    Index samples = 0;
};

}  // namespace stochastic_depth
