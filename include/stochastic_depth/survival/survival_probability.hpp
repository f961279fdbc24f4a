// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/drop_probability.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Chance p that a layer is kept, in (0, 1].
class SurvivalProbability {
public:
    /// \param value  In (0, 1].
    /// \throws std::invalid_argument  outside that range, and for NaN.
    constexpr explicit SurvivalProbability(double value) : value_{value} {
        if (!(value > 0.0 && value <= 1.0))
            detail::refuse("SurvivalProbability: value must lie in (0, 1], got ", value);
    }

    /// p = 1 - drop, rounded once.
    constexpr explicit SurvivalProbability(DropProbability drop) : value_{1.0 - drop.value()} {}

    [[nodiscard]] constexpr double value() const { return value_; }

    friend constexpr bool operator==(SurvivalProbability, SurvivalProbability) = default;

private:
    double value_;
};

namespace detail {

/// Refuses a vector in which some p_l is no survival probability, naming the first such l.
inline void check_survival_probabilities(std::string_view who, const Eigen::VectorXd& p) {
    for (Index l = 0; l < p.size(); ++l)
        if (!(p(l) > 0.0 && p(l) <= 1.0))
            refuse(who, ": survival probability p(", l, ") must lie in (0, 1], got ", p(l));
}

}  // namespace detail
}  // namespace stochastic_depth
