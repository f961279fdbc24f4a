// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Gradient of a normalisation by its parameters, in their shapes.
template <class Scalar>
struct GainAndBias {
    Vector<Scalar> gain;
    Vector<Scalar> bias;

    [[nodiscard]] static GainAndBias zero(Index features) {
        return {Vector<Scalar>::Zero(features), Vector<Scalar>::Zero(features)};
    }
    void set_zero() {
        gain.setZero();
        bias.setZero();
    }

    /// \throws std::invalid_argument  unless it is of so many features.
    void check(std::string_view layer, Index features) const {
        if (gain.size() != features || bias.size() != features)
            refuse(layer, ": gradient must have ", features, " features, got ", gain.size());
    }
};

}  // namespace stochastic_depth::detail
