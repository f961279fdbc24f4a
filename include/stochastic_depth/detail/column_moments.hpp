// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/types.hpp>

/// Mean and variance of a run of numbers, in double and in one order.
namespace stochastic_depth::detail {

/// The sum of term(0), ..., term(count - 1).
template <class Term>
[[nodiscard]] double sum_of(Index count, const Term& term) {
    // Eight sums side by side: one alone would wait for each of its additions.
    constexpr Index lanes = 8;
    double sums[lanes] = {};
    Index i = 0;
    for (; i + lanes <= count; i += lanes)
        for (Index lane = 0; lane < lanes; ++lane) sums[lane] += term(i + lane);
    for (; i < count; ++i) sums[0] += term(i);
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) +
           ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/// \param count   At least 1.
/// \param stride  From one number to the next.
template <class Scalar>
[[nodiscard, gnu::noinline]] double column_mean(const Scalar* x, Index count, Index stride = 1) {
    return sum_of(count, [&](Index i) { return static_cast<double>(x[i * stride]); }) /
           static_cast<double>(count);
}

/// The biased variance, given the mean: the second of two passes.
/// \source Chan et al. 1983, Algorithms for Computing the Sample Variance.
template <class Scalar>
[[nodiscard, gnu::noinline]] double column_variance(const Scalar* x, Index count, double mean,
                                                    Index stride = 1) {
    return sum_of(count,
                  [&](Index i) {
                      const double deviation = static_cast<double>(x[i * stride]) - mean;
                      return deviation * deviation;
                  }) /
           static_cast<double>(count);
}

}  // namespace stochastic_depth::detail
