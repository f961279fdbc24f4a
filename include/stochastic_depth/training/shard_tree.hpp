// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include <stochastic_depth/types.hpp>

/// The shards of a batch, which worker (a thread, or a rank of MPI) has which, and the one order in which
/// they are added.
namespace stochastic_depth::detail {

/// Consecutive things, of which the first has this number.
struct Consecutive {
    Index first = 0;
    Index count = 0;

    [[nodiscard]] Index end() const { return first + count; }
    friend bool operator==(const Consecutive&, const Consecutive&) = default;
};

/// Part `i` of `things` that are cut into so many parts of nearly equal size: the first ones have one
/// more.
[[nodiscard]] inline Consecutive part_of(Index things, Index parts, Index i) {
    const Index least = things / parts, longer = things % parts;
    return {i * least + std::min(i, longer), least + (i < longer)};
}

/// The binary tree over shards 0, ..., K - 1 whose node of height h and number i is the sum of the
/// shards [i 2^h, (i + 1) 2^h): its left half, and then its right half. Where a half is past the last
/// shard, the other one is the sum.
///
/// Sums are taken on a stack: each shard in turn is put on it, and then the uppermost two are added
/// as often as the tree says. So a sum of shards that make up whole nodes can be taken anywhere, and
/// goes on to the stack like a shard.
class ShardTree {
public:
    /// \param shards, workers  At least 1. Worker w adds part w of the shards.
    ShardTree(Index shards, Index workers) : shards_(shards), workers_(workers) {
        Stack all{shards};
        for (Index w = 0; w < workers; ++w) {
            Stack own{shards};
            const Consecutive of_worker = shards_of(w);
            for (Index k = of_worker.first; k < of_worker.end(); ++k)
                additions_after_shard_.push_back(own.put({k, 1}));
            highest_ = std::max(highest_, own.most);
            first_node_.push_back(static_cast<Index>(additions_after_node_.size()));
            for (const Consecutive& node : own.nodes)
                additions_after_node_.push_back(all.put(node));
        }
        first_node_.push_back(static_cast<Index>(additions_after_node_.size()));
    }

    [[nodiscard]] Index shards() const { return shards_; }
    [[nodiscard]] Consecutive shards_of(Index worker) const {
        return part_of(shards_, workers_, worker);
    }

    /// The sums that workers take by themselves, in the order of shards: those of a worker. More than
    /// one only where its shards are no whole node.
    [[nodiscard]] Consecutive nodes_of(Index worker) const {
        const Index first = first_node_[static_cast<std::size_t>(worker)];
        return {first, first_node_[static_cast<std::size_t>(worker) + 1] - first};
    }
    [[nodiscard]] Index nodes() const { return first_node_.back(); }

    /// How often a worker adds the uppermost two sums on its stack after it has put a shard there.
    [[nodiscard]] Index additions_after_shard(Index shard) const {
        return additions_after_shard_[static_cast<std::size_t>(shard)];
    }
    /// The same of the workers' sums, on a stack of whoever adds these: at the end there is one.
    [[nodiscard]] Index additions_after_node(Index node) const {
        return additions_after_node_[static_cast<std::size_t>(node)];
    }
    /// The most sums that are on a worker's stack at once, if a shard that is added is not put there.
    [[nodiscard]] Index highest() const { return highest_; }

    /// The sum of one value of each shard, in this order, which overwrites some; of a tree for one
    /// worker.
    [[nodiscard]] double sum(std::span<double> values) const {
        std::size_t height = 0;
        for (Index k = 0; k < shards_; ++k) {
            values[height++] = values[static_cast<std::size_t>(k)];
            for (Index i = additions_after_shard(k); i > 0; --i, --height)
                values[height - 2] += values[height - 1];
        }
        return values[0];
    }

private:
    struct Stack {
        Index shards;
        std::vector<Consecutive> nodes = {};
        Index most = 0;

        /// \param node  [first, first + count), count a power of two, which may reach past the end.
        Index put(Consecutive node) {
            const auto before = static_cast<Index>(nodes.size());
            nodes.push_back(node);
            Index additions = 0;
            while (true) {
                Consecutive& top = nodes.back();
                const bool is_left = top.first % (2 * top.count) == 0;
                if (is_left && top.end() >= shards && top.count < shards) {
                    top.count *= 2;  // nothing is right of it
                } else if (!is_left && nodes.size() > 1 &&
                           nodes[nodes.size() - 2].end() == top.first &&
                           nodes[nodes.size() - 2].count == top.count) {
                    nodes.pop_back();
                    nodes.back().count *= 2;
                    ++additions;
                } else {
                    most = std::max(most, before + (additions == 0));
                    return additions;
                }
            }
        }
    };

    Index shards_;
    Index workers_;
    Index highest_ = 0;
    std::vector<Index> first_node_;
    std::vector<Index> additions_after_shard_;
    std::vector<Index> additions_after_node_;
};

}  // namespace stochastic_depth::detail
