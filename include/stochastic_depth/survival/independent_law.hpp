// SPDX-License-Identifier: MIT
#pragma once

#include <compare>
#include <utility>

#include <stochastic_depth/survival/survival_probability.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// The law of independent masks: layer l is kept with probability p_l, whatever the others do. It
/// is what everything takes that is given no law, with the network's own p_l; as a law it stands
/// for other p_l than these.
class IndependentLaw {
public:
    /// There is nothing to know of the layers before.
    struct State {
        friend auto operator<=>(const State&, const State&) = default;
    };

    /// \param p  Survival probabilities p_1, ..., p_L, each in (0, 1].
    /// \throws std::invalid_argument  outside that range.
    explicit IndependentLaw(Eigen::VectorXd p) : p_(std::move(p)) {
        detail::check_survival_probabilities("IndependentLaw", p_);
    }

    [[nodiscard]] const Eigen::VectorXd& survival_probabilities() const { return p_; }

    [[nodiscard]] Index depth() const { return p_.size(); }
    [[nodiscard]] State start() const { return {}; }
    [[nodiscard]] double survival_probability(Index layer, State) const { return p_(layer); }
    [[nodiscard]] State next(Index, State, bool) const { return {}; }

private:
    Eigen::VectorXd p_;
};

}  // namespace stochastic_depth
