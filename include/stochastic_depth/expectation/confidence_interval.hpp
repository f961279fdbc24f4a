// SPDX-License-Identifier: MIT
#pragma once

#include <limits>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/detail/student_t.hpp>
#include <stochastic_depth/expectation/expectation_result.hpp>

namespace stochastic_depth {

/// Bounds for each output and each sample of a batch, [outputs x batch].
template <class Scalar>
struct ConfidenceInterval {
    Matrix<Scalar> lower;
    Matrix<Scalar> upper;
};

/// mean -+ t standard_error, with the t of Student's distribution: covers f_SD with probability `level` if the
/// estimate is normally distributed, which it is nearly for many samples. Each entry by itself: all intervals
/// together cover all of f_SD with a smaller probability.
///
/// \param result  Of a sampled or exact expectation. Where the standard error is 0 the bounds are the mean;
///                where it or its degrees of freedom are unknown they are NaN.
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
