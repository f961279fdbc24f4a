// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>
#include <stochastic_depth/types.hpp>

/// Survival probabilities that move while training goes on, from 1 to the target. Each schedule
/// maps a target and a time to the p of that time; a vector of targets, one for each layer, to a
/// vector.
namespace stochastic_depth {

/// Where a training stands before a step.
struct TrainingTime {
    Index step = 0;   ///< over all epochs, from 0
    Index steps = 1;  ///< in all

    /// The share of all steps that is done, in [0, 1).
    [[nodiscard]] double progress() const {
        return static_cast<double>(step) / static_cast<double>(steps);
    }
};

namespace detail {

/// 1 - (1 - target) share, which a share of 1 makes the target exactly.
[[nodiscard]] inline double part_of_the_way(std::string_view who, double target, double share) {
    if (!(target > 0.0 && target <= 1.0))
        refuse(who, ": target survival probability must lie in (0, 1], got ", target);
    if (share == 1.0) return target;
    // An explicit fma: whether the compiler would contract the expression must not change the bits.
    return std::clamp(std::fma(-share, 1.0 - target, 1.0), target, 1.0);
}

[[nodiscard]] inline Eigen::VectorXd part_of_the_way(std::string_view who,
                                                     const Eigen::VectorXd& targets, double share) {
    check_survival_probabilities(who, targets);
    Eigen::VectorXd p(targets.size());
    for (Index l = 0; l < p.size(); ++l) p(l) = part_of_the_way(who, targets(l), share);
    return p;
}

}  // namespace detail

/// Linear warm-up: every layer is kept at first, and after a share w of the training each has its
/// target:
///
///     p(s) = 1 - min(1, s/w) (1 - p)
///
/// with s the share of all steps that is done.
class SurvivalWarmUp {
public:
    /// \param share  w, in [0, 1]; 0: the target from the start.
    /// \throws std::invalid_argument  outside that range.
    explicit SurvivalWarmUp(double share) : share_(share) {
        if (!(share >= 0.0 && share <= 1.0))
            detail::refuse("SurvivalWarmUp: share must lie in [0, 1], got ", share);
    }

    /// \param target    p, in (0, 1], or one for each layer.
    /// \param progress  s, in [0, 1].
    /// \returns         p(s), of the target's shape, in [target, 1].
    /// \throws std::invalid_argument  outside these ranges.
    [[nodiscard]] double operator()(double target, double progress) const {
        return detail::part_of_the_way("SurvivalWarmUp", target, done(progress));
    }
    [[nodiscard]] Eigen::VectorXd operator()(const Eigen::VectorXd& targets,
                                             double progress) const {
        return detail::part_of_the_way("SurvivalWarmUp", targets, done(progress));
    }
    /// As TrainerOptions::survival takes it.
    [[nodiscard]] Eigen::VectorXd operator()(const Eigen::VectorXd& targets,
                                             const TrainingTime& time) const {
        return (*this)(targets, time.progress());
    }

private:
    [[nodiscard]] double done(double progress) const {
        if (!(progress >= 0.0 && progress <= 1.0))
            detail::refuse("SurvivalWarmUp: progress must lie in [0, 1], got ", progress);
        return progress >= share_ ? 1.0 : progress / share_;
    }

    double share_;
};

/// Progressive layer dropping: p falls exponentially from 1 to its target,
///
///     p(t) = (1 - p) exp(-gamma t) + p
///
/// with t the number of steps done. The source's network-wide theta is p here; its schedule over
/// depth is linear_decay.
///
/// \source Zhang & He 2020, Accelerating Training of Transformer-Based Language Models with
///         Progressive Layer Dropping.
class ProgressiveLayerDropping {
public:
    /// \param gamma  Finite and above 0. After 1/gamma steps 63 % of the way is done.
    /// \throws std::invalid_argument  outside that range.
    explicit ProgressiveLayerDropping(double gamma) : gamma_(gamma) {
        if (!(gamma > 0.0 && std::isfinite(gamma)))
            detail::refuse("ProgressiveLayerDropping: gamma must be finite and above 0, got ",
                           gamma);
    }

    /// \param target  p, in (0, 1], or one for each layer.
    /// \param step    t >= 0, counted over all epochs.
    /// \returns       p(t), of the target's shape, in [target, 1].
    /// \throws std::invalid_argument  outside these ranges.
    [[nodiscard]] double operator()(double target, Index step) const {
        return detail::part_of_the_way("ProgressiveLayerDropping", target, done(step));
    }
    [[nodiscard]] Eigen::VectorXd operator()(const Eigen::VectorXd& targets, Index step) const {
        return detail::part_of_the_way("ProgressiveLayerDropping", targets, done(step));
    }
    /// As TrainerOptions::survival takes it.
    [[nodiscard]] Eigen::VectorXd operator()(const Eigen::VectorXd& targets,
                                             const TrainingTime& time) const {
        return (*this)(targets, time.step);
    }

private:
    [[nodiscard]] double done(Index step) const {
        if (step < 0)
            detail::refuse("ProgressiveLayerDropping: step must be at least 0, got ", step);
        return -std::expm1(-gamma_ * static_cast<double>(step));
    }

    double gamma_;
};

/// Stochastic depth in the first part of the training alone: the targets up to a share w of all
/// steps, then every layer is kept. It was proposed against underfitting.
///
/// The network that comes of it was trained last at full depth, and is used so.
///
/// \source Liu et al. 2023, Dropout Reduces Underfitting; there the drop rate may also fall
///         linearly.
class EarlyStochasticDepth {
public:
    /// \param share  w, in [0, 1]; 0: every layer is kept from the start.
    /// \throws std::invalid_argument  outside that range.
    explicit EarlyStochasticDepth(double share) : share_(share) {
        if (!(share >= 0.0 && share <= 1.0))
            detail::refuse("EarlyStochasticDepth: share must lie in [0, 1], got ", share);
    }

    /// \param target    p, in (0, 1], or one for each layer.
    /// \param progress  s, in [0, 1].
    /// \returns         p where s < w, else 1, of the target's shape.
    /// \throws std::invalid_argument  outside these ranges.
    template <class Target>
    [[nodiscard]] Target operator()(const Target& target, double progress) const {
        if (!(progress >= 0.0 && progress <= 1.0))
            detail::refuse("EarlyStochasticDepth: progress must lie in [0, 1], got ", progress);
        return detail::part_of_the_way("EarlyStochasticDepth", target,
                                       progress < share_ ? 1.0 : 0.0);
    }
    /// As TrainerOptions::survival takes it.
    [[nodiscard]] Eigen::VectorXd operator()(const Eigen::VectorXd& targets,
                                             const TrainingTime& time) const {
        return (*this)(targets, time.progress());
    }

private:
    double share_;
};

/// Stochastic depth in the last part of the training alone: every layer is kept up to a share w of
/// all steps, then the targets hold. It was proposed against overfitting.
///
/// \source Liu et al. 2023, Dropout Reduces Underfitting.
class LateStochasticDepth {
public:
    /// \param share  w, in [0, 1]; 0: the target from the start.
    /// \throws std::invalid_argument  outside that range.
    explicit LateStochasticDepth(double share) : share_(share) {
        if (!(share >= 0.0 && share <= 1.0))
            detail::refuse("LateStochasticDepth: share must lie in [0, 1], got ", share);
    }

    /// \param target    p, in (0, 1], or one for each layer.
    /// \param progress  s, in [0, 1].
    /// \returns         1 where s < w, else p, of the target's shape.
    /// \throws std::invalid_argument  outside these ranges.
    template <class Target>
    [[nodiscard]] Target operator()(const Target& target, double progress) const {
        if (!(progress >= 0.0 && progress <= 1.0))
            detail::refuse("LateStochasticDepth: progress must lie in [0, 1], got ", progress);
        return detail::part_of_the_way("LateStochasticDepth", target,
                                       progress < share_ ? 0.0 : 1.0);
    }
    /// As TrainerOptions::survival takes it.
    [[nodiscard]] Eigen::VectorXd operator()(const Eigen::VectorXd& targets,
                                             const TrainingTime& time) const {
        return (*this)(targets, time.progress());
    }

private:
    double share_;
};

}  // namespace stochastic_depth
