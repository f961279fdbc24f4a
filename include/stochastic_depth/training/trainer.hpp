// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/differentiation.hpp>
#include <stochastic_depth/detail/evaluations.hpp>
#include <stochastic_depth/random/shuffle.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/survival/mask_view.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/training/sgd.hpp>

namespace stochastic_depth {

/// Who shares a survival mask in a training step.
enum class MaskScope {
    /// One mask for the whole batch.
    batch,
    /// One mask for each sample.
    sample,
};

/// Where training stands after a step.
struct TrainingProgress {
    Index epoch = 0;   ///< from 0
    Index epochs = 0;  ///< in all
    Index step = 0;    ///< of this epoch, from 0
    Index steps = 0;   ///< in an epoch
    double loss = 0;   ///< of this step's batch
};

/// What an epoch came to.
struct EpochRecord {
    /// Mean training loss over the samples, under the masks that they were trained with.
    double loss = 0;
    double seconds = 0;
    /// Evaluations of skippable layers, over all samples of the epoch.
    double layer_evaluations = 0;
    /// What they would have been at full depth.
    double full_depth_evaluations = 0;
};

struct TrainerOptions {
    Index batch_size = 128;
    Index epochs = 10;
    /// Fixes the order of the samples and the masks.
    std::uint64_t seed = 0;
    MaskScope mask_scope = MaskScope::sample;
    /// Of the Sgd that a training makes for itself; a training that is given an optimizer takes
    /// that.
    SgdOptions optimizer = {};
    /// Sets the learning rate before each step, from the share of all steps that is done, in [0,
    /// 1); none: the optimizer's stays.
    std::function<double(double)> learning_rate = nullptr;
    /// Called after each step.
    std::function<void(const TrainingProgress&)> on_step = nullptr;
};

/// Updates a network by a gradient.
///
/// Beyond the syntax: `step` moves only parameters that the gradient has reached, which
/// detail::visit_parameters tells, so that layers which no sample kept cost nothing;
/// `set_learning_rate` acts on the steps to come.
///
/// Models: Sgd, Adam, AdamW; a user's type that has the two members. Taken by Trainer::fit.
template <class Optimizer, class Network>
concept OptimizerOf = requires(Optimizer& optimizer, Network& network,
                               typename Network::Gradient& gradient, double learning_rate) {
    optimizer.step(network, gradient);
    optimizer.set_learning_rate(learning_rate);
};

/// Trains a network with stochastic depth: in each step the layers that the masks skip cost
/// nothing, in the forward pass, in the backward pass and in the update.
///
/// The order of the samples is a function of seed and epoch, the masks of seed and step: step s of
/// the training, counted over all epochs from 0, uses `MaskSampler{p, seed}.sample(s)` or
/// `.sample(s, batch)`. Outputs are not rescaled: the network at test time is f_SD, not full depth.
///
/// \source Huang et al. 2016, Deep Networks with Stochastic Depth, Section 3.
class Trainer {
public:
    /// \throws std::invalid_argument  if batch_size < 1 or epochs < 0.
    explicit Trainer(TrainerOptions options) : options_(std::move(options)) {
        if (options_.batch_size < 1)
            detail::refuse("Trainer: batch_size must be at least 1, got ", options_.batch_size);
        if (options_.epochs < 0)
            detail::refuse("Trainer: epochs must be at least 0, got ", options_.epochs);
    }

    /// \param network  Trained in place.
    /// \param data     At least one sample, of as many features as the network takes.
    /// \param loss     SoftmaxCrossEntropy, MeanSquaredError, or another type with their members.
    /// \returns        A record for each epoch.
    /// \throws std::invalid_argument  if the data doesn't fit, or an optimizer option is out of
    ///                                range; the network is unchanged then.
    /// \throws std::runtime_error     if a batch's loss is not finite; the network is as the step
    ///                                before left it.
    template <MaskedNetwork Network, class Loss>
        requires(DifferentiableLayer<Network>)
    std::vector<EpochRecord> fit(
        Network& network, const Dataset<typename Network::Scalar, typename Loss::Targets>& data,
        const Loss& loss) const {
        return fit(network, data, loss, Sgd<Network>{network, options_.optimizer});
    }

    /// The same with another optimizer, in place of the options':
    ///
    ///     Trainer{{.epochs = 20}}.fit(network, data, loss, Adam{network, {.learning_rate = 0.001}});
    ///
    /// \param optimizer  Sgd, Adam, AdamW or another; one that outlives the call keeps its state,
    ///                   and the next call goes on from there.
    template <MaskedNetwork Network, class Loss, class Optimizer>
        requires(DifferentiableLayer<Network> &&
                 OptimizerOf<std::remove_reference_t<Optimizer>, Network>)
    std::vector<EpochRecord> fit(
        Network& network, const Dataset<typename Network::Scalar, typename Loss::Targets>& data,
        const Loss& loss, Optimizer&& optimizer) const {
        if (data.size() < 1) detail::refuse("Trainer: data must have at least 1 sample, got 0");
        const Index outputs = network.output_size(data.features());
        check_outputs<Loss>(data, outputs);
        Run<Network, Loss, std::remove_reference_t<Optimizer>> run{network, data,    loss,
                                                                   *this,   outputs, optimizer};
        std::vector<EpochRecord> history;
        for (Index epoch = 0; epoch < options_.epochs; ++epoch) history.push_back(run.epoch(epoch));
        return history;
    }

private:
    template <class Loss, class Data>
    static void check_outputs(const Data& data, Index outputs) {
        if constexpr (std::is_same_v<typename Loss::Targets, Eigen::VectorXi>) {
            if (data.classes() > outputs)
                detail::refuse("Trainer: network must have an output for each of ", data.classes(),
                               " classes, got ", outputs);
        } else if (data.outputs() != outputs) {
            detail::refuse("Trainer: network must have ", data.outputs(),
                           " outputs as the targets have, got ", outputs);
        }
    }

    /// The state of one training.
    template <class Network, class Loss, class Optimizer>
    struct Run {
        using Scalar = typename Network::Scalar;
        using Data = Dataset<Scalar, typename Loss::Targets>;

        Network& network;
        const Data& data;
        const Loss& loss;
        const TrainerOptions& options;
        Index outputs;
        Optimizer& optimizer;
        MaskSampler sampler;
        detail::Record<Network> record;
        typename Network::Gradient gradient;
        Matrix<Scalar> activations, slopes;
        typename Loss::Targets targets;
        SurvivalMask mask;
        SurvivalMasks masks;
        detail::EvaluationsUnderMasks evaluations;

        Run(Network& network_, const Data& data_, const Loss& loss_, const Trainer& trainer,
            Index outputs_, Optimizer& optimizer_)
            : network(network_),
              data(data_),
              loss(loss_),
              options(trainer.options_),
              outputs(outputs_),
              optimizer(optimizer_),
              sampler(network.survival_probabilities(), options.seed),
              gradient(network.zero_gradient()),
              mask(SurvivalMask::none(network.depth())),
              evaluations(network) {}

        EpochRecord epoch(Index epoch) {
            const auto start = std::chrono::steady_clock::now();
            const std::vector<Index> order = detail::random_order(
                data.size(), detail::stream_key(options.seed, detail::StreamPurpose::shuffling, 1),
                static_cast<std::uint64_t>(epoch));
            const Index steps = (data.size() + options.batch_size - 1) / options.batch_size;
            EpochRecord record_of_epoch;
            for (Index step = 0; step < steps; ++step) {
                const Index first = step * options.batch_size;
                const Index batch = std::min(options.batch_size, data.size() - first);
                const Index global_step = epoch * steps + step;
                if (options.learning_rate)
                    optimizer.set_learning_rate(
                        options.learning_rate(static_cast<double>(global_step) /
                                              static_cast<double>(options.epochs * steps)));
                take_batch(order, first, batch);
                const double kept = forward(static_cast<std::uint64_t>(global_step), batch);
                slopes.resize(outputs, batch);
                const double value = loss.value_and_gradient(activations, targets, slopes);
                if (!std::isfinite(value))
                    throw std::runtime_error(detail::message(
                        "Trainer: loss must be finite, got ", value, " in step ", step,
                        " of epoch ", epoch, "; a smaller learning rate may help"));
                detail::backpropagate(network, slopes, record, gradient);
                optimizer.step(network, gradient);
                gradient.set_zero();
                record_of_epoch.loss +=
                    value * static_cast<double>(batch) / static_cast<double>(data.size());
                record_of_epoch.layer_evaluations += kept;
                if (options.on_step) options.on_step({epoch, options.epochs, step, steps, value});
            }
            record_of_epoch.full_depth_evaluations =
                static_cast<double>(network.depth()) * static_cast<double>(data.size());
            record_of_epoch.seconds =
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
            return record_of_epoch;
        }

        void take_batch(const std::vector<Index>& order, Index first, Index batch) {
            activations.resize(data.features(), batch);
            data.resize_targets(targets, batch);
            data.gather(order, first, batch, activations, targets);
        }

        /// Runs the batch under the masks of a step; returns the number of layers kept, over all
        /// samples.
        double forward(std::uint64_t step, Index batch) {
            double kept = 0;
            if (options.mask_scope == MaskScope::batch) {
                sampler.sample(step, mask);
                masks.resize(network.depth(), 1);
                masks.set_mask(0, mask);
                kept = evaluations(masks) * static_cast<double>(batch);
                detail::record(network, activations, record, detail::MaskView{mask});
            } else {
                masks.resize(network.depth(), batch);
                sampler.sample(step, masks);
                kept = evaluations(masks);
                detail::record(network, activations, record, detail::MaskView{masks});
            }
            return kept;
        }
    };

    TrainerOptions options_;
};

}  // namespace stochastic_depth
