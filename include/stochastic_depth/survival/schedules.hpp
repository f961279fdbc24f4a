// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {
namespace detail {

inline void check_schedule(std::string_view who, std::string_view what, Index depth, double p) {
    if (depth < 0) refuse(who, ": depth must be at least 0, got ", depth);
    if (!(p > 0.0 && p <= 1.0))
        refuse(who, ": ", what, " survival probability must lie in (0, 1], got ", p);
}

/// p_l = 1 - fall(l) (1 - p_L), never rising and never under p_L, whatever rounding does to `fall`,
/// which goes from about 0 at l = 1 to 1 at l = L.
template <class Fall>
[[nodiscard]] Eigen::VectorXd falling_survival(std::string_view who, Index depth,
                                               double final_survival, const Fall& fall) {
    check_schedule(who, "final", depth, final_survival);
    Eigen::VectorXd p(depth);
    double last = 1.0;
    for (Index l = 1; l < depth; ++l) {
        const double share = fall(static_cast<double>(l));
        // An explicit fma: whether the compiler would contract the expression must not change the
        // bits.
        const double next =
            share == 1.0 ? final_survival : std::fma(-share, 1.0 - final_survival, 1.0);
        p(l - 1) = last = std::clamp(next, final_survival, last);
    }
    if (depth > 0) p(depth - 1) = final_survival;
    return p;
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

/// p_l = 1 - (l - 1)/(L - 1) (1 - p_L), l = 1, ..., L: the first layer is always kept, and the drop
/// rate rises from 0 to its final value d = 1 - p_L, both ends included: drop_l = d (l - 1)/(L -
/// 1).
///
/// \param depth           L >= 0. For L = 1 the one layer has p_L, as in the other schedules;
///                        linspace, which the source uses, would never drop it.
/// \param final_survival  p_L, in (0, 1]; the last entry is exactly this.
/// \returns               L survival probabilities, p_l at index l - 1.
/// \throws std::invalid_argument  outside these ranges.
/// \source                PyTorch image models (timm), torch.linspace(0, drop_path_rate, depth).
[[nodiscard]] inline Eigen::VectorXd linear_decay_with_endpoints(Index depth,
                                                                 double final_survival) {
    const double steps = static_cast<double>(depth) - 1.0;
    return detail::falling_survival("linear_decay_with_endpoints", depth, final_survival,
                                    [steps](double l) { return (l - 1.0) / steps; });
}

/// p_l = 1 - g(l/L) (1 - p_L) with g the logistic function of steepness k, shifted and scaled to
/// g(0) = 0 and g(1) = 1:
///
///     g(t) = (s(k (t - 1/2)) - s(-k/2)) / (s(k/2) - s(-k/2)),  s(z) = 1 / (1 + exp(-z))
///
/// Early layers are kept, late ones dropped at the final rate, with the change around the middle.
///
/// \param depth           L >= 0. For L = 1 the one layer has p_L.
/// \param final_survival  p_L, in (0, 1]; the last entry is exactly this.
/// \param steepness       k, in [1e-3, 1e3]; small: linear_decay, large: a step at the middle.
/// \returns               L survival probabilities, p_l at index l - 1.
/// \throws std::invalid_argument  outside these ranges.
/// \source                This library.
[[nodiscard]] inline Eigen::VectorXd sigmoid_decay(Index depth, double final_survival,
                                                   double steepness = 10.0) {
    if (!(steepness >= 1e-3 && steepness <= 1e3))
        detail::refuse("sigmoid_decay: steepness must lie in [0.001, 1000], got ", steepness);
    // s(z) = (1 + tanh(z/2)) / 2 turns g into a quotient that cancels nothing.
    const double layers = static_cast<double>(depth), end = std::tanh(steepness / 4.0);
    return detail::falling_survival("sigmoid_decay", depth, final_survival, [=](double l) {
        return (end + std::tanh(steepness * (2.0 * l - layers) / (4.0 * layers))) / (2.0 * end);
    });
}

/// p_l = 1 - (1 - cos(pi l/L)) / 2 (1 - p_L), l = 1, ..., L: half a cosine, flat at both ends.
///
/// \param depth           L >= 0. For L = 1 the one layer has p_L.
/// \param final_survival  p_L, in (0, 1]; the last entry is exactly this.
/// \returns               L survival probabilities, p_l at index l - 1.
/// \throws std::invalid_argument  outside these ranges.
/// \source                The shape of Loshchilov & Hutter 2017, "SGDR", Eq. (5), over depth.
[[nodiscard]] inline Eigen::VectorXd cosine_decay(Index depth, double final_survival) {
    const double layers = static_cast<double>(depth);
    return detail::falling_survival("cosine_decay", depth, final_survival, [layers](double l) {
        return (1.0 - std::cos(std::numbers::pi * l / layers)) / 2.0;
    });
}

/// p_l = 1 - log(1 + l)/log(1 + L) (1 - p_L), l = 1, ..., L: most of the fall happens in the first
/// layers.
///
/// \param depth           L >= 0. For L = 1 the one layer has p_L.
/// \param final_survival  p_L, in (0, 1]; the last entry is exactly this.
/// \returns               L survival probabilities, p_l at index l - 1.
/// \throws std::invalid_argument  outside these ranges.
/// \source                This library.
[[nodiscard]] inline Eigen::VectorXd logarithmic_decay(Index depth, double final_survival) {
    const double all = std::log1p(static_cast<double>(std::max<Index>(depth, 1)));
    return detail::falling_survival("logarithmic_decay", depth, final_survival,
                                    [all](double l) { return std::log1p(l) / all; });
}

/// p_l = p_L^(l/L), l = 1, ..., L: each layer's survival probability is the one before times the
/// same factor, so the chance that the first m layers are all kept falls as p_L^(m (m + 1) / (2
/// L)).
///
/// \param depth           L >= 0. For L = 1 the one layer has p_L.
/// \param final_survival  p_L, in (0, 1]; the last entry is exactly this.
/// \returns               L survival probabilities, p_l at index l - 1.
/// \throws std::invalid_argument  outside these ranges.
/// \source                This library.
[[nodiscard]] inline Eigen::VectorXd exponential_decay(Index depth, double final_survival) {
    detail::check_schedule("exponential_decay", "final", depth, final_survival);
    Eigen::VectorXd p(depth);
    double last = 1.0;
    for (Index l = 1; l <= depth; ++l) {
        const double next =
            std::pow(final_survival, static_cast<double>(l) / static_cast<double>(depth));
        p(l - 1) = last = std::clamp(next, final_survival, last);
    }
    return p;
}

/// p_l = 1 - k/K (1 - p_L), k = ceil(K l/L), l = 1, ..., L: the layers in K stages of equal
/// survival probability, the linear decay of the stages. K = 1 is uniform_survival, K = L is
/// linear_decay.
///
/// \param depth           L >= 0. For L = 1 the one layer has p_L.
/// \param final_survival  p_L, in (0, 1]; the last stage has exactly this.
/// \param stages          K >= 1; more stages than layers are as many as layers.
/// \returns               L survival probabilities, p_l at index l - 1.
/// \throws std::invalid_argument  outside these ranges.
/// \source                This library.
[[nodiscard]] inline Eigen::VectorXd step_decay(Index depth, double final_survival, Index stages) {
    if (stages < 1) detail::refuse("step_decay: stages must be at least 1, got ", stages);
    const Index used = std::min(stages, std::max<Index>(depth, 1));
    return detail::falling_survival("step_decay", depth, final_survival, [=](double l) {
        const Index stage = (used * static_cast<Index>(l) + depth - 1) / depth;
        return static_cast<double>(stage) / static_cast<double>(used);
    });
}

/// Any survival probabilities, checked.
///
/// \param survival  p_l at index l - 1, each in (0, 1]; they may rise and fall.
/// \returns         The same.
/// \throws std::invalid_argument  for an entry outside that range.
[[nodiscard]] inline Eigen::VectorXd custom_survival(Eigen::VectorXd survival) {
    detail::check_survival_probabilities("custom_survival", survival);
    return survival;
}

}  // namespace stochastic_depth
