// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include <stochastic_depth/distributed/subtrees.hpp>
#include <stochastic_depth/pass/work.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// What makes the pieces that ranks are handed out.
struct TreeCut {
    Index prefix_layers;
    /// Columns that a tree has; the others have trees of their own.
    Index columns;
};

/// Pieces of some 10 ms, however many ranks there are: a file is gone on from on any number. Of a
/// very large tree both their number and their size grow.
///
/// \param law      As the tree takes it.
/// \param numbers  What a column comes to.
/// \param asked    The prefix's layers; 0: to be chosen.
template <Sweep sweep, class Network, class Law>
[[nodiscard]] TreeCut cut_tree(const Network& network, Index rows, Index columns, const Law& law,
                               double evaluations, std::size_t numbers, Index asked) {
    // In multiply-adds; and numbers that are no burden as a message.
    constexpr double work_of_piece = 2e8, most_numbers = 1 << 20;
    const double of_column = std::max(1.0, work_of_column(network, rows, evaluations));
    const double at_once =
        std::min(std::max(96.0, work_of_piece / of_column),
                 most_numbers / static_cast<double>(std::max<std::size_t>(1, numbers)));
    TreeCut cut{0, std::clamp<Index>(static_cast<Index>(at_once), 1, std::max<Index>(1, columns))};
    const Index most_layers = std::clamp<Index>(law.depth() - 1, 0, 40);
    if (asked > 0) {
        cut.prefix_layers = std::min(asked, most_layers);
        return cut;
    }
    constexpr double many = 1 << 16;
    double wanted = static_cast<double>(cut.columns) * of_column / work_of_piece;
    if (wanted > many) wanted = many * std::sqrt(wanted / many);
    const std::vector<Index> inside = layers_inside(network);
    const auto subtrees = [&](Index layers) {
        using Scalar = typename Network::Scalar;
        return static_cast<double>(Subtrees<Scalar, sweep, Law>(law, inside, layers).count());
    };
    while (cut.prefix_layers < most_layers && subtrees(cut.prefix_layers) < wanted)
        ++cut.prefix_layers;
    return cut;
}

}  // namespace stochastic_depth::detail
