// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/types.hpp>

/// Sums of a run of numbers, in double and in one order.
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

}  // namespace stochastic_depth::detail
