// SPDX-License-Identifier: MIT
#pragma once

#include <mpi.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/distributed/agreed_numbers.hpp>
#include <stochastic_depth/distributed/communicator.hpp>
#include <stochastic_depth/distributed/same_training.hpp>
#include <stochastic_depth/distributed/shard_ledgers.hpp>
#include <stochastic_depth/distributed/shard_sums.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>
#include <stochastic_depth/threads/team.hpp>
#include <stochastic_depth/threads/thread_team.hpp>
#include <stochastic_depth/training/gradient_pieces.hpp>
#include <stochastic_depth/training/loss.hpp>
#include <stochastic_depth/training/reached_by_some.hpp>
#include <stochastic_depth/training/shard_tree.hpp>
#include <stochastic_depth/training/shard_worker.hpp>
#include <stochastic_depth/training/step_masks.hpp>
#include <stochastic_depth/training/step_options.hpp>
#include <stochastic_depth/training/target_slices.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Samples [first, first + count) of a batch.
struct SampleRange {
    Index first = 0;
    Index count = 0;
};

/// A TrainingStep on many ranks of MPI, which share the samples of each batch:
///
///     DataParallel step{network, SoftmaxCrossEntropy<float>{}, {.seed = 42}, MPI_COMM_WORLD};
///     for (std::uint64_t t = 0; t < steps; ++t) {
///         step.differentiate(network, x, labels, t);
///         optimizer.step(network, step.gradient(), step.team());
///         step.finish(network);
///     }
///
/// A batch is cut into options.shards shards, whatever the number of ranks, which are added in one tree:
/// for any number of ranks the gradient has the bits of TrainingStep's with as many shards, and so has
/// the network that an optimizer makes of it on every rank. More ranks than shards don't help; a
/// multiple of the number of ranks, both powers of two, sends least. A rank computes its shards one
/// after another, and its threads share each layer's work.
///
/// What no sample of the batch reaches is known to all ranks from the masks, and is not sent; what is
/// sent goes off on the way back through a rank's last shard, as soon as it is complete. Each shard
/// is normalised by the statistics of its own samples (shard_statistics.hpp).
///
/// All members but those that only tell something are collective: every rank calls them, in one
/// order. An exception on one rank is one on all, and leaves everything as it was.
template <MaskedNetwork Network, class Loss>
    requires(DifferentiableLayer<Network>&& LossOf<Loss, typename Network::Scalar>&&
                 SliceableTargets<typename Loss::Targets>)
class DataParallel {
public:
    using Scalar = typename Network::Scalar;
    using Targets = typename Loss::Targets;
    using Gradient = typename Network::Gradient;

    /// Where the options say 0.
    static constexpr Index default_shards = 8;

    /// \param network  The same on every rank, of the shape of those to come.
    /// \param ranks    Whose ranks share the work. Between MPI_Init and the end of this's life,
    ///                 before MPI_Finalize. With options.threads above 1, MPI_THREAD_FUNNELED.
    /// \throws std::invalid_argument  as TrainingStep does; unless options.shards is at least 1;
    ///                                without MPI, or for a communicator of no ranks; naming what
    ///                                differs, if build, options, loss, layers or parameters are not
    ///                                the same on every rank.
    DataParallel(const Network& network, Loss loss, TrainingStepOptions options, MPI_Comm ranks)
        : DataParallel(network, std::move(loss), options,
                       detail::Communicator{"DataParallel", ranks}) {}

    DataParallel(const DataParallel&) = delete;
    DataParallel& operator=(const DataParallel&) = delete;

    [[nodiscard]] const TrainingStepOptions& options() const { return options_; }
    [[nodiscard]] int rank() const { return ranks_.rank(); }
    [[nodiscard]] int ranks() const { return ranks_.size(); }

    /// Which samples of a batch this rank computes.
    [[nodiscard]] SampleRange samples_of_rank(Index batch) const {
        if (shards_.count == 0) return {batch, 0};
        const Index first = samples_of(shards_.first, batch).first;
        return {first, samples_of(shards_.end() - 1, batch).end() - first};
    }

    /// As TrainingStep's.
    [[nodiscard]] const Eigen::VectorXd& survival_probabilities() const {
        return masks_.survival_probabilities();
    }
    /// As TrainingStep's, the same on every rank. Not collective: the next step compares them.
    void set_survival_probabilities(const Eigen::VectorXd& p) {
        masks_.set_survival_probabilities(p);
    }

    /// Adds the gradient of the mean loss over the batch into gradient(), under the masks of step t.
    ///
    /// \param x, targets  Of the whole batch, of which a rank reads its own samples alone.
    /// \param part        Where they are of these alone, {samples_of_rank(batch).first, batch}.
    /// \returns           The whole batch's; seconds of the slowest rank's shards.
    /// \throws std::invalid_argument  on every rank, if ranks are given steps or batches that
    ///                                differ. On those ranks whose samples it is, as TrainingStep
    ///                                does; on the others std::runtime_error, with the rank and its
    ///                                message. The gradient is unchanged then.
    StepLedger differentiate(const Network& network, const ConstMatrixRef<Scalar>& x,
                             const Targets& targets, std::uint64_t t, BatchPart part = {}) {
        const bool is_whole = part.first == 0 && part.of == 0;
        return differentiate_from(part.first, is_whole ? x.cols() : part.of, network, x, targets,
                                  t);
    }

    /// The sum of the gradients since the last `finish`, the same on every rank.
    [[nodiscard]] Gradient& gradient() { return gradient_; }
    [[nodiscard]] const Gradient& gradient() const { return gradient_; }

    /// The threads that an optimizer may share the update with.
    [[nodiscard]] const Team& team() const { return team_; }

    /// Ends the step: layers that keep statistics of their batches take over what the shards of the
    /// last one came to, and the gradient is zero again. Not collective.
    void finish(Network& network) {
        worker_.statistics().move(network);
        gradient_.set_zero();
    }

    /// \throws std::invalid_argument  on every rank, naming the first parameter that differs, unless
    ///                                all have the same network.
    /// \complexity  One pass over the parameters.
    void check_same(const Network& network) const { detail::check_same_network(ranks_, network); }

    /// Bytes of gradients that this rank has sent in the last step.
    [[nodiscard]] std::uint64_t bytes_sent() const { return sums_.bytes_sent(); }
    /// Bytes that the sums of shards and their exchange take on this rank.
    [[nodiscard]] std::size_t exchange_bytes() const { return sums_.bytes(); }
    /// Bytes that the last forward pass of a shard kept for the way back.
    [[nodiscard]] std::size_t cache_bytes() const { return worker_.cache_bytes(); }

private:
    DataParallel(const Network& network, Loss loss, TrainingStepOptions options,
                 detail::Communicator ranks)
        : ranks_(std::move(ranks)),
          options_(checked(network, loss, std::move(options))),
          loss_(std::move(loss)),
          tree_(options_.shards, ranks_.size()),
          shards_(tree_.shards_of(ranks_.rank())),
          masks_(network, options_),
          reached_(network),
          worker_(network),
          gradient_(network.zero_gradient()),
          sums_(ranks_, tree_),
          ledgers_(ranks_, tree_),
          team_(options_.threads) {}

    [[nodiscard]] TrainingStepOptions checked(const Network& network, const Loss& loss,
                                              TrainingStepOptions options) const {
        detail::check_same_training(ranks_, network, loss, options);
        if (options.shards < 0)
            detail::refuse("DataParallel: shards must be at least 0, got ", options.shards);
        if (options.shards == 0) options.shards = default_shards;
        // What may be refused on one rank alone.
        detail::together(ranks_, [&] {
            if (options.threads < 1 || options.threads > Team::largest)
                detail::refuse("DataParallel: threads must lie in [1, ", Team::largest, "], got ",
                               options.threads);
        });
        return options;
    }
    [[nodiscard]] detail::Consecutive samples_of(Index shard, Index batch) const {
        return detail::part_of(batch, options_.shards, shard);
    }

    StepLedger differentiate_from(Index first, Index batch, const Network& network,
                                  const ConstMatrixRef<Scalar>& x, const Targets& targets,
                                  std::uint64_t t) {
        detail::Failure failure = detail::attempt([&] {
            detail::check_samples_of_targets(x.cols(), targets);
            check_part(first, batch, x.cols());
            prepare(network, t, batch);
        });
        agree(failure, t, batch, x.rows());
        failure = detail::attempt([&] {
            check_own_targets(first, batch, network.output_size(x.rows()), targets);
            if (one_mask_)
                add_shards(first, batch, network, x, targets, *one_mask_, t);
            else
                add_shards(first, batch, network, x, targets, *each_mask_, t);
        });
        if (failure) worker_.discard();
        // Whatever has happened here, the others wait for it.
        sums_.finish();
        StepLedger ledger = ledgers_.of_all(failure);
        ledger.expected_layer_evaluations = masks_.expected_evaluations(batch);
        ledger.full_depth_evaluations =
            static_cast<double>(batch) * static_cast<double>(masks_.depth());
        sum_pieces_.list(network, gradient_, reached_);
        sum_pieces_.add_from(sums_.total(), {0, sum_pieces_.numbers()});
        worker_.statistics().take_sum(sums_.total() + sum_pieces_.numbers());
        return ledger;
    }

    /// \throws std::invalid_argument  unless x holds the whole batch, or this rank's samples.
    void check_part(Index first, Index batch, Index samples) const {
        if (batch < 0) detail::refuse("DataParallel: batch must be at least 0, got ", batch);
        if (first == 0 && samples == batch) return;
        const SampleRange own = samples_of_rank(batch);
        if ((samples > 0 && first != own.first) || samples != own.count)
            detail::refuse("DataParallel: part must hold the rank's samples, ", own.count, " from ",
                           own.first, " on of a batch of ", batch, ", got ", samples, " from ",
                           first, " on");
    }

    void check_own_targets(Index first, Index batch, Index outputs, const Targets& targets) {
        const SampleRange own = samples_of_rank(batch);
        if (own.count == 0) return;
        detail::take_slice(targets, own.first - first, own.count, targets_);
        detail::check_targets(loss_, outputs, targets_);
    }

    /// Of a step all that is known before anything is computed.
    void prepare(const Network& network, std::uint64_t t, Index batch) {
        if (network.depth() != masks_.depth())
            detail::refuse("DataParallel: network must have ", masks_.depth(),
                           " skippable layers, got ", network.depth());
        one_mask_ = nullptr;
        each_mask_ = nullptr;
        masks_.draw(t, batch, [&]<class Masks>(const Masks& masks) {
            if constexpr (std::is_same_v<Masks, SurvivalMask>)
                one_mask_ = &masks;
            else
                each_mask_ = &masks;
            reached_.take(masks, batch);
        });
        worker_.prepare(network, reached_);
        sum_pieces_.reserve_as(worker_.pieces());
        sums_.prepare(worker_.pieces());
        ledgers_.clear();
    }

    /// Ranks that differ in these would send each other other things than they expect.
    void agree(const detail::Failure& failure, std::uint64_t t, Index batch, Index rows) const {
        using Number = detail::AgreedNumber;
        detail::agree_on(ranks_, failure,
                         std::array{Number{"the step t", t},
                                    Number{"the batch size", static_cast<std::uint64_t>(batch)},
                                    Number{"the rows of x", static_cast<std::uint64_t>(rows)},
                                    Number{"the hash of the survival probabilities",
                                           detail::hash_of_numbers(survival_probabilities())},
                                    Number{"the size of the gradient",
                                           static_cast<std::uint64_t>(worker_.pieces().numbers())}});
    }

    /// Adds the shares of this rank's shards to its sums.
    /// \param first  The sample in the first column of x.
    template <class Masks>
    void add_shards(Index first, Index batch, const Network& network,
                    const ConstMatrixRef<Scalar>& x, const Targets& targets, const Masks& masks,
                    std::uint64_t t) {
        const detail::StepContext context{options_.scaling, survival_probabilities().data(),
                                          options_.seed, t};
        const detail::ShardedBatch<Network, Loss, Masks> shards{
            network, loss_, x, targets, first, batch, masks, {}, context};
        for (Index k = shards_.first; k < shards_.end(); ++k)
            ledgers_.of(k) = worker_.add(k, samples_of(k, batch), shards, team_, sums_);
    }

    detail::Communicator ranks_;
    TrainingStepOptions options_;
    Loss loss_;
    detail::ShardTree tree_;
    detail::Consecutive shards_;  ///< this rank's
    detail::StepMasks masks_;
    const SurvivalMask* one_mask_ = nullptr;    ///< of the step, or
    const SurvivalMasks* each_mask_ = nullptr;  ///< for each sample
    detail::ReachedBySome reached_;
    detail::ShardWorker<Network, Loss> worker_;
    Gradient gradient_;
    detail::GradientPieces<Scalar> sum_pieces_;
    detail::ShardSums<Scalar> sums_;
    detail::ShardLedgers ledgers_;
    Targets targets_;  ///< of this rank's samples
    detail::ThreadTeam team_;
};

template <class Network, class Loss>
DataParallel(const Network&, Loss, TrainingStepOptions, MPI_Comm) -> DataParallel<Network, Loss>;

}  // namespace stochastic_depth
