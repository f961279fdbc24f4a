// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/numerics/column_moments.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {
namespace detail {

/// The sum of all squares, in double and in one order.
template <class Slope>
[[nodiscard]] double sum_of_squares(const Slope& slope) {
    EightSums sums;
    for (Index j = 0; j < slope.cols(); ++j)
        sums.over(slope.rows(), [&](Index i, double& sum) {
            const double entry = static_cast<double>(slope.coeff(i, j));
            sum += entry * entry;
        });
    return sums.total();
}

}  // namespace detail

/// Scales a gradient down to a norm that it may not exceed: with |g| the Euclidean norm over all
/// parameters together,
///
///     g = g min(1, max_norm / |g|)
///
/// Counted and scaled is what the gradient has reached: a skippable layer that no sample of the
/// step kept adds nothing and costs nothing. The sum of squares is taken in double, whatever the
/// scalar. If the norm is not finite, since an entry is not or (beyond 1e154) its square is not, no
/// scaling would mend it: the gradient is left as it is, and the caller sees it from the norm
/// returned.
///
/// \param network   The network that the gradient belongs to.
/// \param gradient  Scaled in place.
/// \param max_norm  Above 0; infinity measures without clipping.
/// \returns         |g| before clipping.
/// \throws std::invalid_argument  for another max_norm; the gradient is unchanged then.
/// \source Pascanu et al. 2013, On the difficulty of training recurrent neural networks, Algorithm
///         1.
template <class Network>
double clip_gradient_norm(const Network& network, typename Network::Gradient& gradient,
                          double max_norm) {
    if (!(max_norm > 0.0))
        detail::refuse("clip_gradient_norm: max_norm must be above 0, got ", max_norm);
    double squares = 0.0;
    visit_parameters(
        network,
        [&](const char*, const auto&, const auto& slope) {
            squares += detail::sum_of_squares(slope);
        },
        gradient);
    const double norm = std::sqrt(squares);
    if (norm > max_norm && std::isfinite(norm)) {
        const auto scale = static_cast<typename Network::Scalar>(max_norm / norm);
        visit_parameters(
            network, [&](const char*, const auto&, auto& slope) { slope *= scale; }, gradient);
    }
    return norm;
}

}  // namespace stochastic_depth
