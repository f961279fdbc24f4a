// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/structure.hpp>

/// How many evaluations of skippable layers something takes. Layers inside a skipped one don't run, whatever
/// the mask says of them.
namespace stochastic_depth::detail {

/// For each skippable layer of a network, in order of depth, the index of the innermost skippable layer
/// around it; -1 where there is none.
template <class Network>
[[nodiscard]] std::vector<Index> enclosing_layers(const Network& network) {
    std::vector<Index> enclosing(static_cast<std::size_t>(depth(network)));
    Index* first = enclosing.data();
    Index next = 0;
    write_enclosing_layers(network, first, next, -1);
    return enclosing;
}

/// Evaluations that the tree of mask prefixes makes for each column, a layer with branches[l] == false not
/// branching: 2^L - 1 if all of L layers do.
[[nodiscard]] inline double evaluations_of_tree(const std::vector<Index>& enclosing,
                                                const std::vector<bool>& branches) {
    /// Layers around the one at hand, and the prefixes that skip them.
    std::vector<std::pair<Index, double>> around;
    double prefixes = 1;
    double evaluations = 0;
    for (std::size_t l = 0; l < enclosing.size(); ++l) {
        for (; !around.empty() && around.back().first != enclosing[l]; around.pop_back())
            prefixes += around.back().second;
        evaluations += prefixes;
        around.emplace_back(static_cast<Index>(l), branches[l] ? prefixes : 0.0);
    }
    return evaluations;
}

/// Counts the evaluations under one mask for each sample.
class EvaluationsUnderMasks {
public:
    template <class Network>
    explicit EvaluationsUnderMasks(const Network& network) : enclosing_(enclosing_layers(network)) {}

    /// \param masks  SurvivalMasks of the network's depth.
    template <class Masks>
    [[nodiscard]] double operator()(const Masks& masks) {
        double count = 0;
        reached_.assign(enclosing_.size(), {});
        for (std::size_t l = 0; l < enclosing_.size(); ++l) {
            const auto words = masks.words(static_cast<Index>(l));
            reached_[l].assign(words.begin(), words.end());
            for (std::size_t w = 0; w < reached_[l].size(); ++w) {
                if (enclosing_[l] >= 0)
                    reached_[l][w] &= reached_[static_cast<std::size_t>(enclosing_[l])][w];
                count += std::popcount(reached_[l][w]);
            }
        }
        return count;
    }

private:
    std::vector<Index> enclosing_;
    std::vector<std::vector<std::uint64_t>> reached_;
};

}  // namespace stochastic_depth::detail
