// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

struct SurvivalProbabilityStepOptions {
    /// Finite and above 0.
    double learning_rate = 0.1;
    /// What a layer evaluation costs for a sample, in units of the loss; finite.
    double depth_cost = 0;
    /// No survival probability falls below this, in (0, 1]: a layer that is hardly ever kept is
    /// hardly ever trained either.
    double least = 0.01;
};

/// A step of projected gradient descent on survival probabilities, for the objective
///
///     E[loss] + depth_cost sum_l p_l :     p_l <- min(1, max(least, p_l - rate (slope_l + cost))).
///
/// Its loop, with the expected loss of a network as it stands:
///
///     const Eigen::VectorXd losses = mask_values(network, x, loss);
///     for (int k = 0; k < 1000; ++k)
///         p = survival_probability_step(p, expected_value(losses, p).by_survival_probability);
///
/// and while a network is trained, the same every few steps, with a batch's losses, and
/// `TrainingStep::set_survival_probabilities(p)`. E[loss] is linear in each p_l: for fixed
/// parameters the least objective of all is that of a single mask (`best_subnetworks` finds it),
/// and p goes to `least` or 1 unless the layers move with it.
///
/// \param p       Survival probabilities, L entries in (0, 1].
/// \param slopes  d E[loss] / d p_l, L finite entries: of `expected_value`, or of ExactSensitivity
///                by `contract`.
/// \returns       p of the next step, in [least, 1].
/// \throws std::invalid_argument  outside these ranges.
[[nodiscard]] inline Eigen::VectorXd survival_probability_step(
    const Eigen::VectorXd& p, const Eigen::VectorXd& slopes,
    const SurvivalProbabilityStepOptions& options = {}) {
    constexpr const char* name = "survival_probability_step";
    detail::check_survival_probabilities(name, p);
    if (slopes.size() != p.size())
        detail::refuse(name, ": slopes must be ", p.size(), ", got ", slopes.size());
    if (!(options.learning_rate > 0 && std::isfinite(options.learning_rate)))
        detail::refuse(name, ": learning_rate must be finite and above 0, got ",
                       options.learning_rate);
    if (!std::isfinite(options.depth_cost))
        detail::refuse(name, ": depth_cost must be finite, got ", options.depth_cost);
    if (!(options.least > 0 && options.least <= 1))
        detail::refuse(name, ": least must lie in (0, 1], got ", options.least);
    Eigen::VectorXd next(p.size());
    for (Index l = 0; l < p.size(); ++l) {
        if (!std::isfinite(slopes(l)))
            detail::refuse(name, ": slope ", l, " must be finite, got ", slopes(l));
        next(l) = std::clamp(p(l) - options.learning_rate * (slopes(l) + options.depth_cost),
                             options.least, 1.0);
    }
    return next;
}

}  // namespace stochastic_depth
