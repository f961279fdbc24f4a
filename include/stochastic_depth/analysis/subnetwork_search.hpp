// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <string_view>
#include <type_traits>
#include <vector>

#include <stochastic_depth/analysis/best_subnetworks.hpp>
#include <stochastic_depth/expectation/mask_trie.hpp>
#include <stochastic_depth/pass/work.hpp>

namespace stochastic_depth {
namespace detail {

/// Whether a mask comes before another in a trie: it keeps the first layer that they differ in.
[[nodiscard]] inline bool comes_before(const SurvivalMask& a, const SurvivalMask& b) {
    for (std::size_t w = 0; w < a.words().size(); ++w)
        if (const std::uint64_t differences = a.words()[w] ^ b.words()[w])
            return (a.words()[w] >> std::countr_zero(differences)) & 1u;
    return false;
}

/// The masks with one running layer less than some mask, sorted, each once.
[[nodiscard]] inline std::vector<SurvivalMask> with_one_less(
    const std::vector<SurvivalMask>& masks, const std::vector<Index>& enclosing) {
    std::vector<SurvivalMask> less;
    for (const SurvivalMask& mask : masks) {
        std::vector<bool> holds_others(enclosing.size(), false);
        for (Index l = mask.size(); l-- > 0;) {
            if (!mask[l]) continue;
            const Index around = enclosing[static_cast<std::size_t>(l)];
            if (around >= 0) holds_others[static_cast<std::size_t>(around)] = true;
            if (holds_others[static_cast<std::size_t>(l)]) continue;
            less.push_back(mask);
            less.back().skip(l);
        }
    }
    std::sort(less.begin(), less.end(), comes_before);
    less.erase(std::unique(less.begin(), less.end()), less.end());
    return less;
}

/// The most layer evaluations, no prefix shared, of `removals` steps that each remove one layer
/// from the `width` best masks.
[[nodiscard]] inline double evaluations_of_search(Index depth, Index removals, double width) {
    const auto layers = static_cast<double>(depth);
    double sum = layers, masks = 1;
    for (double j = 1; j <= static_cast<double>(removals); ++j) {
        masks *= (layers - j + 1) / j;
        sum += std::min(masks, width * (layers - j + 1)) * (layers - j);
    }
    return sum;
}

/// score(NN(x, S)) for sorted masks, in pieces that share their prefixes.
template <class Network, class Scalar, class Score>
[[nodiscard]] std::vector<double> score_masks(const Network& network,
                                              const ConstMatrixRef<Scalar>& x, const Score& score,
                                              const std::vector<SurvivalMask>& masks,
                                              const std::vector<Index>& enclosing,
                                              unsigned threads, ProgressMeter* progress,
                                              double& evaluations) {
    constexpr Index columns_at_once = 4096;
    const Index outputs = network.output_size(x.rows());
    const auto at_once =
        static_cast<std::size_t>(std::max<Index>(1, columns_at_once / x.cols()));
    std::vector<double> scores;
    for (std::size_t first = 0; first < masks.size(); first += at_once) {
        const std::size_t count = std::min(at_once, masks.size() - first);
        const auto begin = masks.begin() + static_cast<std::ptrdiff_t>(first);
        const std::vector<SurvivalMask> piece(begin, begin + static_cast<std::ptrdiff_t>(count));
        const SortedMasks sorted(enclosing, SurvivalMasks::from_masks(piece));
        Matrix<Scalar> y(outputs, sorted.size() * x.cols());
        const double of_piece = sorted.layer_evaluations();
        MaskTrie<Scalar>(sorted, outputs,
                         threads_for(network, x.rows(), x.cols(), of_piece, threads))
            .walk(network, x, y.data());
        for (std::size_t k = 0; k < count; ++k) {
            const ConstMatrixRef<Scalar> of_mask =
                y.middleCols(sorted.place(static_cast<Index>(k)) * x.cols(), x.cols());
            scores.push_back(static_cast<double>(score(of_mask)));
            if (progress) progress->add(static_cast<double>(piece[k].count()));
        }
        evaluations += of_piece;
    }
    return scores;
}

/// Removes one layer after another from the `width` best masks of each size; all: width 0.
template <class Network, class Scalar, class Score>
[[nodiscard]] BestSubnetworks search_subnetworks(std::string_view name, SubnetworkSearch search,
                                                 const Network& network,
                                                 const ConstMatrixRef<Scalar>& x,
                                                 const Score& score, Index removals, Index width,
                                                 const BestSubnetworksOptions& options) {
    const Index depth = network.depth();
    if (options.threads < 1) refuse(name, ": threads must be at least 1, got 0");
    if (x.cols() < 1) refuse(name, ": x must have at least 1 column, got 0");
    (void)network.output_size(x.rows());
    SubnetworkChoice choice(name, depth, options.layer_costs);
    const double most = evaluations_of_search(
        depth, removals,
        width > 0 ? static_cast<double>(width) : std::numeric_limits<double>::infinity());
    check_budget(name, depth, most, options.max_layer_evaluations,
                 "remove fewer layers, or search with a narrower beam");
    std::optional<ProgressMeter> progress;
    if (options.progress) progress.emplace(options.progress, most);

    const std::vector<Index> enclosing = enclosing_layers(network);
    std::vector<SurvivalMask> all, masks{SurvivalMask::all(depth)};
    double evaluations = 0;
    for (Index removed = 0;; ++removed) {
        const std::vector<double> scores =
            score_masks(network, x, score, masks, enclosing, options.threads,
                        progress ? &*progress : nullptr, evaluations);
        for (std::size_t k = 0; k < masks.size(); ++k) {
            choice.add(static_cast<Index>(all.size()), masks[k].words().data(), scores[k]);
            all.push_back(masks[k]);
        }
        if (removed == removals) break;
        if (width > 0 && static_cast<Index>(masks.size()) > width) {
            std::vector<std::size_t> order(masks.size());
            std::iota(order.begin(), order.end(), std::size_t{0});
            std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
                return scores[a] > scores[b];
            });
            std::vector<SurvivalMask> best;
            for (std::size_t k = 0; k < static_cast<std::size_t>(width); ++k)
                best.push_back(masks[order[k]]);
            masks.swap(best);
        }
        masks = with_one_less(masks, enclosing);
    }
    return choice.result(search, evaluations,
                         [&](Index k) { return all[static_cast<std::size_t>(k)]; });
}

}  // namespace detail

/// Which few layers can go: the best of all masks that skip at most `most` layers, exactly, in
/// networks too deep for all 2^L masks.
///
/// \param network  L skippable layers; one that is removed takes those inside it along, and counts
///                 with them.
/// \param x        Inputs, [features x batch], at least one column.
/// \param score    As `best_subnetworks` takes it; called on the caller's thread alone.
/// \param most     In [0, L].
/// \throws std::invalid_argument  if the network cannot take x, a score is NaN, or an argument is
///                                out of range.
/// \throws std::length_error      if that many masks exceed the budget, each counted with all of
///                                its layers, before any work.
/// \throws Cancelled              if the progress callback asks to stop.
/// \complexity     The sum of C(L, k) for k <= most masked passes, prefixes shared, and as many
///                 masks in memory.
template <MaskedNetwork Network, class Score>
    requires(std::is_invocable_r_v<double, const Score&,
                                   const ConstMatrixRef<typename Network::Scalar>&>)
[[nodiscard]] BestSubnetworks best_removals(const Network& network,
                                            const ConstMatrixRef<typename Network::Scalar>& x,
                                            const Score& score, Index most,
                                            const BestSubnetworksOptions& options = {}) {
    if (!(most >= 0 && most <= network.depth()))
        detail::refuse("best_removals: most must lie in [0, ", network.depth(), "], got ", most);
    return detail::search_subnetworks<Network, typename Network::Scalar>(
        "best_removals", SubnetworkSearch::removals, network, x, score, most, 0, options);
}

/// Good masks of every size in networks too deep for all 2^L masks: from all layers on, each of the
/// `width` best masks of a size loses one layer more, in every way. A beam search: what it calls
/// best is the best that it has seen. Width 1 is greedy pruning.
///
/// \param network  L skippable layers.
/// \param x        Inputs, [features x batch], at least one column.
/// \param score    As `best_subnetworks` takes it; called on the caller's thread alone.
/// \param width    At least 1.
/// \throws as best_removals does.
/// \complexity     At most width L (L + 1) / 2 masked passes, prefixes shared, and as many masks in
///                 memory.
template <MaskedNetwork Network, class Score>
    requires(std::is_invocable_r_v<double, const Score&,
                                   const ConstMatrixRef<typename Network::Scalar>&>)
[[nodiscard]] BestSubnetworks beam_search_subnetworks(
    const Network& network, const ConstMatrixRef<typename Network::Scalar>& x, const Score& score,
    Index width, const BestSubnetworksOptions& options = {}) {
    if (width < 1) detail::refuse("beam_search_subnetworks: width must be at least 1, got ", width);
    return detail::search_subnetworks<Network, typename Network::Scalar>(
        "beam_search_subnetworks", SubnetworkSearch::beam, network, x, score, network.depth(),
        width, options);
}

}  // namespace stochastic_depth
