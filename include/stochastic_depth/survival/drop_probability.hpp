// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/detail/check.hpp>

namespace stochastic_depth {

/// Chance 1 - p that a layer is skipped, in [0, 1): what other libraries call the drop rate.
///
/// A type of its own, so that p and 1 - p can't be taken for one another. A layer that is always
/// skipped is no layer: 1 is refused.
class DropProbability {
public:
    /// \param value  In [0, 1).
    /// \throws std::invalid_argument  outside that range, and for NaN.
    constexpr explicit DropProbability(double value) : value_{value} {
        if (!(value >= 0.0 && value < 1.0))
            detail::refuse("DropProbability: value must lie in [0, 1), got ", value);
    }

    [[nodiscard]] constexpr double value() const { return value_; }

    friend constexpr bool operator==(DropProbability, DropProbability) = default;

private:
    double value_;
};

}  // namespace stochastic_depth
