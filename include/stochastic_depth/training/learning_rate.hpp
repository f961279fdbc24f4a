// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <numbers>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>

/// Learning rates over a training: each is a function of the share of all steps that is done, t in
/// [0, 1), as TrainerOptions::learning_rate takes it. They take t = 1 too. A rate is above 0
/// wherever t < 1, as an optimizer needs it.
///
///     Trainer{{.learning_rate = LinearWarmUp{{.share = 0.05}, CosineLearningRate{{.initial = 0.1}}}}}
namespace stochastic_depth {
namespace detail {

inline void check_rate(std::string_view who, std::string_view what, double rate) {
    if (!(rate > 0.0 && std::isfinite(rate)))
        refuse(who, ": ", what, " must be finite and above 0, got ", rate);
}
inline void check_progress(std::string_view who, double progress) {
    if (!(progress >= 0.0 && progress <= 1.0))
        refuse(who, ": progress must lie in [0, 1], got ", progress);
}

}  // namespace detail

/// eta(t) = eta.
class ConstantLearningRate {
public:
    /// \param rate  eta, finite and above 0.
    /// \throws std::invalid_argument  outside that range.
    explicit ConstantLearningRate(double rate) : rate_(rate) {
        detail::check_rate("ConstantLearningRate", "rate", rate);
    }

    /// \param progress  t, in [0, 1].
    /// \throws std::invalid_argument  outside that range.
    [[nodiscard]] double operator()(double progress) const {
        detail::check_progress("ConstantLearningRate", progress);
        return rate_;
    }

private:
    double rate_;
};

struct StepLearningRateOptions {
    /// eta_0, finite and above 0.
    double initial = 0.1;
    /// What each milestone multiplies the rate by, finite and above 0.
    double factor = 0.1;
    /// Shares of the training, each in [0, 1], ascending. The default is the source's.
    std::vector<double> milestones = {0.5, 0.75};
};

/// eta(t) = eta_0 factor^k with k the number of milestones that t has reached.
/// \source Huang et al. 2016, Deep Networks with Stochastic Depth, Section 4.
class StepLearningRate {
public:
    /// \throws std::invalid_argument  if an option lies outside its range, or the last rate is no
    ///                                longer finite and above 0.
    explicit StepLearningRate(StepLearningRateOptions options)
        : milestones_(std::move(options.milestones)) {
        detail::check_rate("StepLearningRate", "initial", options.initial);
        detail::check_rate("StepLearningRate", "factor", options.factor);
        double before = 0.0;
        rates_.push_back(options.initial);
        for (const double milestone : milestones_) {
            if (!(milestone >= before && milestone <= 1.0))
                detail::refuse("StepLearningRate: milestones must ascend in [0, 1], got ",
                               milestone, " after ", before);
            before = milestone;
            rates_.push_back(rates_.back() * options.factor);
            detail::check_rate("StepLearningRate", "the rate after each milestone", rates_.back());
        }
    }

    /// \param progress  t, in [0, 1].
    /// \throws std::invalid_argument  outside that range.
    [[nodiscard]] double operator()(double progress) const {
        detail::check_progress("StepLearningRate", progress);
        const auto reached = std::upper_bound(milestones_.begin(), milestones_.end(), progress);
        return rates_[static_cast<std::size_t>(reached - milestones_.begin())];
    }

private:
    std::vector<double> milestones_;
    std::vector<double> rates_;  // one more: rates_[k] after k milestones
};

struct CosineLearningRateOptions {
    /// eta_0, finite and above 0.
    double initial = 0.1;
    /// eta_1, in [0, initial].
    double last = 0.0;
};

/// eta(t) = eta_1 + (eta_0 - eta_1) (1 + cos(pi t)) / 2: from eta_0 at t = 0 to eta_1 at t = 1.
/// \source Loshchilov & Hutter 2017, SGDR: Stochastic Gradient Descent with Warm Restarts, Eq. (5),
///         one period.
class CosineLearningRate {
public:
    /// \throws std::invalid_argument  if an option lies outside its range.
    explicit CosineLearningRate(CosineLearningRateOptions options) : options_(options) {
        detail::check_rate("CosineLearningRate", "initial", options.initial);
        if (!(options.last >= 0.0 && options.last <= options.initial))
            detail::refuse("CosineLearningRate: last must lie in [0, ", options.initial, "], got ",
                           options.last);
    }

    /// \param progress  t, in [0, 1].
    /// \throws std::invalid_argument  outside that range.
    [[nodiscard]] double operator()(double progress) const {
        detail::check_progress("CosineLearningRate", progress);
        // (1 + cos(pi t)) / 2 = sin^2(pi (1 - t) / 2), which doesn't cancel to 0 before the end.
        const double rest = std::sin(std::numbers::pi * (1.0 - progress) / 2.0);
        return std::fma(options_.initial - options_.last, rest * rest, options_.last);
    }

private:
    CosineLearningRateOptions options_;
};

struct LinearWarmUpOptions {
    /// w, the share of the training that warms up, in [0, 1); 0: none.
    double share = 0.05;
    /// a, the share of the first rate to begin with, in (0, 1].
    double start = 0.01;
};

/// The rate rises linearly to the first rate of another schedule, which has the rest of the
/// training:
///
///     eta(t) = then(0) (a + (1 - a) t/w)  for t < w,  then((t - w) / (1 - w))  from there on.
///
/// \source Goyal et al. 2017, Accurate, Large Minibatch SGD, Section 2.2 (gradual warm-up).
template <class Then>
    requires(std::convertible_to<std::invoke_result_t<const Then&, double>, double>)
class LinearWarmUp {
public:
    /// \param then  A schedule of this header, or any other function of the share done.
    /// \throws std::invalid_argument  if an option lies outside its range.
    LinearWarmUp(LinearWarmUpOptions options, Then then)
        : options_(options), then_(std::move(then)) {
        if (!(options.share >= 0.0 && options.share < 1.0))
            detail::refuse("LinearWarmUp: share must lie in [0, 1), got ", options.share);
        if (!(options.start > 0.0 && options.start <= 1.0))
            detail::refuse("LinearWarmUp: start must lie in (0, 1], got ", options.start);
    }

    /// \param progress  t, in [0, 1].
    /// \throws std::invalid_argument  outside that range.
    [[nodiscard]] double operator()(double progress) const {
        detail::check_progress("LinearWarmUp", progress);
        if (progress < options_.share)
            return then_(0.0) *
                   std::fma(1.0 - options_.start, progress / options_.share, options_.start);
        return then_((progress - options_.share) / (1.0 - options_.share));
    }

private:
    LinearWarmUpOptions options_;
    Then then_;
};

}  // namespace stochastic_depth
