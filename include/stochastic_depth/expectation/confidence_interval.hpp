// SPDX-License-Identifier: MIT
#pragma once

#include <limits>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/expectation/expectation_result.hpp>
#include <stochastic_depth/numerics/student_t.hpp>

namespace stochastic_depth {

/// Bounds for each output and each sample of a batch, [outputs x batch].
template <class Scalar>
struct ConfidenceInterval {
    Matrix<Scalar> lower;
    Matrix<Scalar> upper;
};

/// mean -+ t standard_error, with the t of Student's distribution: holds f_SD with probability
/// `level` where the estimate is nearly normally distributed. Each entry by itself: all intervals
/// together hold all of f_SD with a smaller probability.
///
/// It holds f_SD less often where masks that are too rare for the sample make much of the error:
/// layers with samples p_l (1 - p_l) below 5 or so, or outputs that few masks change, such as the
/// probability of a class that is nearly ruled out. Neither a sample that met no such mask nor any
/// other method of sampling can tell. benchmarks/coverage_table and estimator_table print how
/// often.
///
/// \param result  Of a sampled or exact expectation. Where the standard error is 0 the bounds are
///                the mean; where it or its degrees of freedom are unknown they are NaN.
/// \param level   In (0, 1).
/// \throws std::invalid_argument  if level is outside that range.
template <class Scalar>
[[nodiscard]] ConfidenceInterval<Scalar> confidence_interval(
    const ExpectationResult<Scalar>& result, double level = 0.95) {
    if (!(level > 0 && level < 1))
        detail::refuse("confidence_interval: level must lie in (0, 1), got ", level);
    // Without degrees of freedom there is no t; where there is no error there is no need of one.
    const double t = result.degrees_of_freedom > 0
                         ? detail::student_t_two_sided(level, result.degrees_of_freedom)
                         : std::numeric_limits<double>::quiet_NaN();
    ConfidenceInterval<Scalar> interval{result.mean, result.mean};
    for (Index k = 0; k < result.mean.size(); ++k) {
        const auto error = static_cast<double>(result.standard_error.data()[k]);
        const auto mean = static_cast<double>(result.mean.data()[k]);
        const double half = error == 0 ? 0 : t * error;
        interval.lower.data()[k] = static_cast<Scalar>(mean - half);
        interval.upper.data()[k] = static_cast<Scalar>(mean + half);
    }
    return interval;
}

}  // namespace stochastic_depth
