// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <utility>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/memory/tape.hpp>
#include <stochastic_depth/pass/batch.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/pass/run.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>
#include <stochastic_depth/threads/thread_team.hpp>
#include <stochastic_depth/training/loss.hpp>
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
          options_(checked(network, options)),
          masks_(network, options_),
          gradient_(network.zero_gradient()),
          team_(options_.threads) {}

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
    [[nodiscard]] Gradient& gradient() {
        // Whoever asks may write.
        is_zero_ = false;
        return gradient_;
    }
    [[nodiscard]] const Gradient& gradient() const { return gradient_; }

    /// Has `passed` called on the ways back to come, behind each skippable layer, with its gradient's
    /// flag `reached`: a way back adds nothing more to that gradient. Null: nobody is told.
    /// \param passed  Must outlive these ways.
    void tell_what_is_passed(const std::function<void(bool&)>* passed) { passed_ = passed; }

    /// Bytes that the last forward pass kept for the way back.
    [[nodiscard]] std::size_t cache_bytes() const { return cache_bytes_; }

    /// The threads that an optimizer may share the update with.
    [[nodiscard]] const Team& team() const { return team_; }

    /// Ends the step: layers that keep statistics of their batches take those of the last one over,
    /// and the gradient is zero again.
    void finish(Network& network) {
        detail::update_statistics(network, record_);
        discard();
    }

    /// Ends the step without a trace: the gradient is zero again, and nothing else has happened.
    void discard() {
        gradient_.set_zero();
        is_zero_ = true;
    }

private:
    using Clock = std::chrono::steady_clock;

    [[nodiscard]] static TrainingStepOptions checked(const Network& network,
                                                     TrainingStepOptions options) {
        if (options.threads < 1 || options.threads > Team::largest)
            detail::refuse("TrainingStep: threads must lie in [1, ", Team::largest,
                           "], got ", options.threads);
        if (options.scaling == Scaling::inverted && detail::skips_more_than_branches(network))
            detail::refuse(
                "TrainingStep: scaling must be Scaling::none for a network that skips layers other "
                "than Residual, got Scaling::inverted");
        return options;
    }

    [[nodiscard]] static double seconds(Clock::duration time) {
        return std::chrono::duration<double>(time).count();
    }

    template <class Masks>
    StepLedger differentiate_under(const Network& network, const ConstMatrixRef<Scalar>& x,
                                   const Targets& targets, const Masks& masks, std::uint64_t t,
                                   const BatchPart& part, Clock::time_point start) {
        if (network.depth() != masks_.depth())
            detail::refuse("TrainingStep: network must have ", masks_.depth(),
                           " skippable layers, got ", network.depth());
        detail::check_targets(loss_, network.output_size(x.rows()), targets);
        const Index at_once = detail::columns_at_once<Targets>(network, x.rows(), x.cols());
        StepLedger ledger;
        if (x.cols() <= at_once) {
            ledger = differentiate_slice(network, x, targets, masks, t, part, start);
        } else if constexpr (detail::has_slices<Targets>) {
            detail::check_samples_of_targets(x.cols(), targets);
            if (!is_zero_) gradient_before_ = gradient_;
            try {
                ledger = differentiate_slices(network, x, targets, masks, t, part, at_once, start);
            } catch (...) {
                if (is_zero_)
                    gradient_.set_zero();
                else
                    gradient_ = gradient_before_;
                throw;
            }
        }
        is_zero_ = false;
        next_step_ = t + 1;
        return ledger;
    }

    /// Slice after slice, as parts of the batch.
    template <class Masks>
    StepLedger differentiate_slices(const Network& network, const ConstMatrixRef<Scalar>& x,
                                    const Targets& targets, const Masks& masks, std::uint64_t t,
                                    const BatchPart& part, Index at_once, Clock::time_point start) {
        StepLedger sum;
        std::size_t most_bytes = 0;
        for (Index first = 0; first < x.cols(); first += at_once) {
            const Index some = std::min(at_once, x.cols() - first);
            detail::take_slice(targets, first, some, slice_targets_);
            const StepLedger slice =
                differentiate_slice(network, x.middleCols(first, some), slice_targets_, masks, t,
                                    {part.first + first, part.of > 0 ? part.of : x.cols()}, start);
            start = Clock::now();
            most_bytes = std::max(most_bytes, cache_bytes_);
            sum.loss += slice.loss;
            sum.layer_evaluations += slice.layer_evaluations;
            sum.full_depth_evaluations += slice.full_depth_evaluations;
            sum.forward_seconds += slice.forward_seconds;
            sum.backward_seconds += slice.backward_seconds;
        }
        cache_bytes_ = most_bytes;
        sum.expected_layer_evaluations = masks_.expected_evaluations(x.cols());
        return sum;
    }

    template <class Masks>
    StepLedger differentiate_slice(const Network& network, const ConstMatrixRef<Scalar>& x,
                                   const Targets& targets, const Masks& all_masks, std::uint64_t t,
                                   const BatchPart& part, Clock::time_point start) {
        const Index outputs = network.output_size(x.rows());
        const Masks& masks = masks_.of_part(all_masks, part.first, x.cols());
        const detail::StepContext context{options_.scaling, survival_probabilities().data(),
                                          options_.seed, t, part.first};
        tape_.clear();
        detail::Batch<Scalar, detail::Records> batch(team_, tape_, detail::const_view(x));
        detail::run(network, batch, record_, detail::MaskView{masks, &context});
        cache_bytes_ = tape_.bytes();
        detail::SparePiece spare;
        detail::GradientBatch<Scalar> slopes(team_, {&spare, nullptr, passed_}, outputs,
                                             x.cols());
        StepLedger ledger = masks_.count(masks, x.cols());
        ledger.loss = loss_.value_and_gradient(batch.current(), targets, slopes.writable());
        if (part.of > 0) {
            const double share = static_cast<double>(x.cols()) / static_cast<double>(part.of);
            ledger.loss *= share;
            slopes.apply(detail::Multiply<Scalar>{static_cast<Scalar>(share)});
        }
        if (!std::isfinite(ledger.loss))
            throw std::runtime_error(detail::message("TrainingStep: loss must be finite, got ",
                                                     ledger.loss, " in step ", t,
                                                     "; a smaller learning rate may help"));
        const auto forward_end = Clock::now();
        detail::backpropagate(network, slopes, record_, gradient_, detail::Discard{});
        ledger.forward_seconds = seconds(forward_end - start);
        ledger.backward_seconds = seconds(Clock::now() - forward_end);
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
    Gradient gradient_;
    /// Of the calls before, while slices are added; used only if that is not zero.
    Gradient gradient_before_;
    bool is_zero_ = true;
    Targets slice_targets_;
    detail::Tape tape_;
    detail::RecordOf<Network, detail::Records> record_;
    std::size_t cache_bytes_ = 0;
    std::uint64_t next_step_ = 0;
    const std::function<void(bool&)>* passed_ = nullptr;
    detail::ThreadTeam team_;
};

template <class Network, class Loss>
TrainingStep(const Network&, Loss, TrainingStepOptions) -> TrainingStep<Network, Loss>;
template <class Network, class Loss>
TrainingStep(const Network&, Loss) -> TrainingStep<Network, Loss>;

}  // namespace stochastic_depth
