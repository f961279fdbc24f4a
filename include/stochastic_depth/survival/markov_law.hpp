// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/mask_law.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// The law of a Markov chain along the depth: whether a layer is kept depends on whether the one
/// before it was. Layers are skipped in runs where `after_skipped` is small.
class MarkovLaw {
public:
    /// \param after_kept     P(s_l = 1 | s_(l-1) = 1), L entries in [0, 1]. What comes before the
    ///                       first layer counts as kept: entry 0 is P(s_1 = 1).
    /// \param after_skipped  P(s_l = 1 | s_(l-1) = 0), L entries in [0, 1]; entry 0 is not read.
    /// \throws std::invalid_argument  outside these ranges, or if sizes differ.
    MarkovLaw(Eigen::VectorXd after_kept, Eigen::VectorXd after_skipped)
        : after_kept_(std::move(after_kept)), after_skipped_(std::move(after_skipped)) {
        if (after_skipped_.size() != after_kept_.size())
            detail::refuse("MarkovLaw: after_skipped must have ", after_kept_.size(),
                           " entries as after_kept has, got ", after_skipped_.size());
        detail::check_probabilities("MarkovLaw", "after_kept", after_kept_);
        detail::check_probabilities("MarkovLaw", "after_skipped", after_skipped_);
    }

    [[nodiscard]] Index depth() const { return after_kept_.size(); }
    /// Whether the layer before was kept.
    [[nodiscard]] bool start() const { return true; }
    [[nodiscard]] double survival_probability(Index layer, bool kept_before) const {
        return kept_before ? after_kept_(layer) : after_skipped_(layer);
    }
    [[nodiscard]] bool next(Index, bool, bool kept) const { return kept; }

private:
    Eigen::VectorXd after_kept_;
    Eigen::VectorXd after_skipped_;
};

}  // namespace stochastic_depth
