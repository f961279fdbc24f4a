// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/distributed/communicator.hpp>
#include <stochastic_depth/training/gradient_pieces.hpp>
#include <stochastic_depth/distributed/ordered_sums.hpp>
#include <stochastic_depth/training/shard_stack.hpp>
#include <stochastic_depth/training/shard_tree.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Adds the gradients of a rank's shards, one after another, as the tree says, and what comes of that
/// over all ranks. A layer's gradient is added behind the way back through it, where it is still in a
/// near cache; behind the last shard's the layer's sum is complete, and leaves while the way back goes
/// on.
template <class Scalar>
class ShardSums {
public:
    /// \param ranks, tree  Must outlive this.
    ShardSums(const Communicator& ranks, const ShardTree& tree)
        : shards_(tree.shards_of(ranks.rank())),
          stack_(tree),
          sums_(ranks, tree, stack_),
          leaves_early_(ranks.size() > 1),
          passed_([this](bool& layer) { pass(&layer); }) {}
    ShardSums(const ShardSums&) = delete;
    ShardSums& operator=(const ShardSums&) = delete;

    /// Before each step.
    /// \param pieces  Of the gradient of each shard, one after another; must outlive the step.
    void prepare(const GradientPieces<Scalar>& pieces) {
        stack_.prepare(pieces);
        const auto groups = pieces.groups();
        messages_.clear();
        layers_.clear();
        message_of_.resize(groups.size());
        for (std::size_t g = 0; g < groups.size(); ++g) {
            const bool goes_on =
                g > 0 && messages_.back().count < numbers_of_message &&
                (groups[g].reached == nullptr) == (groups[g - 1].reached == nullptr);
            if (goes_on)
                messages_.back().count += groups[g].numbers.count;
            else
                messages_.push_back(groups[g].numbers);
            message_of_[g] = messages_.size() - 1;
            if (groups[g].reached) layers_.emplace_back(groups[g].reached, g);
        }
        if (messages_.size() > most_messages) {
            messages_ = {{0, pieces.numbers()}};
            std::fill(message_of_.begin(), message_of_.end(), std::size_t{0});
        }
        std::sort(layers_.begin(), layers_.end(),
                  [](const auto& a, const auto& b) { return std::less<>{}(a.first, b.first); });
        groups_left_.assign(messages_.size(), 0);
        for (const std::size_t number : message_of_) ++groups_left_[number];
        sums_.prepare(pieces.numbers(), messages_);
    }

    /// A shard's gradient is going to be computed.
    /// \param ways  How often a way back will go through each layer.
    void begin(Index shard, Index ways) {
        stack_.begin(shard);
        ways_ = ways;
        ways_through_.assign(message_of_.size(), 0);
    }
    /// Who is to be told of what it has passed.
    [[nodiscard]] const std::function<void(bool&)>* listener() const { return &passed_; }
    /// Of the shard's gradient these first numbers are complete.
    void complete(Index numbers) {
        const auto groups = stack_.pieces().groups();
        for (std::size_t g = groups.size(); g-- > 0;)
            if (!stack_.is_added(g) && groups[g].numbers.end() <= numbers) add(g);
    }
    /// All of them were; the next shard's turn.
    void end() { stack_.end(); }
    /// A shard without samples.
    void add_nothing(Index shard) { stack_.add_nothing(shard); }

    /// Waits for the sums of all ranks.
    void finish() { sums_.finish(); }
    [[nodiscard]] const Scalar* total() const { return sums_.total(); }

    [[nodiscard]] std::uint64_t bytes_sent() const { return sums_.bytes_sent(); }
    [[nodiscard]] std::size_t bytes() const { return stack_.bytes() + sums_.bytes(); }

private:
    /// Small layers travel together until they have so many numbers.
    static constexpr Index numbers_of_message = Index{1} << 15;
    static constexpr std::size_t most_messages = 8192;

    [[nodiscard]] bool is_last() const { return stack_.shard() == shards_.end() - 1; }

    /// Behind a layer, perhaps one inside another one, or one that nothing is sent of.
    void pass(const bool* layer) {
        const auto found = std::lower_bound(
            layers_.begin(), layers_.end(), layer,
            [](const auto& entry, const bool* flag) { return std::less<>{}(entry.first, flag); });
        if (found == layers_.end() || found->first != layer) return;
        const std::size_t g = found->second;
        if (++ways_through_[g] > ways_)
            refuse(
                "DataParallel: network must run each of its skippable layers at most once in a "
                "pass, got one that ran again");
        if (ways_through_[g] == ways_) add(g);
        if (is_last()) sums_.progress();
    }

    /// Puts the shard's numbers of a group on the stack.
    void add(std::size_t g) {
        stack_.add(g);
        if (is_last() && leaves_early_ && --groups_left_[message_of_[g]] == 0)
            sums_.start(message_of_[g]);
    }

    Consecutive shards_;
    ShardStack<Scalar> stack_;
    OrderedSums<Scalar> sums_;
    bool leaves_early_;
    std::function<void(bool&)> passed_;
    Index ways_ = 1;
    std::vector<Consecutive> messages_;
    std::vector<std::size_t> message_of_;  ///< of each group
    std::vector<Index> groups_left_;       ///< of each message
    std::vector<Index> ways_through_;      ///< each group
    /// The groups of layers, by the layers' flags.
    std::vector<std::pair<const bool*, std::size_t>> layers_;
};

}  // namespace stochastic_depth::detail
