// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include <stochastic_depth/survival/mask_law.hpp>
#include <stochastic_depth/survival/most_probable_masks.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// The survival masks of a law in order of falling probability, without listing them all: what
/// MostProbableMasks is for independent layers.
///
/// Each mask with P(S) > 0 comes once. Of all prefixes that are known, the one whose best
/// completion is the most probable goes on, and that completion is known beforehand for each state
/// of the law. `probability` is the product of the law's conditional probabilities, up to a
/// relative error of 2 L 2^-53; masks closer than that may come in any order, which is the same
/// each time.
///
/// \complexity  Each state of each layer once, to begin with; then O(L log(k L)) for the k-th mask,
///              and O(k L^2 / 64) memory.
/// \source      Hart, Nilsson & Raphael 1968, A Formal Basis for the Heuristic Determination of
///              Minimum Cost Paths.
template <MaskLaw Law>
class MostProbableLawMasks {
public:
    /// \throws std::invalid_argument  if a probability of the law lies outside [0, 1].
    /// \throws std::length_error      if more than 2^20 of its states differ behind a layer.
    explicit MostProbableLawMasks(Law law)
        : law_(std::move(law)), best_(static_cast<std::size_t>(law_.depth()) + 1) {
        const Index depth = law_.depth();
        best_[0] = {{law_.start(), 1.0}};
        for (Index l = 0; l < depth; ++l) {
            best_[index(l) + 1] = best_[index(l)];
            detail::move_past(law_, l, best_[index(l) + 1]);
        }
        for (auto& [state, best] : best_.back()) best = 1;
        for (Index l = depth; l-- > 0;)
            for (auto& [state, best] : best_[index(l)])
                best = std::max(branch(l, state, 1, true), branch(l, state, 1, false));
        prefixes_.push_back(
            {best_[0].begin()->second, 1, 0, SurvivalMask::none(depth), law_.start()});
    }

    /// The next mask, or nothing after the last.
    [[nodiscard]] std::optional<ProbableMask> next() {
        while (!prefixes_.empty()) {
            std::pop_heap(prefixes_.begin(), prefixes_.end(), worse);
            Prefix prefix = std::move(prefixes_.back());
            prefixes_.pop_back();
            const Index l = prefix.layers;
            if (l == prefix.mask.size()) return ProbableMask{std::move(prefix.mask), prefix.weight};
            const double p = law_.survival_probability(l, prefix.state);
            if (p > 0) {
                Prefix kept{branch(l, prefix.state, prefix.weight, true), prefix.weight * p, l + 1,
                            prefix.mask, law_.next(l, prefix.state, true)};
                kept.mask.keep(l);
                push(std::move(kept));
            }
            if (p < 1)
                push({branch(l, prefix.state, prefix.weight, false), prefix.weight * (1.0 - p),
                      l + 1, std::move(prefix.mask), law_.next(l, prefix.state, false)});
        }
        return std::nullopt;
    }

private:
    /// Masks that agree on their first layers.
    struct Prefix {
        /// P(S) of the most probable of them.
        double best;
        /// Of all of them.
        double weight;
        Index layers;
        SurvivalMask mask;
        LawState<Law> state;
    };

    static std::size_t index(Index l) { return static_cast<std::size_t>(l); }

    /// Longer ones first among equals, so that masks are finished one by one.
    static bool worse(const Prefix& a, const Prefix& b) {
        return a.best != b.best ? a.best < b.best : a.layers < b.layers;
    }

    /// The most probable mask of those that go one way at a layer.
    [[nodiscard]] double branch(Index l, const LawState<Law>& state, double weight,
                                bool kept) const {
        const double p = law_.survival_probability(l, state);
        const double share = kept ? p : 1.0 - p;
        return share > 0 ? weight * share * best_[index(l) + 1].at(law_.next(l, state, kept)) : 0;
    }

    void push(Prefix prefix) {
        prefixes_.push_back(std::move(prefix));
        std::push_heap(prefixes_.begin(), prefixes_.end(), worse);
    }

    Law law_;
    /// The probability of the best completion of each state before each layer.
    std::vector<detail::LawStates<Law>> best_;
    /// A heap.
    std::vector<Prefix> prefixes_;
};

}  // namespace stochastic_depth
