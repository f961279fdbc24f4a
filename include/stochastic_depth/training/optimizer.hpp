// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/threads/team.hpp>

namespace stochastic_depth {

/// Updates a network by a gradient.
///
/// Beyond the syntax: `step` moves only parameters that the gradient has reached, which
/// visit_parameters tells, so that layers which no sample kept cost nothing;
/// `set_learning_rate` acts on the steps to come.
///
/// Models: Sgd, Adam, AdamW; a user's type that has the two members. Taken by Trainer::fit.
template <class Optimizer, class Network>
concept OptimizerOf = requires(Optimizer& optimizer, Network& network,
                               typename Network::Gradient& gradient, double learning_rate) {
    optimizer.step(network, gradient);
    optimizer.set_learning_rate(learning_rate);
};

namespace detail {

/// Updates a network by a gradient; an optimizer that can shares the work among a step's threads.
template <class Optimizer, class Network, class Gradient>
void update(Optimizer& optimizer, Network& network, Gradient& gradient, const Team& team) {
    if constexpr (requires { optimizer.step(network, gradient, team); })
        optimizer.step(network, gradient, team);
    else
        optimizer.step(network, gradient);
}

}  // namespace detail
}  // namespace stochastic_depth
