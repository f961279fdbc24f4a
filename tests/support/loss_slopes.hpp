// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>

#include <stochastic_depth/types.hpp>

namespace stochastic_depth::test {

/// The largest difference between the gradient that a loss gives and central differences of its
/// value, of fourth order: an error of about h^4 times the fifth derivative and 1e-16 / h.
template <class Loss>
[[nodiscard]] double loss_slope_error(const Loss& loss, Matrix<double> y,
                                      const typename Loss::Targets& targets, double h = 1e-3) {
    Matrix<double> gradient(y.rows(), y.cols()), scratch(y.rows(), y.cols());
    (void)loss.value_and_gradient(y, targets, gradient);
    double worst = 0.0;
    for (Index j = 0; j < y.cols(); ++j)
        for (Index i = 0; i < y.rows(); ++i) {
            const double here = y(i, j);
            const auto moved = [&](double step) {
                y(i, j) = here + step;
                return loss.value_and_gradient(y, targets, scratch);
            };
            const double slope =
                (8.0 * (moved(h) - moved(-h)) - (moved(2.0 * h) - moved(-2.0 * h))) / (12.0 * h);
            y(i, j) = here;
            const double error = std::abs(slope - gradient(i, j));
            if (!(error <= worst)) worst = error;
        }
    return worst;
}

}  // namespace stochastic_depth::test
