// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/mask_values.hpp>

namespace stochastic_depth {

/// A network with some of its layers: `without_layers(network, mask)` is it.
struct Subnetwork {
    /// The layers that run: none inside a skipped one.
    SurvivalMask mask;
    double score = 0;
    /// What running these layers costs.
    double cost = 0;
};

/// Which masks have been looked at.
enum class SubnetworkSearch {
    /// All of them: what is called best is.
    every_mask,
    /// All that skip no more than some number of layers: of these, what is called best is.
    removals,
    /// Those that a beam search came to: there may be better ones.
    beam,
};

struct BestSubnetworks {
    SubnetworkSearch search = SubnetworkSearch::every_mask;
    /// The best of each size, `mask.count()` layers, the smallest size first: 0, ..., L, or
    /// L - k, ..., L for removals of at most k.
    std::vector<Subnetwork> by_size;
    /// The frontier of score against cost: those that no cheaper one, nor another as cheap, equals
    /// in score. By rising cost, and so by rising score.
    std::vector<Subnetwork> frontier;
    /// Evaluations of skippable layers that it took for each column of x; 0 from a table.
    double layer_evaluations = 0;
};

struct BestSubnetworksOptions {
    /// What each layer costs when it runs, those inside it not counted, [L]; empty: 1 each, so that
    /// the cost is the number of layer evaluations.
    Eigen::VectorXd layer_costs = {};
    /// Threads to share the work, at least 1; no more begin than find enough to do. The result has
    /// the same bits for any number.
    unsigned threads = 1;
    /// The most evaluations of skippable layers that one column may take.
    std::uint64_t max_layer_evaluations = std::uint64_t{1} << 28;
    /// The largest table of all masks: 8 bytes each.
    std::uint64_t max_bytes = std::uint64_t{1} << 30;
    /// Told of the progress; when it asks to stop, Cancelled is thrown.
    ProgressCallback progress = nullptr;
};

namespace detail {

/// The best of each size and the frontier, of masks that come one after another. A mask is known by
/// a number.
class SubnetworkChoice {
public:
    /// \param costs  [L], or empty.
    SubnetworkChoice(std::string_view name, Index depth, const Eigen::VectorXd& costs)
        : name_(name), costs_(costs), by_size_(static_cast<std::size_t>(depth) + 1) {
        if (costs.size() == 0) costs_.setOnes(depth);
        if (costs_.size() != depth)
            refuse(name, ": layer_costs must have one entry for each of ", depth, " layers, got ",
                   costs_.size());
        for (Index l = 0; l < depth; ++l)
            if (!(costs_(l) >= 0 && std::isfinite(costs_(l))))
                refuse(name, ": layer_costs must be finite and at least 0, got ", costs_(l),
                       " for layer ", l);
    }

    /// \param words  The bits of the mask, 64 layers each.
    void add(Index number, const std::uint64_t* words, double score) {
        if (!(score == score)) refuse(name_, ": score must be a number, got ", score);
        std::size_t size = 0;
        double cost = 0;
        for (Index first = 0; first < costs_.size(); first += 64, ++words)
            for (std::uint64_t rest = *words; rest != 0; rest &= rest - 1, ++size)
                cost += costs_(first + std::countr_zero(rest));
        const Candidate candidate{number, score, cost};
        Candidate& best = by_size_[size];
        if (best.number < 0 || score > best.score) best = candidate;
        const auto dearer = std::upper_bound(
            frontier_.begin(), frontier_.end(), cost,
            [](double value, const Candidate& other) { return value < other.cost; });
        if (dearer != frontier_.begin() && (dearer - 1)->score >= score) return;
        auto last = dearer;
        while (last != frontier_.end() && last->score <= score) ++last;
        const bool replaces = dearer != frontier_.begin() && (dearer - 1)->cost == cost;
        frontier_.insert(frontier_.erase(replaces ? dearer - 1 : dearer, last), candidate);
    }

    /// \param mask_of  mask_of(number), the SurvivalMask.
    template <class MaskOf>
    [[nodiscard]] BestSubnetworks result(SubnetworkSearch search, double evaluations,
                                         const MaskOf& mask_of) const {
        BestSubnetworks best;
        best.search = search;
        best.layer_evaluations = evaluations;
        for (const Candidate& of : by_size_)
            if (of.number >= 0) best.by_size.push_back({mask_of(of.number), of.score, of.cost});
        for (const Candidate& of : frontier_)
            best.frontier.push_back({mask_of(of.number), of.score, of.cost});
        return best;
    }

private:
    struct Candidate {
        Index number = -1;
        double score = 0;
        double cost = 0;
    };

    std::string_view name_;
    Eigen::VectorXd costs_;
    std::vector<Candidate> by_size_;
    std::vector<Candidate> frontier_;
};

[[nodiscard]] inline BestSubnetworks best_of_table(
    SubnetworkChoice choice, const std::vector<Index>& enclosing,
    const Eigen::Ref<const Eigen::VectorXd>& values, double evaluations) {
    for (Index k = 0; k < values.size(); ++k) {
        if (layers_that_run(k, enclosing) != k) continue;
        const auto bits = static_cast<std::uint64_t>(k);
        choice.add(k, &bits, values(k));
    }
    return choice.result(SubnetworkSearch::every_mask, evaluations, [&](Index k) {
        return mask_at(k, static_cast<Index>(enclosing.size()));
    });
}

}  // namespace detail

/// The best masks, from a table of all their values.
///
/// \param network  L skippable layers.
/// \param values   [2^L], as `mask_values` gives them: the higher the better.
/// \param options  layer_costs alone is read.
/// \throws std::invalid_argument  if sizes don't match, a value is NaN or a cost not finite and at
///                                least 0.
/// \complexity     O(2^L (L + log F)) for a frontier of F masks.
template <MaskedNetwork Network>
[[nodiscard]] BestSubnetworks best_subnetworks(
    const Network& network, const Eigen::Ref<const Eigen::VectorXd>& values,
    const BestSubnetworksOptions& options = {}) {
    const Index depth = network.depth();
    if (!(depth <= 62 && values.size() == Index{1} << depth))
        detail::refuse("best_subnetworks: values must have one entry for each mask of ", depth,
                       " layers, got ", values.size());
    return detail::best_of_table({"best_subnetworks", depth, options.layer_costs},
                                 detail::enclosing_layers(network), values, 0);
}

/// Which layers to keep: the best mask of every size, and the frontier of score against cost, of
/// all 2^L masks. Exact: the ground truth for pruning by values of single layers, which cannot see
/// what layers do together.
///
/// Of masks with equal scores one is given, the same in each run.
///
/// \param network  L skippable layers.
/// \param x        Inputs, [features x batch].
/// \param score    As `mask_values` takes it, a number, the higher the better: accuracy on a
///                 labelled set, say, or minus a loss.
/// \throws std::invalid_argument  if the network cannot take x, a score is NaN, or an option is out
///                                of range.
/// \throws std::length_error      if evaluations or table exceed the budget, before any work.
///                                `best_removals` and `beam_search_subnetworks` go on from there.
/// \throws Cancelled              if the progress callback asks to stop.
/// \complexity     As `mask_values`: 2^L - 1 layer evaluations for each column, 2^L scores and
///                 numbers in memory. L up to about 20 to 24.
template <MaskedNetwork Network, class Score>
    requires(std::is_invocable_r_v<double, const Score&,
                                   const ConstMatrixRef<typename Network::Scalar>&>)
[[nodiscard]] BestSubnetworks best_subnetworks(const Network& network,
                                               const ConstMatrixRef<typename Network::Scalar>& x,
                                               const Score& score,
                                               const BestSubnetworksOptions& options = {}) {
    const Index depth = network.depth();
    detail::SubnetworkChoice choice("best_subnetworks", depth, options.layer_costs);
    const double evaluations = detail::evaluations_of_whole_tree(network);
    detail::check_budget("best_subnetworks", depth, evaluations, options.max_layer_evaluations,
                         "search with best_removals or beam_search_subnetworks");
    const Eigen::VectorXd values = detail::tabulate_scores(
        "best_subnetworks", network, x, score,
        {options.threads, options.max_layer_evaluations, options.max_bytes, options.progress});
    return detail::best_of_table(std::move(choice), detail::enclosing_layers(network),
                                 values, evaluations);
}

}  // namespace stochastic_depth
