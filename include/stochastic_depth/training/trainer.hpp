// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/random/shuffle.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/survival/time_schedules.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/training/loss.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/training_step.hpp>

namespace stochastic_depth {

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
    /// Evaluations of skippable layers, over all samples of the epoch: done, expected, and at full
    /// depth.
    double layer_evaluations = 0;
    double expected_layer_evaluations = 0;
    double full_depth_evaluations = 0;
    /// Parts of `seconds`: masks, forward passes and losses; backward passes; updates.
    double forward_seconds = 0;
    double backward_seconds = 0;
    double update_seconds = 0;
};

struct TrainerOptions {
    Index batch_size = 128;
    Index epochs = 10;
    /// Steps of the training that are done already, counted over all epochs: those of a training
    /// that goes on from a file (training_checkpoint.hpp).
    Index first_step = 0;
    /// Fixes the order of the samples and the masks.
    std::uint64_t seed = 0;
    MaskScope mask_scope = MaskScope::sample;
    Scaling scaling = Scaling::none;
    /// At least 1. Their number changes no bit.
    unsigned threads = 1;
    /// Of the Sgd that a training makes for itself; a training that is given an optimizer takes
    /// that.
    SgdOptions optimizer = {};
    /// Sets the learning rate before each step, from the share of all steps that is done, in [0,
    /// 1); none: the optimizer's stays.
    std::function<double(double)> learning_rate = nullptr;
    /// Sets the survival probabilities before each step, from the network's own and from where the
    /// training stands; none: the network's own. The network keeps its own.
    std::function<Eigen::VectorXd(const Eigen::VectorXd&, const TrainingTime&)> survival = nullptr;
    /// Called after each step.
    std::function<void(const TrainingProgress&)> on_step = nullptr;
};

/// Updates a network by a gradient.
///
/// Beyond the syntax: `step` moves only parameters that the gradient has reached, which
/// visit_parameters tells, so that layers which no sample kept cost nothing;
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
/// `.sample(s, batch)`, or `FixedSizeMaskSampler`'s. With Scaling::none outputs are not rescaled:
/// the network at test time is f_SD, not full depth.
///
/// \source Huang et al. 2016, Deep Networks with Stochastic Depth, Section 3.
class Trainer {
public:
    /// \throws std::invalid_argument  if batch_size < 1, epochs < 0, first_step < 0 or threads < 1.
    explicit Trainer(TrainerOptions options) : options_(std::move(options)) {
        if (options_.batch_size < 1)
            detail::refuse("Trainer: batch_size must be at least 1, got ", options_.batch_size);
        if (options_.epochs < 0)
            detail::refuse("Trainer: epochs must be at least 0, got ", options_.epochs);
        if (options_.first_step < 0)
            detail::refuse("Trainer: first_step must be at least 0, got ", options_.first_step);
        if (options_.threads < 1) detail::refuse("Trainer: threads must be at least 1, got 0");
    }

    /// \param network  Trained in place.
    /// \param data     At least one sample, of as many features as the network takes.
    /// \param loss     SoftmaxCrossEntropy, MeanSquaredError, or another type with their members.
    /// \returns        A record for each epoch, of the steps that were done here.
    /// \throws std::invalid_argument  if the data doesn't fit, or an optimizer option is out of
    ///                                range; the network is unchanged then.
    /// \throws std::runtime_error     if a batch's loss is not finite; the network is as the step
    ///                                before left it.
    template <MaskedNetwork Network, class Loss>
        requires(DifferentiableLayer<Network>)
    std::vector<EpochRecord> fit(
        Network& network, const Dataset<typename Network::Scalar, typename Loss::Targets>& data,
        const Loss& loss)
    const { return fit(network, data, loss, Sgd<Network>{network, options_.optimizer}); }

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
        detail::check_targets(loss, network.output_size(data.features()), data.targets());
        Run<Network, Loss, std::remove_reference_t<Optimizer>> run{network, data, loss, options_,
                                                                   optimizer};
        std::vector<EpochRecord> history;
        for (Index epoch = options_.first_step / run.steps; epoch < options_.epochs; ++epoch)
            history.push_back(run.epoch(epoch));
        return history;
    }

private:
    /// The state of one training.
    template <class Network, class Loss, class Optimizer>
    struct Run {
        using Scalar = typename Network::Scalar;
        using Data = Dataset<Scalar, typename Loss::Targets>;
        using Clock = std::chrono::steady_clock;

        Network& network;
        const Data& data;
        const TrainerOptions& options;
        Optimizer& optimizer;
        Eigen::VectorXd p;
        Index steps;  ///< in an epoch
        TrainingStep<Network, Loss> training_step;
        Matrix<Scalar> inputs;
        typename Loss::Targets targets;

        Run(Network& network_, const Data& data_, const Loss& loss, const TrainerOptions& options_,
            Optimizer& optimizer_)
            : network(network_),
              data(data_),
              options(options_),
              optimizer(optimizer_),
              p(network.survival_probabilities()),
              steps((data.size() + options.batch_size - 1) / options.batch_size),
              training_step(network, loss,
                            {options.mask_scope, options.scaling, options.seed, options.threads}) {}

        EpochRecord epoch(Index epoch) {
            const auto start = Clock::now();
            const std::vector<Index> order = detail::random_order(
                data.size(), detail::stream_key(options.seed, detail::StreamPurpose::shuffling, 1),
                static_cast<std::uint64_t>(epoch));
            EpochRecord record;
            for (Index step = std::max(Index{0}, options.first_step - epoch * steps); step < steps;
                 ++step) {
                const Index first = step * options.batch_size;
                const Index batch = std::min(options.batch_size, data.size() - first);
                const TrainingTime time{epoch * steps + step, options.epochs * steps};
                follow_schedules(time);
                inputs.resize(data.features(), batch);
                data.resize_targets(targets, batch);
                data.gather(order, first, batch, inputs, targets);
                const double loss = run_step(time.step, record);
                record.loss += loss * static_cast<double>(batch) / static_cast<double>(data.size());
                if (options.on_step) options.on_step({epoch, options.epochs, step, steps, loss});
            }
            record.seconds = seconds_since(start);
            return record;
        }

        void follow_schedules(const TrainingTime& time) {
            if (options.learning_rate)
                optimizer.set_learning_rate(options.learning_rate(time.progress()));
            if (options.survival)
                training_step.set_survival_probabilities(options.survival(p, time));
        }

        /// Returns the loss; adds to the record what else the step came to.
        double run_step(Index step, EpochRecord& record) {
            const StepLedger ledger = training_step.differentiate(network, inputs, targets,
                                                                  static_cast<std::uint64_t>(step));
            const auto start = Clock::now();
            if constexpr (requires {
                              optimizer.step(network, training_step.gradient(),
                                             training_step.team());
                          })
                optimizer.step(network, training_step.gradient(), training_step.team());
            else
                optimizer.step(network, training_step.gradient());
            training_step.finish(network);
            record.update_seconds += seconds_since(start);
            record.forward_seconds += ledger.forward_seconds;
            record.backward_seconds += ledger.backward_seconds;
            record.layer_evaluations += ledger.layer_evaluations;
            record.expected_layer_evaluations += ledger.expected_layer_evaluations;
            record.full_depth_evaluations += ledger.full_depth_evaluations;
            return ledger.loss;
        }

        [[nodiscard]] static double seconds_since(Clock::time_point start) {
            return std::chrono::duration<double>(Clock::now() - start).count();
        }
    };

    TrainerOptions options_;
};

}  // namespace stochastic_depth
