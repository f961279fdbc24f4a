// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// The law of independent masks, given that they keep at least `fewest` and at most `most` layers:
///
///     P(S) = prod_l p_l^s_l (1 - p_l)^(1 - s_l) / P(fewest <= |S| <= most),   |S| = sum_l s_l.
///
/// With all p_l alike, every mask of one size is as likely as another.
///
/// \complexity  O(L most) time and memory to make.
/// \source      Chen & Liu 1997, Statistical Applications of the Poisson-Binomial and Conditional
///              Bernoulli Distributions, for exactly k layers.
class LayerCountLaw {
public:
    /// \param p             Survival probabilities of the independent masks, L entries in (0, 1].
    /// \param fewest, most  0 <= fewest <= most <= L.
    /// \throws std::invalid_argument  outside these ranges, or if more than `most` layers have p =
    ///                                1.
    LayerCountLaw(const Eigen::VectorXd& p, Index fewest, Index most) {
        detail::check_survival_probabilities("LayerCountLaw", p);
        const Index depth = p.size();
        if (!(fewest >= 0 && fewest <= most && most <= depth))
            detail::refuse("LayerCountLaw: fewest and most must be 0 <= fewest <= most <= ", depth,
                           ", got ", fewest, " and ", most);
        kept_.resize(depth, most + 1);
        // log P(the final count is in range | n are kept before layer l), of the last layer first.
        constexpr double never = -std::numeric_limits<double>::infinity();
        Eigen::VectorXd ends = Eigen::VectorXd::Constant(most + 2, never);
        for (Index n = fewest; n <= most; ++n) ends(n) = 0;
        for (Index l = depth; l-- > 0;)
            for (Index n = 0; n <= most; ++n) {
                const double kept = std::log(p(l)) + ends(n + 1);
                const double skipped = std::log1p(-p(l)) + ends(n);
                const double more = std::max(kept, skipped), less = std::min(kept, skipped);
                // Where neither can be, the state cannot be reached.
                kept_(l, n) = kept == never ? 0 : 1 / (1 + std::exp(skipped - kept));
                ends(n) = more == never ? never : more + std::log1p(std::exp(less - more));
            }
        if (ends(0) == never)
            detail::refuse("LayerCountLaw: layers with p = 1 must be at most ", most, ", got ",
                           (p.array() == 1.0).count());
    }

    /// Exactly k layers.
    [[nodiscard]] static LayerCountLaw exactly(const Eigen::VectorXd& p, Index k) {
        return {p, k, k};
    }
    /// Exactly k of `depth` layers, every choice as likely as another.
    [[nodiscard]] static LayerCountLaw exactly(Index depth, Index k) {
        return exactly(fair(depth), k);
    }
    /// At most k layers.
    [[nodiscard]] static LayerCountLaw at_most(const Eigen::VectorXd& p, Index k) {
        return {p, 0, k};
    }
    /// At most k of `depth` layers, every choice as likely as another.
    [[nodiscard]] static LayerCountLaw at_most(Index depth, Index k) {
        return at_most(fair(depth), k);
    }

    [[nodiscard]] Index depth() const { return kept_.rows(); }
    /// How many layers are kept before.
    [[nodiscard]] Index start() const { return 0; }
    [[nodiscard]] double survival_probability(Index layer, Index count) const {
        return kept_(layer, count);
    }
    [[nodiscard]] Index next(Index, Index count, bool kept) const {
        return std::min(count + (kept ? 1 : 0), kept_.cols() - 1);
    }

private:
    [[nodiscard]] static Eigen::VectorXd fair(Index depth) {
        if (depth < 0) detail::refuse("LayerCountLaw: depth must be at least 0, got ", depth);
        return Eigen::VectorXd::Constant(depth, 0.5);
    }

    /// P(s_l = 1 | n are kept before), [layers x counts].
    Eigen::MatrixXd kept_;
};

}  // namespace stochastic_depth
