// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/threads/team.hpp>
#include <stochastic_depth/training/segments.hpp>
#include <stochastic_depth/training/unreached_layers.hpp>

namespace stochastic_depth {

struct SgdOptions {
    /// eta, finite and above 0.
    double learning_rate = 0.01;
    /// mu, in [0, 1).
    double momentum = 0.0;
    /// Looks ahead along the momentum; needs momentum above 0.
    bool nesterov = false;
    /// lambda, finite and at least 0; acts on every parameter.
    double weight_decay = 0.0;
    UnreachedLayers unreached_layers = UnreachedLayers::frozen;
};

/// Stochastic gradient descent:
///     g = gradient + lambda w,  v = mu v + g,  w = w - eta v,
/// and with Nesterov's momentum w = w - eta (g + mu v).
///
/// A skippable layer that no sample of the step kept is left alone: neither its momentum nor its
/// weight decay moves it, and the step costs nothing for it. SgdOptions::unreached_layers can have
/// it updated by a gradient of zero instead.
///
/// \source Sutskever et al. 2013, On the importance of initialization and momentum in deep
///         learning.
template <class Network>
class Sgd {
public:
    using Gradient = typename Network::Gradient;
    static constexpr std::string_view name = "Sgd";

    /// \param network  The network whose parameters `step` will update.
    /// \throws std::invalid_argument  if an option lies outside its range.
    Sgd(const Network& network, SgdOptions options)
        : options_(checked(options)), velocity_(network.zero_gradient()) {}
    explicit Sgd(const Network& network) : Sgd(network, SgdOptions{}) {}

    [[nodiscard]] const SgdOptions& options() const { return options_; }

    /// Sets eta for the steps to come.
    /// \throws std::invalid_argument  unless it is finite and above 0.
    void set_learning_rate(double learning_rate) {
        check_learning_rate(learning_rate);
        options_.learning_rate = learning_rate;
    }

    /// Updates the parameters that the gradient has reached, or all.
    /// \param team  The threads that share the work; their number changes no bit.
    void step(Network& network, Gradient& gradient,
              const Team& team = Team::alone()) {
        using Scalar = typename Network::Scalar;
        const auto rate = static_cast<Scalar>(options_.learning_rate);
        const auto momentum = static_cast<Scalar>(options_.momentum);
        const auto decay = static_cast<Scalar>(options_.weight_decay);
        const auto update = [&](const char*, auto& parameter, const auto& slope, auto& velocity) {
            const auto move = [&](auto w, const auto& g, auto v) {
                v = momentum * v + g + decay * w;
                if (options_.nesterov)
                    w -= rate * (g + decay * w + momentum * v);
                else
                    w -= rate * v;
            };
            detail::update_in_segments(team, move, parameter, slope, velocity);
        };
        visit_parameters(network, detail::UpdateOf{update, options_.unreached_layers},
                                 gradient, velocity_);
    }

    /// Calls visit(name, option) for the options that are the same in every step.
    template <class Visit>
    void visit_options(const Visit& visit) const {
        visit("momentum", options_.momentum);
        visit("nesterov", options_.nesterov);
        visit("weight_decay", options_.weight_decay);
        visit("unreached_layers", options_.unreached_layers);
    }

    /// Calls visit(name, state) for what the next step depends on beside options and parameters.
    template <class Self, class Visit>
    static void visit_state(Self& self, const Visit& visit) {
        visit("velocity", self.velocity_);
    }

private:
    static void check_learning_rate(double learning_rate) {
        if (!(learning_rate > 0 && std::isfinite(learning_rate)))
            detail::refuse("Sgd: learning_rate must be finite and above 0, got ", learning_rate);
    }
    static SgdOptions checked(SgdOptions options) {
        check_learning_rate(options.learning_rate);
        if (!(options.momentum >= 0 && options.momentum < 1))
            detail::refuse("Sgd: momentum must lie in [0, 1), got ", options.momentum);
        if (options.nesterov && options.momentum == 0)
            detail::refuse("Sgd: nesterov needs a momentum above 0, got ", options.momentum);
        if (!(options.weight_decay >= 0 && std::isfinite(options.weight_decay)))
            detail::refuse("Sgd: weight_decay must be finite and at least 0, got ",
                           options.weight_decay);
        return options;
    }

    SgdOptions options_;
    Gradient velocity_;
};

}  // namespace stochastic_depth
