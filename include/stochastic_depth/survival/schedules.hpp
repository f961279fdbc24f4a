// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {
namespace detail {

inline void check_schedule(std::string_view who, std::string_view what, Index depth, double p) {
    if (depth < 0) refuse(who, ": depth must be at least 0, got ", depth);
    if (!(p > 0.0 && p <= 1.0))
        refuse(who, ": ", what, " survival probability must lie in (0, 1], got ", p);
}

}  // namespace detail

/// p_l = p for every layer.
///
/// \param depth     L >= 0.
/// \param survival  p, in (0, 1].
/// \returns         L survival probabilities.
/// \throws std::invalid_argument  outside these ranges.
[[nodiscard]] inline Eigen::VectorXd uniform_survival(Index depth, double survival) {
    detail::check_schedule("uniform_survival", "the", depth, survival);
    return Eigen::VectorXd::Constant(depth, survival);
}

/// p_l = 1 - l/L (1 - p_L), l = 1, ..., L: falls from just under 1 at the first layer to p_L at the
/// last. Of the readings of "linear decay" in use, this is the paper's.
///
/// \param depth           L >= 0. For L = 1 the one layer has p_L.
/// \param final_survival  p_L, in (0, 1]; the last entry is exactly this.
/// \returns               L survival probabilities, p_l at index l - 1.
/// \throws std::invalid_argument  outside these ranges.
/// \source                Huang et al. 2016, "Deep Networks with Stochastic Depth", Eq. (4).
[[nodiscard]] inline Eigen::VectorXd linear_decay(Index depth, double final_survival) {
    detail::check_schedule("linear_decay", "final", depth, final_survival);
    Eigen::VectorXd p(depth);
    // A division after the product: no compiler can fuse these into a multiply-add of other bits.
    for (Index l = 1; l < depth; ++l)
        p(l - 1) =
            1.0 - static_cast<double>(l) * (1.0 - final_survival) / static_cast<double>(depth);
    if (depth > 0) p(depth - 1) = final_survival;
    return p;
}

}  // namespace stochastic_depth
