// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// A survival mask S with P(S).
struct ProbableMask {
    SurvivalMask mask;
    double probability = 0;
};

/// The survival masks in order of falling probability, without listing all 2^L.
///
///     MostProbableMasks masks{network.survival_probabilities()};
///     while (const auto next = masks.next()) ...  // next->mask, next->probability
///
/// Each mask with P(S) > 0 comes once; layers with p = 1 are always kept, so there are 2^K masks for K layers
/// with p < 1. Against the most probable mask (a layer is kept if p >= 1/2), a mask costs
/// sum |log(p_l / (1 - p_l))| over the layers in which it differs: the masks are the subsets of these costs
/// in order of their sums. With the layers ranked by cost, every subset but the empty one follows from one
/// that costs no more, by adding the layer of the next rank or by moving its last layer up a rank.
///
/// `probability` never rises from one mask to the next, and is P(S) up to a relative error of 8 L 2^-53 (as
/// long as it does not underflow). Masks closer than that are ties; their order is fixed by p alone.
///
/// \complexity  O(log k + L) for the k-th mask; O(k L / 64) memory.
/// \source      Lawler 1972, A Procedure for Computing the K Best Solutions to Discrete Optimization
///              Problems: the scheme, here for sums of subsets.
class MostProbableMasks {
public:
    /// \param p  Survival probabilities, L entries in (0, 1].
    /// \throws std::invalid_argument  if some p_l lies outside (0, 1].
    explicit MostProbableMasks(const Eigen::VectorXd& p) {
        detail::check_survival_probabilities("MostProbableMasks", p);
        SurvivalMask likely = SurvivalMask::all(p.size());
        for (Index l = 0; l < p.size(); ++l) {
            if (p(l) < 0.5) likely.skip(l);
            if (p(l) < 1) layers_.push_back({l, p(l), 1 - p(l)});
        }
        std::stable_sort(layers_.begin(), layers_.end(),
                         [](const Layer& a, const Layer& b) { return a.odds() > b.odds(); });
        const double product = product_of(likely);
        candidates_.push_back({product, 0, std::move(likely)});
    }

    /// The next mask, or nothing after the last.
    [[nodiscard]] std::optional<ProbableMask> next() {
        if (candidates_.empty()) return std::nullopt;
        std::pop_heap(candidates_.begin(), candidates_.end(), less_probable);
        Candidate best = std::move(candidates_.back());
        candidates_.pop_back();
        if (best.ranks < layers_.size()) {
            SurvivalMask mask = best.mask;
            flip(mask, best.ranks);
            push(mask, best);
            if (best.ranks > 0) {
                flip(mask, best.ranks - 1);
                push(mask, best);
            }
        }
        return ProbableMask{std::move(best.mask), best.probability};
    }

private:
    /// A layer with p < 1.
    struct Layer {
        Index index;
        double kept, skipped;
        /// Those of its unlikelier state.
        [[nodiscard]] double odds() const { return std::min(kept, skipped) / std::max(kept, skipped); }
    };
    struct Candidate {
        double probability;
        /// 1 + the rank of the last layer in its unlikely state; 0: none is.
        std::size_t ranks;
        SurvivalMask mask;
    };

    /// A strict order of candidates in the heap, no two of which are equal.
    static bool less_probable(const Candidate& a, const Candidate& b) {
        if (a.probability != b.probability) return a.probability < b.probability;
        if (a.ranks != b.ranks) return a.ranks > b.ranks;
        return std::lexicographical_compare(a.mask.words().begin(), a.mask.words().end(),
                                            b.mask.words().begin(), b.mask.words().end());
    }

    void flip(SurvivalMask& mask, std::size_t rank) const {
        const Index l = layers_[rank].index;
        mask[l] ? mask.skip(l) : mask.keep(l);
    }

    [[nodiscard]] double product_of(const SurvivalMask& mask) const {
        double product = 1;
        for (const Layer& layer : layers_) product *= mask[layer.index] ? layer.kept : layer.skipped;
        return product;
    }

    /// Adds a mask that is no likelier than `before`, and whose last rank is the next one.
    void push(const SurvivalMask& mask, const Candidate& before) {
        // Rounding may lift the product above what it cannot exceed.
        const double probability = std::min(product_of(mask), before.probability);
        candidates_.push_back({probability, before.ranks + 1, mask});
        std::push_heap(candidates_.begin(), candidates_.end(), less_probable);
    }

    std::vector<Layer> layers_;
    std::vector<Candidate> candidates_;
};

}  // namespace stochastic_depth
