// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/threads/team.hpp>
#include <stochastic_depth/training/batch_gradient.hpp>
#include <stochastic_depth/training/gradient_pieces.hpp>
#include <stochastic_depth/training/part_masks.hpp>
#include <stochastic_depth/training/reached_by_some.hpp>
#include <stochastic_depth/training/shard_stack.hpp>
#include <stochastic_depth/training/shard_tree.hpp>
#include <stochastic_depth/training/shard_worker.hpp>
#include <stochastic_depth/training/step_options.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The gradient of a batch that is cut into shards, each of which one thread computes alone. The
/// shards' gradients are added in one tree, whatever the number of threads.
template <class Network, class Loss>
class ShardedGradient {
public:
    using Scalar = typename Network::Scalar;
    using Gradient = typename Network::Gradient;
    using Clock = std::chrono::steady_clock;

    /// \param shards   At least 1.
    /// \param threads  Those of the teams to come; more than shards don't help.
    ShardedGradient(const Network& network, Index shards, Index threads)
        : tree_(shards, std::min(shards, threads)),
          tree_of_one_(shards, 1),
          masks_(network),
          reached_(network) {
        for (Index w = 0; w < std::min(shards, threads); ++w)
            workers_.push_back(std::make_unique<Worker>(network, tree_));
        rows_.reserve(static_cast<std::size_t>(tree_.nodes()));
        ledgers_.resize(static_cast<std::size_t>(shards));
        losses_.resize(static_cast<std::size_t>(shards));
    }

    /// Adds the gradient of the mean loss, as BatchGradient does.
    /// \param start  Since when the forward pass's seconds count.
    /// \throws  What the first shard that failed has thrown; the gradient is unchanged then.
    template <class Masks>
    StepLedger add(const ShardedBatch<Network, Loss, Masks>& batch, const Team& team,
                   Gradient& gradient, Clock::time_point start) {
        prepare(batch);
        const auto prepared = Clock::now();
        team.split(static_cast<Index>(workers_.size()), 1, std::numeric_limits<double>::max(),
                   [&](Index first, Index count) {
                       for (Index w = first; w < first + count; ++w) run(w, batch);
                   });
        if (failure_) {
            for (auto& worker : workers_) worker->shards.discard();
            std::rethrow_exception(std::exchange(failure_, nullptr));
        }
        StepLedger ledger = ledger_of_all();
        const auto computed = Clock::now();
        add_sums(batch, team, gradient);
        ledger.forward_seconds += BatchGradient<Network, Loss>::seconds(prepared - start);
        ledger.backward_seconds += BatchGradient<Network, Loss>::seconds(Clock::now() - computed);
        return ledger;
    }

    /// Layers that keep statistics of their batches take over what the shards of the last one came
    /// to.
    void move_statistics(Network& network) { workers_[0]->shards.statistics().move(network); }

    /// Bytes that the forward passes of the last shards kept for the way back.
    [[nodiscard]] std::size_t cache_bytes() const {
        std::size_t bytes = 0;
        for (const auto& worker : workers_) bytes += worker->shards.cache_bytes();
        return bytes;
    }

private:
    /// On lines of its own in the caches, as it is an allocation of its own.
    struct Worker {
        Worker(const Network& network, const ShardTree& tree) : shards(network), sums(tree) {}

        ShardWorker<Network, Loss> shards;
        ShardStack<Scalar> sums;
    };

    template <class Masks>
    void prepare(const ShardedBatch<Network, Loss, Masks>& batch) {
        reached_.take(masks_.of(batch.masks, batch.part.first, batch.size), batch.size);
        for (auto& worker : workers_) {
            worker->shards.prepare(batch.network, reached_);
            worker->sums.prepare(worker->shards.pieces());
        }
        std::fill(ledgers_.begin(), ledgers_.end(), StepLedger{});
        failed_shard_ = tree_.shards();
    }

    /// A worker's shards.
    template <class Masks>
    void run(Index w, const ShardedBatch<Network, Loss, Masks>& batch) {
        Worker& worker = *workers_[static_cast<std::size_t>(w)];
        const Consecutive shards = tree_.shards_of(w);
        Index shard = shards.first;
        try {
            for (; shard < shards.end(); ++shard)
                ledgers_[static_cast<std::size_t>(shard)] =
                    worker.shards.add(shard, part_of(batch.size, tree_.shards(), shard), batch,
                                      Team::alone(), worker.sums);
        } catch (...) {
            const std::lock_guard lock(access_);
            if (shard < failed_shard_) {
                failed_shard_ = shard;
                failure_ = std::current_exception();
            }
        }
    }

    template <class Masks>
    void add_sums(const ShardedBatch<Network, Loss, Masks>& batch, const Team& team,
                  Gradient& gradient) {
        rows_.clear();
        for (Index w = 0; w < static_cast<Index>(workers_.size()); ++w)
            for (Index i = 0; i < tree_.nodes_of(w).count; ++i)
                rows_.push_back(workers_[static_cast<std::size_t>(w)]->sums.row(i));
        pieces_.list(batch.network, gradient, reached_);
        const Index of_gradient = pieces_.numbers();
        ShardStatistics<Network>& statistics = workers_[0]->shards.statistics();
        team.split(of_gradient + statistics.numbers(), numbers_at_once,
                   static_cast<double>(rows_.size() + 1), [&](Index first, Index count) {
                       add_nodes<Scalar>(tree_, rows_, {first, count});
                       pieces_.add_from(rows_[0], {first, count});
                   });
        statistics.take_sum(rows_[0] + of_gradient);
    }

    /// Of the shards; seconds are those of the slowest worker.
    [[nodiscard]] StepLedger ledger_of_all() {
        StepLedger all;
        for (Index w = 0; w < static_cast<Index>(workers_.size()); ++w) {
            const Consecutive shards = tree_.shards_of(w);
            double forward_seconds = 0, backward_seconds = 0;
            for (Index k = shards.first; k < shards.end(); ++k) {
                const StepLedger& shard = ledgers_[static_cast<std::size_t>(k)];
                losses_[static_cast<std::size_t>(k)] = shard.loss;
                all.layer_evaluations += shard.layer_evaluations;
                all.full_depth_evaluations += shard.full_depth_evaluations;
                forward_seconds += shard.forward_seconds;
                backward_seconds += shard.backward_seconds;
            }
            all.forward_seconds = std::max(all.forward_seconds, forward_seconds);
            all.backward_seconds = std::max(all.backward_seconds, backward_seconds);
        }
        all.loss = tree_of_one_.sum(losses_);
        return all;
    }

    /// Of a sum that threads share: some kilobytes each.
    static constexpr Index numbers_at_once = 1024;

    ShardTree tree_;         ///< whose "ranks" are the workers
    ShardTree tree_of_one_;  ///< the same shards, one worker
    std::vector<std::unique_ptr<Worker>> workers_;
    PartMasks masks_;
    ReachedBySome reached_;
    GradientPieces<Scalar> pieces_;  ///< of the sum
    std::vector<Scalar*> rows_;      ///< of all nodes
    std::vector<StepLedger> ledgers_;
    std::vector<double> losses_;
    std::mutex access_;
    Index failed_shard_ = 0;
    std::exception_ptr failure_;
};

}  // namespace stochastic_depth::detail
