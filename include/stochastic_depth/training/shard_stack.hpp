// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include <stochastic_depth/training/gradient_pieces.hpp>
#include <stochastic_depth/training/shard_tree.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Adds the gradients of a worker's shards, one after another, as the tree says: rows of numbers on a
/// stack, where in the end the sums of whole nodes are. Allocates nothing once warmed.
template <class Scalar>
class ShardStack {
public:
    /// \param tree  Must outlive this.
    explicit ShardStack(const ShardTree& tree)
        : tree_(&tree), rows_(static_cast<std::size_t>(tree.highest())) {}

    /// Before each step.
    /// \param pieces  Of the gradient of each shard, one after another; must outlive the step.
    void prepare(const GradientPieces<Scalar>& pieces) {
        pieces_ = &pieces;
        height_ = 0;
        const auto numbers = static_cast<std::size_t>(pieces.numbers());
        for (auto& row : rows_)
            if (row.size() < numbers) row.resize(numbers);
    }

    /// A shard's gradient is going to be computed.
    /// \param ways  How often a way back will go through each layer.
    void begin(Index shard, [[maybe_unused]] Index ways = 1) {
        shard_ = shard;
        is_added_.assign(pieces_->groups().size(), 0);
    }
    /// Who is to be told of what it has passed: nobody.
    [[nodiscard]] static constexpr const std::function<void(bool&)>* listener() { return nullptr; }
    /// Puts the shard's numbers of a group there; behind, the shard's own are zero.
    void add(std::size_t g) {
        const auto& group = pieces_->groups()[g];
        is_added_[g] = 1;
        const bool adds = tree_->additions_after_shard(shard_) > 0;
        pieces_->move_to(row(adds ? height_ - 1 : height_), group, adds);
        if (adds) add_sums(group.numbers);
    }
    [[nodiscard]] bool is_added(std::size_t g) const { return is_added_[g] != 0; }
    /// Of the shard's gradient these first numbers are complete.
    void complete(Index numbers) {
        const auto groups = pieces_->groups();
        for (std::size_t g = 0; g < groups.size(); ++g)
            if (!is_added(g) && groups[g].numbers.end() <= numbers) add(g);
    }
    /// All of them were; the next shard's turn.
    void end() { height_ += 1 - tree_->additions_after_shard(shard_); }

    /// A shard without samples.
    void add_nothing(Index shard) {
        begin(shard);
        if (tree_->additions_after_shard(shard) == 0)
            std::fill_n(row(height_), pieces_->numbers(), Scalar(0));
        else
            add_sums({0, pieces_->numbers()});
        end();
    }

    [[nodiscard]] const GradientPieces<Scalar>& pieces() const { return *pieces_; }
    [[nodiscard]] Index shard() const { return shard_; }
    [[nodiscard]] Scalar* row(Index height) {
        return rows_[static_cast<std::size_t>(height)].data();
    }
    /// Of memory.
    [[nodiscard]] std::size_t bytes() const {
        std::size_t numbers = 0;
        for (const auto& row : rows_) numbers += row.size();
        return numbers * sizeof(Scalar);
    }

private:
    /// The additions behind that of the shard itself.
    void add_sums(const Consecutive& numbers) {
        for (Index k = 1; k < tree_->additions_after_shard(shard_); ++k)
            add_numbers(row(height_ - k) + numbers.first, numbers.count,
                        row(height_ - k - 1) + numbers.first);
    }

    const ShardTree* tree_;
    const GradientPieces<Scalar>* pieces_ = nullptr;
    Index shard_ = 0;
    Index height_ = 0;  ///< before the shard
    std::vector<unsigned char> is_added_;  ///< of each group
    std::vector<std::vector<Scalar>> rows_;
};

/// Adds some numbers of rows, one for each of the tree's nodes in order, into the first row.
template <class Scalar>
void add_nodes(const ShardTree& tree, std::span<Scalar* const> rows, const Consecutive& numbers) {
    // As many as a tree over Index's shards is high.
    std::array<Scalar*, 64> stack;
    std::size_t height = 0;
    for (std::size_t node = 0; node < rows.size(); ++node) {
        stack[height++] = rows[node] + numbers.first;
        for (Index k = tree.additions_after_node(static_cast<Index>(node)); k > 0; --k, --height)
            add_numbers(stack[height - 1], numbers.count, stack[height - 2]);
    }
}

}  // namespace stochastic_depth::detail
