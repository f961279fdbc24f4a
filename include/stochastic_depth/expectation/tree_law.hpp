// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <map>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/moments.hpp>
#include <stochastic_depth/pass/evaluations.hpp>
#include <stochastic_depth/pass/parts.hpp>
#include <stochastic_depth/survival/independent_law.hpp>
#include <stochastic_depth/survival/mask_law.hpp>
#include <stochastic_depth/types.hpp>

/// Laws of masks, as the tree of mask prefixes takes them.
namespace stochastic_depth::detail {

/// Independent masks of any p_l in [0, 1], which someone else owns.
struct IndependentBits {
    using State = IndependentLaw::State;

    const Eigen::Ref<const Eigen::VectorXd>& p;

    [[nodiscard]] Index depth() const { return p.size(); }
    [[nodiscard]] State start() const { return {}; }
    [[nodiscard]] double survival_probability(Index layer, State) const { return p(layer); }
    [[nodiscard]] State next(Index, State, bool) const { return {}; }
};

/// A law of which not all bits are seen: where a layer is skipped, those of layers inside it. Its
/// state is what is known of the law's own one, a probability for each that it may be.
///
/// \source Rabiner 1989, A Tutorial on Hidden Markov Models: the filter, or forward recursion.
template <MaskLaw Law>
class FilteredLaw {
public:
    using State = std::vector<std::pair<LawState<Law>, double>>;

    explicit FilteredLaw(const Law& law) : law_(law) {}

    [[nodiscard]] Index depth() const { return law_.depth(); }
    [[nodiscard]] State start() const { return {{law_.start(), 1.0}}; }

    [[nodiscard]] double survival_probability(Index layer, const State& state) const {
        double kept = 0, skipped = 0;
        for (const auto& [own, weight] : state) {
            const double p = detail::survival_probability(law_, layer, own);
            kept += weight * p;
            skipped += weight * (1 - p);
        }
        // Exactly 0 and 1 where all states agree in that.
        return kept / (kept + skipped);
    }

    [[nodiscard]] State next(Index layer, const State& state, bool kept) const {
        return moved(layer, state, kept ? Seen::kept : Seen::skipped);
    }
    /// The state behind a layer whose bit is not seen.
    [[nodiscard]] State behind_unseen(Index layer, const State& state) const {
        return moved(layer, state, Seen::neither);
    }

private:
    enum class Seen { neither, kept, skipped };

    [[nodiscard]] State moved(Index layer, const State& state, Seen seen) const {
        std::map<LawState<Law>, double> behind;
        double sum = 0;
        const auto add = [&](const LawState<Law>& own, double weight, bool kept) {
            if (weight == 0) return;
            behind[law_.next(layer, own, kept)] += weight;
            sum += weight;
        };
        for (const auto& [own, weight] : state) {
            const double p = detail::survival_probability(law_, layer, own);
            if (seen != Seen::skipped) add(own, weight * p, true);
            if (seen != Seen::kept) add(own, weight * (1 - p), false);
        }
        State result(behind.begin(), behind.end());
        for (auto& [own, weight] : result) weight /= sum;
        return result;
    }

    const Law& law_;
};

/// Whether a node branches: a child without probability is not walked, unless there is a derivative
/// by p, for which a law must not have given the layer's bit.
template <Sweep sweep, class Law>
[[nodiscard]] bool has_both_children(const Law& law, Index layer, double p) {
    if constexpr (sweep == Sweep::derivatives) {
        if constexpr (requires { law.is_given(layer); })
            if (law.is_given(layer)) return false;
        return true;
    } else {
        return p != 0.0 && p != 1.0;
    }
}

/// The state behind a skipped layer and `inside` layers inside it.
template <class Law>
[[nodiscard]] LawState<Law> behind_skipped(const Law& law, Index layer, Index inside,
                                           const LawState<Law>& state) {
    LawState<Law> behind = law.next(layer, state, false);
    if constexpr (requires { law.behind_unseen(layer, state); })
        for (Index k = 1; k <= inside; ++k) behind = law.behind_unseen(layer + k, behind);
    return behind;
}

/// As `evaluations_of_tree` for independent masks; checks the law on the way.
/// \throws std::invalid_argument  if a probability lies outside [0, 1].
/// \throws std::length_error      if there are too many states.
template <class Network, class Law>
[[nodiscard]] double evaluations_under(const Law& law, const Network& network) {
    const std::vector<Index> enclosing = enclosing_layers(network);
    // Prefixes in each state, and those that skip layer l and go on after the layers inside it.
    LawStates<Law> prefixes{{law.start(), 1.0}};
    std::vector<LawStates<Law>> waiting(enclosing.size());
    double evaluations = 0;
    Index innermost = -1;
    for (Index l = 0; l < static_cast<Index>(enclosing.size()); ++l) {
        const Index around = enclosing[static_cast<std::size_t>(l)];
        for (; innermost != around; innermost = enclosing[static_cast<std::size_t>(innermost)])
            for (const auto& [state, count] : waiting[static_cast<std::size_t>(innermost)])
                prefixes[behind_skipped(law, innermost, l - 1 - innermost, state)] += count;
        LawStates<Law> kept;
        for (const auto& [state, count] : prefixes) {
            const double p = survival_probability(law, l, state);
            if (p > 0) {
                evaluations += count;
                kept[law.next(l, state, true)] += count;
            }
            if (p < 1) waiting[static_cast<std::size_t>(l)][state] += count;
        }
        prefixes.swap(kept);
        check_states(prefixes.size() + waiting[static_cast<std::size_t>(l)].size(), l);
        innermost = l;
    }
    return evaluations;
}

/// Whether some skippable layer in a layer may have skippable layers inside.
template <class Layer>
struct HasNests {
    static constexpr bool value =
        hides_its_parts<Layer> ||
        (is_skippable<Layer> && any_part<HasSkippableLayers, PartsOf<Layer>>) ||
        any_part<HasNests, PartsOf<Layer>>;
};

/// A law as the tree of such a network takes it.
template <class Network, class Law>
using TreeLaw = std::conditional_t<HasNests<Network>::value, FilteredLaw<Law>, const Law&>;

}  // namespace stochastic_depth::detail
