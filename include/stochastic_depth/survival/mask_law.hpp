// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <cstddef>
#include <map>
#include <stdexcept>
#include <string_view>
#include <type_traits>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/types.hpp>

/// Masks whose bits need not be independent.
namespace stochastic_depth {

/// What a law of masks knows of the bits before a layer.
template <class Law>
using LawState = std::remove_cvref_t<decltype(std::declval<const Law&>().start())>;

/// A law of masks, given layer by layer: P(s_l = 1 | s_1, ..., s_(l-1)), where a state says of the
/// bits before what the law has to know.
///
/// Beyond the syntax: all members are pure and may be called in many threads at once;
/// `survival_probability` lies in [0, 1] (exactly 0 and 1 where a layer never branches: neither the
/// tree nor a list of masks goes where the probability is 0) and may be anything in states that
/// cannot be reached; equal states have the same future. A state is a number or a small struct with
/// a defaulted operator<=>: what the states have in common is computed once for each, so a law with
/// few of them is cheap. Layers count from 0.
///
/// Models: IndependentLaw, MarkovLaw, LayerCountLaw, DepthMixtureLaw, MaskListLaw. Taken, as their
/// last argument, by ExactExpectation, MonteCarloExpectation, WeightScaling and enumerate_masks; by
/// LawMaskSampler, and by training (TrainingStepOptions::law). The smallest one, the first layer
/// drawn and all others like it:
///
///     struct AllOrNothing {
///         Index depth() const { return 12; }
///         int start() const { return -1; }
///         double survival_probability(Index, int first) const { return first < 0 ? 0.7 : first; }
///         int next(Index, int first, bool kept) const { return first < 0 ? kept : first; }
///     };
template <class Law>
concept MaskLaw = std::copy_constructible<Law> && requires(const Law& law, Index layer) {
    { law.depth() } -> std::convertible_to<Index>;
    law.start();
    requires std::copyable<LawState<Law>> && std::totally_ordered<LawState<Law>>;
    { law.survival_probability(layer, law.start()) } -> std::convertible_to<double>;
    { law.next(layer, law.start(), true) } -> std::convertible_to<LawState<Law>>;
};

namespace detail {

/// P(s_l = 1) in a state, checked.
template <MaskLaw Law>
[[nodiscard]] double survival_probability(const Law& law, Index layer, const LawState<Law>& state) {
    const double p = law.survival_probability(layer, state);
    if (!(p >= 0.0 && p <= 1.0))
        refuse("MaskLaw: survival probability of layer ", layer, " must lie in [0, 1], got ", p);
    return p;
}

template <MaskLaw Law>
void check_law(std::string_view who, const Law& law, Index depth) {
    if (law.depth() != depth) refuse(who, ": law must have ", depth, " layers, got ", law.depth());
}

/// The states that a law can be in before a layer, each with a weight.
template <MaskLaw Law>
using LawStates = std::map<LawState<Law>, double>;

/// Refuses a law with more states behind a layer than can be told apart.
inline void check_states(std::size_t states, Index layer) {
    constexpr std::size_t most = std::size_t{1} << 20;
    if (states > most)
        throw std::length_error(message("MaskLaw: states behind layer ", layer, " must be at most ",
                                        most,
                                        "; a state is to say of the bits before it only what those "
                                        "behind it depend on"));
}

/// Which masks are left behind a layer.
enum class LeftBehind { all, those_that_keep_it };

/// Moves the states past a layer, and returns the weight of the masks that keep it.
/// \throws std::invalid_argument  if a probability lies outside [0, 1].
/// \throws std::length_error      if there are too many states.
template <MaskLaw Law>
double move_past(const Law& law, Index layer, LawStates<Law>& states,
                 LeftBehind left = LeftBehind::all) {
    LawStates<Law> behind;
    double kept = 0;
    for (const auto& [state, weight] : states) {
        const double p = survival_probability(law, layer, state);
        kept += p * weight;
        if (p > 0) behind[law.next(layer, state, true)] += p * weight;
        if (p < 1 && left == LeftBehind::all)
            behind[law.next(layer, state, false)] += (1 - p) * weight;
        check_states(behind.size(), layer);
    }
    states.swap(behind);
    return kept;
}

/// The probability that all of some layers are kept.
template <MaskLaw Law>
[[nodiscard]] double probability_of_keeping(const Law& law, const SurvivalMask& layers) {
    LawStates<Law> states{{law.start(), 1.0}};
    double kept = 1;
    for (Index l = 0; l < layers.size(); ++l)
        if (layers[l])
            kept = move_past(law, l, states, LeftBehind::those_that_keep_it);
        else
            move_past(law, l, states);
    return kept;
}

}  // namespace detail

/// P(S) under a law: the product of its conditional probabilities.
///
/// \throws std::invalid_argument  if the mask has another depth, or a probability lies outside [0,
///                                1].
template <MaskLaw Law>
[[nodiscard]] double probability(const SurvivalMask& mask, const Law& law) {
    if (mask.size() != law.depth())
        detail::refuse("probability: mask must have ", law.depth(), " layers, got ", mask.size());
    double product = 1.0;
    LawState<Law> state = law.start();
    for (Index l = 0; l < mask.size() && product > 0; ++l) {
        const double p = detail::survival_probability(law, l, state);
        product *= mask[l] ? p : 1.0 - p;
        state = law.next(l, state, mask[l]);
    }
    return product;
}

/// P(s_l = 1) of each layer, over all masks of a law.
///
/// \throws std::invalid_argument  if a probability lies outside [0, 1].
/// \throws std::length_error      if more than 2^20 states differ before some layer.
/// \complexity  Each state of each layer once.
template <MaskLaw Law>
[[nodiscard]] Eigen::VectorXd marginal_survival_probabilities(const Law& law) {
    Eigen::VectorXd p(law.depth());
    detail::LawStates<Law> states{{law.start(), 1.0}};
    for (Index l = 0; l < p.size(); ++l) p(l) = detail::move_past(law, l, states);
    return p;
}

namespace detail {

/// Refuses weights that are no distribution up to a factor.
inline void check_weights(std::string_view who, const Eigen::VectorXd& weights) {
    double sum = 0;
    for (Index k = 0; k < weights.size(); ++k) {
        if (!(weights(k) >= 0.0 && weights(k) <= 1e300))
            refuse(who, ": weight ", k, " must lie in [0, 1e300], got ", weights(k));
        sum += weights(k);
    }
    if (!(sum > 0.0 && sum <= 1e300))
        refuse(who, ": sum of the weights must be above 0 and at most 1e300, got ", sum);
}

/// Refuses a vector in which some entry is no probability.
inline void check_probabilities(std::string_view who, std::string_view what,
                                const Eigen::VectorXd& p) {
    for (Index l = 0; l < p.size(); ++l)
        if (!(p(l) >= 0.0 && p(l) <= 1.0))
            refuse(who, ": ", what, "(", l, ") must lie in [0, 1], got ", p(l));
}

}  // namespace detail
}  // namespace stochastic_depth
