// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/detail/name_of.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>
#include <stochastic_depth/threads/thread_team.hpp>
#include <stochastic_depth/training/batch_gradient.hpp>
#include <stochastic_depth/training/loss.hpp>
#include <stochastic_depth/training/sharded_gradient.hpp>
#include <stochastic_depth/training/step_masks.hpp>
#include <stochastic_depth/training/step_options.hpp>
#include <stochastic_depth/training/target_slices.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {
/// The gradient of the loss under the survival masks of a training step:
///
///     TrainingStep step{network, SoftmaxCrossEntropy<float>{}, {.seed = 42}};
///     for (std::uint64_t t = 0; t < steps; ++t) {
///         step.differentiate(network, x, labels, t);
///         optimizer.step(network, step.gradient(), step.team());
///         step.finish(network);
///     }
///
/// Layers that no sample keeps cost nothing, in the forward pass, in the backward pass and in the
/// update; a layer that some samples keep runs on these alone. What is recorded for the way back
/// grows with the survivors. A step like those before it allocates nothing.
///
/// With Scaling::none and any scope the gradient is an unbiased estimate of that of the expected
/// loss E[loss(NN(x, S))] of the network; with Scaling::inverted, of the network whose branches are
/// F / p (`without_inverted_scaling`).
///
/// \source Huang et al. 2016, Deep Networks with Stochastic Depth, Section 3.
template <MaskedNetwork Network, class Loss>
    requires(DifferentiableLayer<Network> && LossOf<Loss, typename Network::Scalar>)
class TrainingStep {
public:
    using Scalar = typename Network::Scalar;
    using Targets = typename Loss::Targets;
    using Gradient = typename Network::Gradient;

    /// \param network  Of the shape of those to come.
    /// \throws std::invalid_argument  unless options.threads lies in [1, 65535]; for inverted
    ///                                scaling of a skippable layer that is no Residual, which has
    ///                                no branch; for a law of another depth, or with
    ///                                MaskScope::subset.
    TrainingStep(const Network& network, Loss loss, TrainingStepOptions options = {})
        : loss_(std::move(loss)),
          options_(checked(std::move(options))),
          masks_(network, options_),
          gradient_(network),
          team_(options_.threads) {
        if constexpr (SliceableTargets<Targets>)
            if (options_.shards > 1)
                shards_ = std::make_unique<detail::ShardedGradient<Network, Loss>>(
                    network, options_.shards, static_cast<Index>(options_.threads));
    }

    [[nodiscard]] const TrainingStepOptions& options() const { return options_; }

    /// p_l of the steps to come: the network's, or what `set_survival_probabilities` said; under a
    /// law, how often a layer that is reached is kept.
    [[nodiscard]] const Eigen::VectorXd& survival_probabilities() const {
        return masks_.survival_probabilities();
    }

    /// Sets p_l for the steps to come, as a schedule over time does; the network's own stay.
    /// \throws std::invalid_argument  unless there is one in (0, 1] for each layer; under a law.
    void set_survival_probabilities(const Eigen::VectorXd& p) {
        masks_.set_survival_probabilities(p);
    }

    /// Adds the gradient of the mean loss over the batch into gradient(), under the masks of step
    /// t, which are a function of seed and t.
    ///
    /// \param x        [features x batch], not to change during the call.
    /// \param targets  As the loss takes them.
    /// \param part     Where x stands in a batch that is taken in parts, between two `finish`; batch
    ///                 statistics are those of a part.
    /// \throws std::invalid_argument  if sizes don't match or a target is out of range; the
    ///                                gradient is unchanged then.
    /// \throws std::runtime_error     if the loss is not finite; likewise.
    StepLedger differentiate(const Network& network, const ConstMatrixRef<Scalar>& x,
                             const Targets& targets, std::uint64_t t, BatchPart part = {}) {
        const auto start = Clock::now();
        const Index batch = detail::check_part(part, x.cols());
        return masks_.draw(t, batch, [&](const auto& masks) {
            return differentiate_under(network, x, targets, masks, t, part, start);
        });
    }

    /// The same under one given mask for the batch.
    /// \param t  The step, of which other random decisions, as Dropout's, are a function; without it
    ///           the one after the last call's.
    StepLedger differentiate(const Network& network, const ConstMatrixRef<Scalar>& x,
                             const Targets& targets, const SurvivalMask& mask, std::uint64_t t,
                             BatchPart part = {}) {
        const auto start = Clock::now();
        detail::check_mask("TrainingStep", network, mask, detail::check_part(part, x.cols()));
        return as_given(differentiate_under(network, x, targets, mask, t, part, start));
    }
    StepLedger differentiate(const Network& network, const ConstMatrixRef<Scalar>& x,
                             const Targets& targets, const SurvivalMask& mask) {
        return differentiate(network, x, targets, mask, next_step_);
    }

    /// The same under given masks, one for each sample of the whole batch.
    StepLedger differentiate(const Network& network, const ConstMatrixRef<Scalar>& x,
                             const Targets& targets, const SurvivalMasks& masks, std::uint64_t t,
                             BatchPart part = {}) {
        const auto start = Clock::now();
        detail::check_mask("TrainingStep", network, masks, detail::check_part(part, x.cols()));
        return as_given(differentiate_under(network, x, targets, masks, t, part, start));
    }
    StepLedger differentiate(const Network& network, const ConstMatrixRef<Scalar>& x,
                             const Targets& targets, const SurvivalMasks& masks) {
        return differentiate(network, x, targets, masks, next_step_);
    }

    /// The sum of the gradients since the last `finish`.
    [[nodiscard]] Gradient& gradient() { return gradient_.gradient(); }
    [[nodiscard]] const Gradient& gradient() const { return gradient_.gradient(); }

    /// Bytes that the last forward pass kept for the way back; of shards, those that ran side by
    /// side.
    [[nodiscard]] std::size_t cache_bytes() const {
        return shards_ ? shards_->cache_bytes() : gradient_.cache_bytes();
    }

    /// The threads that an optimizer may share the update with.
    [[nodiscard]] const Team& team() const { return team_; }

    /// Ends the step: layers that keep statistics of their batches take those of the last one over,
    /// and the gradient is zero again.
    void finish(Network& network) {
        if (shards_)
            shards_->move_statistics(network);
        else
            gradient_.update_statistics(network);
        gradient_.set_zero();
    }

private:
    using Clock = std::chrono::steady_clock;

    [[nodiscard]] static TrainingStepOptions checked(TrainingStepOptions options) {
        if (options.threads < 1 || options.threads > Team::largest)
            detail::refuse("TrainingStep: threads must lie in [1, ", Team::largest,
                           "], got ", options.threads);
        if (options.shards < 0)
            detail::refuse("TrainingStep: shards must be at least 0, got ", options.shards);
        if (options.shards == 0) options.shards = 1;
        if (options.shards > 1 && !SliceableTargets<Targets>)
            detail::refuse("TrainingStep: shards must be 1 for targets of ",
                           detail::name_of<Targets>(), ", which cannot be cut, got ",
                           options.shards);
        return options;
    }

    template <class Masks>
    StepLedger differentiate_under(const Network& network, const ConstMatrixRef<Scalar>& x,
                                   const Targets& targets, const Masks& masks, std::uint64_t t,
                                   const BatchPart& part, Clock::time_point start) {
        if (network.depth() != masks_.depth())
            detail::refuse("TrainingStep: network must have ", masks_.depth(),
                           " skippable layers, got ", network.depth());
        detail::check_targets(loss_, network.output_size(x.rows()), targets);
        const detail::StepContext context{options_.scaling, survival_probabilities().data(),
                                          options_.seed, t};
        StepLedger ledger;
        if constexpr (SliceableTargets<Targets>)
            if (shards_) {
                detail::check_samples_of_targets(x.cols(), targets);
                const detail::ShardedBatch<Network, Loss, Masks> batch{
                    network, loss_, x, targets, 0, x.cols(), masks, part, context};
                ledger = shards_->add(batch, team_, gradient_.gradient(), start);
            }
        if (!shards_)
            ledger = gradient_.add(network, loss_, x, targets, masks, context, part, team_, nullptr,
                                   start);
        ledger.expected_layer_evaluations = masks_.expected_evaluations(x.cols());
        next_step_ = t + 1;
        return ledger;
    }

    /// Where masks are given, nothing is left to chance.
    [[nodiscard]] static StepLedger as_given(StepLedger ledger) {
        ledger.expected_layer_evaluations = ledger.layer_evaluations;
        return ledger;
    }

    Loss loss_;
    TrainingStepOptions options_;
    detail::StepMasks masks_;
    detail::BatchGradient<Network, Loss> gradient_;
    std::unique_ptr<detail::ShardedGradient<Network, Loss>> shards_;  ///< where there are several
    std::uint64_t next_step_ = 0;
    detail::ThreadTeam team_;
};

template <class Network, class Loss>
TrainingStep(const Network&, Loss, TrainingStepOptions) -> TrainingStep<Network, Loss>;
template <class Network, class Loss>
TrainingStep(const Network&, Loss) -> TrainingStep<Network, Loss>;

}  // namespace stochastic_depth
