// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include <stochastic_depth/pass/differentiation.hpp>
#include <stochastic_depth/pass/evaluations.hpp>
#include <stochastic_depth/pass/mask_view.hpp>
#include <stochastic_depth/survival/fixed_size_mask_sampler.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/survival/scaling.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>
#include <stochastic_depth/threads/thread_team.hpp>

namespace stochastic_depth {

/// Who shares a survival mask in a training step.
enum class MaskScope {
    /// One mask for the whole batch.
    batch,
    /// One mask for each sample.
    sample,
    /// One mask for each sample, and of every layer the same number of samples in each step: equal
    /// work.
    subset,
};

struct TrainingStepOptions {
    MaskScope mask_scope = MaskScope::sample;
    Scaling scaling = Scaling::none;
    /// Fixes the masks.
    std::uint64_t seed = 0;
    /// At least 1, the caller's among them. Their number changes no bit.
    unsigned threads = 1;
};

/// What a step came to.
struct StepLedger {
    /// Mean over the batch, under the masks of the step.
    double loss = 0;
    /// Evaluations of skippable layers, over all samples: expected, done, and at full depth.
    double expected_layer_evaluations = 0;
    double layer_evaluations = 0;
    double full_depth_evaluations = 0;
    /// Of the masks, the forward pass and the loss; of the backward pass.
    double forward_seconds = 0;
    double backward_seconds = 0;
};

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
    requires(DifferentiableLayer<Network>)
class TrainingStep {
public:
    using Scalar = typename Network::Scalar;
    using Targets = typename Loss::Targets;
    using Gradient = typename Network::Gradient;

    /// \param network  Of the shape of those to come.
    /// \throws std::invalid_argument  unless options.threads lies in [1, 65535]; for inverted
    ///                                scaling of a skippable layer that is no Residual, which has
    ///                                no branch.
    TrainingStep(const Network& network, Loss loss, TrainingStepOptions options = {})
        : loss_(std::move(loss)),
          options_(checked(options)),
          sampler_(network.survival_probabilities(), options_.seed),
          subsets_(survival_probabilities(), options_.seed),
          gradient_(network.zero_gradient()),
          mask_(SurvivalMask::none(sampler_.depth())),
          evaluations_(network),
          expected_evaluations_(evaluations_.expected(survival_probabilities())),
          team_(options_.threads) {}

    [[nodiscard]] const TrainingStepOptions& options() const { return options_; }

    /// p_l of the steps to come: the network's, or what `set_survival_probabilities` said.
    [[nodiscard]] const Eigen::VectorXd& survival_probabilities() const {
        return sampler_.survival_probabilities();
    }

    /// Sets p_l for the steps to come, as a schedule over time does; the network's own stay.
    /// \throws std::invalid_argument  unless there is one in (0, 1] for each layer.
    void set_survival_probabilities(const Eigen::VectorXd& p) {
        if (p.size() != sampler_.depth())
            detail::refuse("TrainingStep: survival probabilities must be ", sampler_.depth(),
                           ", got ", p.size());
        if (p == survival_probabilities()) return;
        sampler_ = MaskSampler(p, options_.seed);
        subsets_ = FixedSizeMaskSampler(p, options_.seed);
        expected_evaluations_ = evaluations_.expected(p);
    }

    /// Adds the gradient of the mean loss over the batch into gradient(), under the masks of step
    /// t, which are a function of seed and t.
    ///
    /// \param x        [features x batch], not to change during the call.
    /// \param targets  As the loss takes them.
    /// \throws std::invalid_argument  if sizes don't match or a target is out of range; the
    ///                                gradient is unchanged then.
    /// \throws std::runtime_error     if the loss is not finite; likewise.
    StepLedger differentiate(const Network& network, const ConstMatrixRef<Scalar>& x,
                             const Targets& targets, std::uint64_t t) {
        const auto start = Clock::now();
        const detail::StepDraw draw = draw_of(t);
        if (options_.mask_scope == MaskScope::batch) {
            sampler_.sample(t, mask_);
            return differentiate_under(network, x, targets, mask_, draw, start);
        }
        masks_.resize(sampler_.depth(), x.cols());
        if (options_.mask_scope == MaskScope::sample)
            sampler_.sample(t, masks_);
        else
            subsets_.sample(t, masks_);
        return differentiate_under(network, x, targets, masks_, draw, start);
    }

    /// The same under one given mask for the batch.
    StepLedger differentiate(const Network& network, const ConstMatrixRef<Scalar>& x,
                             const Targets& targets, const SurvivalMask& mask) {
        detail::check_mask("TrainingStep", network, mask);
        return differentiate_under(network, x, targets, mask, draw_of(0), Clock::now());
    }

    /// The same under given masks, one for each sample.
    StepLedger differentiate(const Network& network, const ConstMatrixRef<Scalar>& x,
                             const Targets& targets, const SurvivalMasks& masks) {
        detail::check_masks("TrainingStep", network, masks, x.cols());
        return differentiate_under(network, x, targets, masks, draw_of(0), Clock::now());
    }

    /// The sum of the gradients since the last `finish`.
    [[nodiscard]] Gradient& gradient() { return gradient_; }
    [[nodiscard]] const Gradient& gradient() const { return gradient_; }

    /// Bytes that the last forward pass kept for the way back.
    [[nodiscard]] std::size_t cache_bytes() const { return cache_bytes_; }

    /// The threads that an optimizer may share the update with.
    [[nodiscard]] const detail::Team& team() const { return team_; }

    /// Ends the step: layers that keep statistics of their batches take those of the last one over,
    /// and the gradient is zero again.
    void finish(Network& network) {
        detail::update_statistics(network, recorded_);
        gradient_.set_zero();
    }

private:
    using Clock = std::chrono::steady_clock;

    [[nodiscard]] static TrainingStepOptions checked(TrainingStepOptions options) {
        if (options.threads < 1 || options.threads > detail::Team::largest)
            detail::refuse("TrainingStep: threads must lie in [1, ", detail::Team::largest,
                           "], got ", options.threads);
        if (!detail::skips_branches_alone<Network> && options.scaling == Scaling::inverted)
            detail::refuse(
                "TrainingStep: scaling must be Scaling::none for a network that skips layers other "
                "than Residual, got Scaling::inverted");
        return options;
    }

    [[nodiscard]] static double seconds(Clock::duration time) {
        return std::chrono::duration<double>(time).count();
    }

    [[nodiscard]] detail::StepDraw draw_of(std::uint64_t t) const {
        return {options_.scaling, survival_probabilities().data(), options_.seed, t};
    }

    template <class Masks>
    StepLedger differentiate_under(const Network& network, const ConstMatrixRef<Scalar>& x,
                                   const Targets& targets, const Masks& masks,
                                   const detail::StepDraw& draw, Clock::time_point start) {
        if (network.depth() != sampler_.depth())
            detail::refuse("TrainingStep: network must have ", sampler_.depth(),
                           " skippable layers, got ", network.depth());
        const Index outputs = network.output_size(x.rows());
        tape_.clear();
        detail::Flow<Scalar> flow(tape_, team_, x);
        detail::record(network, flow, recorded_, detail::MaskView{masks, &draw});
        cache_bytes_ = tape_.bytes();
        detail::Slopes<Scalar> slopes(team_, outputs, x.cols());
        StepLedger ledger = count(masks, x.cols());
        ledger.loss = loss_.value_and_gradient(flow.current(), targets, slopes.writable());
        if (!std::isfinite(ledger.loss))
            throw std::runtime_error(detail::message("TrainingStep: loss must be finite, got ",
                                                     ledger.loss, " in step ", draw.step,
                                                     "; a smaller learning rate may help"));
        const auto forward_end = Clock::now();
        detail::backpropagate(network, slopes, recorded_, gradient_, detail::Discard{});
        ledger.forward_seconds = seconds(forward_end - start);
        ledger.backward_seconds = seconds(Clock::now() - forward_end);
        return ledger;
    }

    /// What the masks come to; a single one stands for the whole batch.
    [[nodiscard]] StepLedger count(const SurvivalMask& mask, Index batch) {
        one_mask_.resize(mask.size(), 1);
        one_mask_.set_mask(0, mask);
        StepLedger ledger = count(one_mask_, batch);
        ledger.layer_evaluations *= static_cast<double>(batch);
        return ledger;
    }
    [[nodiscard]] StepLedger count(const SurvivalMasks& masks, Index batch) {
        StepLedger ledger;
        const auto samples = static_cast<double>(batch);
        ledger.expected_layer_evaluations = samples * expected_evaluations_;
        ledger.layer_evaluations = evaluations_(masks);
        ledger.full_depth_evaluations = samples * static_cast<double>(masks.depth());
        return ledger;
    }

    Loss loss_;
    TrainingStepOptions options_;
    MaskSampler sampler_;
    FixedSizeMaskSampler subsets_;
    Gradient gradient_;
    SurvivalMask mask_;
    SurvivalMasks masks_, one_mask_;
    detail::EvaluationsUnderMasks evaluations_;
    double expected_evaluations_;  ///< for a sample
    detail::Tape tape_;
    detail::Record<Network> recorded_;
    std::size_t cache_bytes_ = 0;
    detail::ThreadTeam team_;
};

template <class Network, class Loss>
TrainingStep(const Network&, Loss, TrainingStepOptions) -> TrainingStep<Network, Loss>;
template <class Network, class Loss>
TrainingStep(const Network&, Loss) -> TrainingStep<Network, Loss>;

}  // namespace stochastic_depth
