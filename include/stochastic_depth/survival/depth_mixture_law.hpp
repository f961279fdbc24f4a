// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/mask_law.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// A mixture over depths: the first d layers are kept and all others skipped, with a weight for
/// each d: a posterior over depth, or early exits.
///
/// \source Antoran, Allingham & Hernandez-Lobato 2020, Depth Uncertainty in Neural Networks.
class DepthMixtureLaw {
public:
    /// \param weights  Of d = 0, ..., L: at least one, each finite and at least 0, not all 0; they
    ///                 are divided by their sum.
    /// \throws std::invalid_argument  otherwise.
    explicit DepthMixtureLaw(const Eigen::VectorXd& weights)
        : kept_(std::max<Index>(weights.size(), 1) - 1) {
        detail::check_weights("DepthMixtureLaw", weights);
        double deeper = weights(depth());
        for (Index l = depth(); l-- > 0;) {
            const double here = deeper + weights(l);
            kept_(l) = deeper == 0 ? 0 : deeper / here;
            deeper = here;
        }
    }

    [[nodiscard]] Index depth() const { return kept_.size(); }
    /// Whether all layers before are kept.
    [[nodiscard]] bool start() const { return true; }
    [[nodiscard]] double survival_probability(Index layer, bool all_before) const {
        return all_before ? kept_(layer) : 0;
    }
    [[nodiscard]] bool next(Index, bool all_before, bool kept) const { return all_before && kept; }

private:
    /// P(depth > l | depth >= l).
    Eigen::VectorXd kept_;
};

}  // namespace stochastic_depth
