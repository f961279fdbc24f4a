// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <functional>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/threads/team.hpp>
#include <stochastic_depth/training/batch_gradient.hpp>
#include <stochastic_depth/training/gradient_pieces.hpp>
#include <stochastic_depth/training/reached_by_some.hpp>
#include <stochastic_depth/training/shard_statistics.hpp>
#include <stochastic_depth/training/shard_tree.hpp>
#include <stochastic_depth/training/step_options.hpp>
#include <stochastic_depth/training/target_slices.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// What a step's shards are computed from.
template <class Network, class Loss, class Masks>
struct ShardedBatch {
    using Scalar = typename Network::Scalar;

    const Network& network;
    const Loss& loss;
    const ConstMatrixRef<Scalar>& x;        ///< samples of the batch
    const typename Loss::Targets& targets;  ///< of these
    Index first;                            ///< the batch's sample in the first column of x
    Index size;                             ///< of the batch
    const Masks& masks;                     ///< of a whole batch,
    BatchPart part;                         ///< of which the batch is this part
    const StepContext& context;
};

/// Computes shards, one after another, each with a gradient of its own that is put on a stack of sums.
template <class Network, class Loss>
class ShardWorker {
public:
    using Scalar = typename Network::Scalar;
    using Clock = typename BatchGradient<Network, Loss>::Clock;

    explicit ShardWorker(const Network& network) : gradient_(network), statistics_(network) {}

    /// Before each step.
    void prepare(const Network& network, const ReachedBySome& reached) {
        pieces_.list(network, gradient_.gradient(), reached);
        numbers_ = pieces_.numbers();
        if (statistics_.numbers() > 0) pieces_.append(statistics_.change(), statistics_.numbers());
        statistics_.begin(network);
        gradient_.moved();
    }
    /// The numbers of a shard: of its gradient, and behind them the change of what layers keep of
    /// their batches.
    [[nodiscard]] const GradientPieces<Scalar>& pieces() const { return pieces_; }

    /// \param samples  Of the shard.
    /// \param sums     Takes its numbers: a ShardStack, or what has its members begin, listener,
    ///                 complete, end and add_nothing.
    template <class Masks, class Sums>
    StepLedger add(Index shard, const Consecutive& samples,
                   const ShardedBatch<Network, Loss, Masks>& batch, const Team& team, Sums& sums) {
        if (samples.count == 0) {
            sums.add_nothing(shard);
            return {};
        }
        const auto start = Clock::now();
        const auto columns = batch.x.middleCols(samples.first - batch.first, samples.count);
        take_slice(batch.targets, samples.first - batch.first, samples.count, targets_);
        // A way back for each slice of the shard.
        const Index at_once = columns_at_once<typename Loss::Targets>(
            batch.network, columns.rows(), samples.count);
        sums.begin(shard, (samples.count + at_once - 1) / at_once);
        const bool is_whole = batch.part.of == 0;
        const BatchPart part{batch.part.first + samples.first,
                             is_whole ? batch.size : batch.part.of};
        const StepLedger ledger =
            gradient_.add(batch.network, batch.loss, columns, targets_, batch.masks, batch.context,
                          part, team, sums.listener(), start);
        sums.complete(numbers_);
        statistics_.take_change(
            gradient_, static_cast<double>(samples.count) / static_cast<double>(batch.size));
        sums.complete(pieces_.numbers());
        sums.end();
        gradient_.moved();
        return ledger;
    }

    /// After a failure, or a step that nothing came of.
    void discard() { gradient_.set_zero(); }

    [[nodiscard]] ShardStatistics<Network>& statistics() { return statistics_; }
    [[nodiscard]] std::size_t cache_bytes() const { return gradient_.cache_bytes(); }

private:
    BatchGradient<Network, Loss> gradient_;
    ShardStatistics<Network> statistics_;
    GradientPieces<Scalar> pieces_;
    Index numbers_ = 0;
    typename Loss::Targets targets_;
};

}  // namespace stochastic_depth::detail
