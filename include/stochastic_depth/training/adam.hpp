// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/threads/team.hpp>
#include <stochastic_depth/training/segments.hpp>
#include <stochastic_depth/training/unreached_layers.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

struct AdamOptions {
    /// eta, finite and above 0.
    double learning_rate = 0.001;
    /// beta_1, the memory of the mean of the gradients, in [0, 1).
    double beta1 = 0.9;
    /// beta_2, the memory of the mean of their squares, in [0, 1).
    double beta2 = 0.999;
    /// epsilon, finite and above 0, as a number of the network's scalar type too.
    double epsilon = 1e-8;
    /// lambda, finite and at least 0; lambda w is added to the gradient of every parameter.
    double weight_decay = 0.0;
    UnreachedLayers unreached_layers = UnreachedLayers::frozen;
};

struct AdamWOptions {
    /// eta, finite and above 0.
    double learning_rate = 0.001;
    /// beta_1, the memory of the mean of the gradients, in [0, 1).
    double beta1 = 0.9;
    /// beta_2, the memory of the mean of their squares, in [0, 1).
    double beta2 = 0.999;
    /// epsilon, finite and above 0, as a number of the network's scalar type too.
    double epsilon = 1e-8;
    /// lambda, finite and at least 0; shrinks every parameter by eta lambda, past the moments.
    double weight_decay = 0.01;
    UnreachedLayers unreached_layers = UnreachedLayers::frozen;
};

namespace detail {

inline void check_adam_rate(std::string_view who, double learning_rate) {
    if (!(learning_rate > 0 && std::isfinite(learning_rate)))
        refuse(who, ": learning_rate must be finite and above 0, got ", learning_rate);
}

template <class Scalar, class Options>
[[nodiscard]] Options checked_adam(std::string_view who, const Options& options) {
    check_adam_rate(who, options.learning_rate);
    if (!(options.beta1 >= 0 && options.beta1 < 1))
        refuse(who, ": beta1 must lie in [0, 1), got ", options.beta1);
    if (!(options.beta2 >= 0 && options.beta2 < 1))
        refuse(who, ": beta2 must lie in [0, 1), got ", options.beta2);
    if (!(static_cast<Scalar>(options.epsilon) > 0 && std::isfinite(options.epsilon)))
        refuse(who, ": epsilon must be finite and above 0, got ", options.epsilon);
    if (!(options.weight_decay >= 0 && std::isfinite(options.weight_decay)))
        refuse(who, ": weight_decay must be finite and at least 0, got ", options.weight_decay);
    return options;
}

/// The moments of the gradient of each parameter, and how often it was updated.
template <class Network>
class AdamMoments {
public:
    using Gradient = typename Network::Gradient;

    explicit AdamMoments(const Network& network)
        : first_(network.zero_gradient()), second_(network.zero_gradient()) {
        std::size_t parameters = 0;
        visit_parameters(network, [&](const char*, const auto&) { ++parameters; });
        updates_.resize(parameters);
        places_.resize(parameters);
    }

    /// \param coupled    lambda of the weight decay that goes through the moments.
    /// \param decoupled  lambda of the one that doesn't.
    template <class Options>
    void step(Network& network, Gradient& gradient, const Options& options, double coupled,
              double decoupled, const Team& team) {
        using Scalar = typename Network::Scalar;
        find_places(network);
        std::size_t next = 0;
        const auto update = [&](const char*, auto& parameter, const auto& slope, auto& first,
                                auto& second) {
            if (parameter.size() == 0) return;
            const auto count = static_cast<double>(++updates_[index_of(parameter.data(), next)]);
            // 1 - beta^count without its cancellation.
            const double correction1 = -std::expm1(count * std::log(options.beta1));
            const double correction2 = -std::expm1(count * std::log(options.beta2));
            const auto keep1 = static_cast<Scalar>(options.beta1);
            const auto take1 = static_cast<Scalar>(1 - options.beta1);
            const auto keep2 = static_cast<Scalar>(options.beta2);
            const auto take2 = static_cast<Scalar>(1 - options.beta2);
            const auto decay = static_cast<Scalar>(coupled);
            const auto rate = static_cast<Scalar>(options.learning_rate / correction1);
            const auto root = static_cast<Scalar>(1 / std::sqrt(correction2));
            const auto epsilon = static_cast<Scalar>(options.epsilon);
            const auto shrink = static_cast<Scalar>(options.learning_rate * decoupled);
            const auto move = [&](auto w, const auto& g, auto m, auto v) {
                m = keep1 * m + take1 * (g + decay * w);
                v = keep2 * v + take2 * (g + decay * w).square();
                w -= shrink * w + rate * m / (v.sqrt() * root + epsilon);
            };
            update_in_segments(team, move, parameter, slope, first, second);
        };
        visit_parameters(network, UpdateOf{update, options.unreached_layers}, gradient, first_,
                         second_);
    }

    template <class Self, class Visit>
    static void visit_state(Self& self, const Visit& visit) {
        visit("first moment", self.first_);
        visit("second moment", self.second_);
        visit("updates", self.updates_);
    }

private:
    /// Lists where all parameters lie: a visit of what a gradient has reached doesn't tell which it
    /// leaves out. Anew in each step, since networks may be moved.
    void find_places(const Network& network) {
        std::size_t next = 0;
        visit_parameters(network, [&](const char*, const auto& parameter) {
            places_[next++] = static_cast<const void*>(parameter.data());
        });
    }

    /// The index of a parameter among all; `next`, where the search begins, moves behind it.
    [[nodiscard]] std::size_t index_of(const void* place, std::size_t& next) const {
        std::size_t tried = 0;
        while (places_[next % places_.size()] != place && tried++ < places_.size()) ++next;
        eigen_assert(tried <= places_.size() &&
                     "a gradient reaches only parameters of the network");
        return next++ % places_.size();
    }

    Gradient first_, second_;
    std::vector<std::uint64_t> updates_;
    std::vector<const void*> places_;
};

/// What Adam and AdamW share. Kind tells the name, and whether weight decay goes past the moments.
template <class Network, class Options, class Kind>
class AdamOptimizer {
public:
    using Gradient = typename Network::Gradient;
    static constexpr std::string_view name = Kind::name;

    /// \param network  The network whose parameters `step` will update.
    /// \throws std::invalid_argument  if an option lies outside its range.
    AdamOptimizer(const Network& network, const Options& options)
        : options_(checked_adam<typename Network::Scalar>(name, options)), moments_(network) {}
    explicit AdamOptimizer(const Network& network) : AdamOptimizer(network, Options{}) {}

    [[nodiscard]] const Options& options() const { return options_; }

    /// Sets eta for the steps to come.
    /// \throws std::invalid_argument  unless it is finite and above 0.
    void set_learning_rate(double learning_rate) {
        check_adam_rate(name, learning_rate);
        options_.learning_rate = learning_rate;
    }

    /// Updates the parameters that the gradient has reached, or all.
    /// \param team  The threads that share the work; their number changes no bit.
    void step(Network& network, Gradient& gradient, const Team& team = Team::alone()) {
        const double decay = options_.weight_decay;
        moments_.step(network, gradient, options_, Kind::decouples_decay ? 0.0 : decay,
                      Kind::decouples_decay ? decay : 0.0, team);
    }

    /// Calls visit(name, option) for the options that are the same in every step.
    template <class Visit>
    void visit_options(const Visit& visit) const {
        visit("beta1", options_.beta1);
        visit("beta2", options_.beta2);
        visit("epsilon", options_.epsilon);
        visit("weight_decay", options_.weight_decay);
        visit("unreached_layers", options_.unreached_layers);
    }

    /// Calls visit(name, state) for what the next step depends on beside options and parameters.
    template <class Self, class Visit>
    static void visit_state(Self& self, const Visit& visit) {
        AdamMoments<Network>::visit_state(self.moments_, visit);
    }

private:
    Options options_;
    AdamMoments<Network> moments_;
};

struct AdamKind {
    static constexpr std::string_view name = "Adam";
    static constexpr bool decouples_decay = false;
};
struct AdamWKind {
    static constexpr std::string_view name = "AdamW";
    static constexpr bool decouples_decay = true;
};

}  // namespace detail

/// Adam:
///     g = gradient + lambda w,  m = beta_1 m + (1 - beta_1) g,  v = beta_2 v + (1 - beta_2) g^2,
///     w = w - eta m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + epsilon),
/// entry by entry. t counts the updates of the parameter, not the steps.
///
/// A skippable layer that no sample of the step kept is frozen: its parameters, its moments and its
/// t stay as they are, and the step costs nothing for it. So a layer that is seldom reached is
/// updated as if it had been trained in its own steps alone, its first update corrected for moments
/// of one gradient. A t that ran on while the moments stood still would take them for settled: the
/// first update of a layer after many steps would be up to (1 - beta_1) / sqrt(1 - beta_2) = 3.2
/// times what Adam means, in place of 1. AdamOptions::unreached_layers can have it updated by a
/// gradient of zero instead, moments and t together.
///
/// \source Kingma & Ba 2015, Adam: A Method for Stochastic Optimization, Algorithm 1.
template <class Network>
class Adam : public detail::AdamOptimizer<Network, AdamOptions, detail::AdamKind> {
    using detail::AdamOptimizer<Network, AdamOptions, detail::AdamKind>::AdamOptimizer;
};
template <class Network>
Adam(const Network&, AdamOptions) -> Adam<Network>;
template <class Network>
explicit Adam(const Network&) -> Adam<Network>;

/// Adam with decoupled weight decay: lambda w is no part of g, and w loses eta lambda w beside
/// Adam's step.
///     m = beta_1 m + (1 - beta_1) g,  v = beta_2 v + (1 - beta_2) g^2,
///     w = w - eta lambda w - eta m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + epsilon).
///
/// A skippable layer that no sample of the step kept is frozen, as in Adam: it doesn't decay
/// either, unless AdamWOptions::unreached_layers says so.
///
/// \source Loshchilov & Hutter 2019, Decoupled Weight Decay Regularization, Algorithm 2.
template <class Network>
class AdamW : public detail::AdamOptimizer<Network, AdamWOptions, detail::AdamWKind> {
    using detail::AdamOptimizer<Network, AdamWOptions, detail::AdamWKind>::AdamOptimizer;
};
template <class Network>
AdamW(const Network&, AdamWOptions) -> AdamW<Network>;
template <class Network>
explicit AdamW(const Network&) -> AdamW<Network>;

}  // namespace stochastic_depth
