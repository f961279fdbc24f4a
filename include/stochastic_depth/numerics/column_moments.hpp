// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/types.hpp>

/// Mean and variance of a run of numbers, in double and in one order.
namespace stochastic_depth::detail {

/// Eight sums side by side: one alone would wait for each of its additions.
class EightSums {
public:
    /// Calls add(i, sum) for i = 0, ..., count - 1, each time with one of the sums.
    template <class Add>
    void over(Index count, const Add& add) {
        Index i = 0;
        for (; i + lanes <= count; i += lanes)
            for (Index lane = 0; lane < lanes; ++lane) add(i + lane, sums_[lane]);
        for (; i < count; ++i) add(i, sums_[0]);
    }
    [[nodiscard]] double total() const {
        return ((sums_[0] + sums_[1]) + (sums_[2] + sums_[3])) +
               ((sums_[4] + sums_[5]) + (sums_[6] + sums_[7]));
    }

private:
    static constexpr Index lanes = 8;
    double sums_[lanes] = {};
};

/// The sum of term(0), ..., term(count - 1).
template <class Term>
[[nodiscard]] double sum_of(Index count, const Term& term) {
    EightSums sums;
    sums.over(count, [&](Index i, double& sum) { sum += term(i); });
    return sums.total();
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
