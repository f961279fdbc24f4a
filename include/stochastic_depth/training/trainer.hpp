// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/reached_layers.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/training/early_stopping.hpp>
#include <stochastic_depth/training/loss.hpp>
#include <stochastic_depth/training/optimizer.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/trainer_options.hpp>
#include <stochastic_depth/training/training_run.hpp>
#include <stochastic_depth/training/validation_loss.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// A network that Trainer::fit takes.
template <class Network>
concept TrainedByTrainer =
    !std::is_const_v<Network> && MaskedNetwork<Network> && DifferentiableLayer<Network>;

/// The data that a network is trained on by a loss.
template <class Network, class Loss>
using DataFor = Dataset<typename Network::Scalar, typename Loss::Targets>;

/// Trains a network with stochastic depth: in each step the layers that the masks skip cost
/// nothing, in the forward pass, in the backward pass and in the update.
///
/// The order of the samples is a function of seed and epoch, the masks of seed and step: step s of
/// the training, counted over all epochs from 0, uses `MaskSampler{p, seed}.sample(s)` or
/// `.sample(s, batch)`, or `FixedSizeMaskSampler`'s, or under a law `LawMaskSampler`'s. An
/// augmentation is one of epoch and sample. Sequences may be batched by their lengths
/// (TrainerOptions::batching). With Scaling::none outputs are not rescaled: the network at test time
/// is f_SD, not full depth.
///
/// \source Huang et al. 2016, Deep Networks with Stochastic Depth, Section 3.
///
/// \tparam Steps  Who computes the steps: for `Trainer` this process alone, for DataParallelTrainer
///                many ranks of MPI.
template <class Steps>
class BasicTrainer {
public:
    BasicTrainer() = default;

    /// \throws std::invalid_argument  if an option lies outside its range.
    explicit BasicTrainer(TrainerOptions options, Steps steps = {})
        : options_(std::move(options)), steps_(std::move(steps)) {
        if (options_.batch_size < 1)
            detail::refuse("Trainer: batch_size must be at least 1, got ", options_.batch_size);
        if (options_.epochs < 0)
            detail::refuse("Trainer: epochs must be at least 0, got ", options_.epochs);
        if (options_.schedule_epochs != 0 && options_.schedule_epochs < options_.epochs)
            detail::refuse("Trainer: schedule_epochs must be 0 or at least epochs = ",
                           options_.epochs, ", got ", options_.schedule_epochs);
        if (options_.first_step < 0)
            detail::refuse("Trainer: first_step must be at least 0, got ", options_.first_step);
        if (options_.threads < 1) detail::refuse("Trainer: threads must be at least 1, got 0");
        if (options_.shards < 0)
            detail::refuse("Trainer: shards must be at least 0, got ", options_.shards);
        if (options_.law && options_.survival)
            detail::refuse("Trainer: survival must be none where there is a law, got both");
        if (options_.batching && options_.batching->window < 1)
            detail::refuse("Trainer: window of batching must be at least 1, got ",
                           options_.batching->window);
        if (options_.early_stopping) (void)EarlyStopping{*options_.early_stopping};
    }

    /// Trains with an optimizer of the options, Sgd, or with one that is given:
    ///
    ///     Trainer{{.epochs = 20}}.fit(network, data, loss, Adam{network});
    ///
    /// \param network    Trained in place.
    /// \param data       At least one sample, of as many features as the network takes.
    /// \param loss       SoftmaxCrossEntropy, MeanSquaredError, or another (LossOf).
    /// \param optimizer  Sgd, Adam, AdamW or another; one that outlives the call keeps its state,
    ///                   and the next call goes on from there.
    /// \returns          A record for each epoch, of the steps that were done here.
    /// \throws std::invalid_argument  if the data doesn't fit, or an optimizer option is out of
    ///                                range; the network is unchanged then.
    /// \throws std::runtime_error     if a batch's loss is not finite; the network is as the step
    ///                                before left it.
    template <TrainedByTrainer Network, LossOf<typename Network::Scalar> Loss>
    std::vector<EpochRecord> fit(Network& network, const DataFor<Network, Loss>& data,
                                 const Loss& loss) const {
        return fit(network, data, loss, Sgd<Network>{network, options_.optimizer});
    }
    template <TrainedByTrainer Network, LossOf<typename Network::Scalar> Loss, class Optimizer>
        requires(OptimizerOf<std::remove_reference_t<Optimizer>, Network>)
    std::vector<EpochRecord> fit(Network& network, const DataFor<Network, Loss>& data,
                                 const Loss& loss, Optimizer&& optimizer) const {
        if (options_.early_stopping)
            detail::refuse("Trainer: early_stopping needs validation data, got none");
        return train(network, data, loss, optimizer, nullptr);
    }

    /// The same with validation data: after each epoch the mean loss over them is taken as the
    /// network is used, by weight scaling, or at full depth after Scaling::inverted. (By another
    /// rule, in `on_epoch`: exact, sampled, another measure.)
    ///
    /// \param validation  At least one sample. Not trained on.
    /// \complexity        One pass over the validation data for each epoch more.
    template <TrainedByTrainer Network, LossOf<typename Network::Scalar> Loss>
    std::vector<EpochRecord> fit(Network& network, const DataFor<Network, Loss>& data,
                                 const Loss& loss,
                                 const DataFor<Network, Loss>& validation) const {
        return fit(network, data, loss, Sgd<Network>{network, options_.optimizer}, validation);
    }
    template <TrainedByTrainer Network, LossOf<typename Network::Scalar> Loss, class Optimizer>
        requires(OptimizerOf<std::remove_reference_t<Optimizer>, Network>)
    std::vector<EpochRecord> fit(Network& network, const DataFor<Network, Loss>& data,
                                 const Loss& loss, Optimizer&& optimizer,
                                 const DataFor<Network, Loss>& validation) const {
        check_data("validation", network, validation, loss);
        const Eigen::VectorXd p =
            options_.law ? detail::reached_layers(network, options_.law.with_seed(options_.seed))
                               .survival_probabilities
                         : network.survival_probabilities();
        EarlyStopping stopping{options_.early_stopping.value_or(EarlyStoppingOptions{})};
        auto history = train(network, data, loss, optimizer, [&](EpochRecord& record) {
            record.validation_loss =
                detail::validation_loss(network, validation, loss, options_.scaling, p,
                                        options_.batching);
            return !options_.early_stopping || stopping.goes_on(network, record.validation_loss);
        });
        if (options_.early_stopping) stopping.restore(network);
        return history;
    }

    /// Said here, and not deep in an update of parameters.
    template <class Network, class... Others>
        requires(std::is_const_v<Network>)
    std::vector<EpochRecord> fit(Network&, const Others&...) const {
        static_assert(!std::is_const_v<Network>,
                      "Trainer::fit trains the network in place: it must not be const");
        return {};
    }

private:
    template <class Network, class Data, class Loss>
    void check_data(const char* name, const Network& network, const Data& data,
                    const Loss& loss) const {
        steps_.check_same_data(name, data);
        if (data.size() < 1)
            detail::refuse("Trainer: ", name, " must have at least 1 sample, got 0");
        detail::check_targets(loss, network.output_size(data.features()), data.targets());
    }

    /// \param after_epoch  Completes the record, and says whether to go on; may be null.
    template <class Network, class Data, class Loss, class Optimizer>
    std::vector<EpochRecord> train(Network& network, const Data& data, const Loss& loss,
                                   Optimizer& optimizer,
                                   const std::function<bool(EpochRecord&)>& after_epoch) const {
        check_data("data", network, data, loss);
        options_.augmentation.check_takes<typename Network::Scalar>();
        steps_.check_same_optimizer(network, optimizer);
        detail::TrainingRun<Network, Loss, Optimizer, Steps> run{network,  data,      loss,
                                                                 options_, optimizer, steps_};
        std::vector<EpochRecord> history;
        bool goes_on = true;
        for (Index epoch = options_.first_step / run.steps(); goes_on && epoch < options_.epochs;
             ++epoch) {
            EpochRecord& record = history.emplace_back(run.epoch(epoch));
            if (after_epoch) goes_on = after_epoch(record);
            if (options_.on_epoch) goes_on = options_.on_epoch(record) && goes_on;
        }
        return history;
    }

    TrainerOptions options_;
    [[no_unique_address]] Steps steps_;
};

using Trainer = BasicTrainer<detail::StepsHere>;

}  // namespace stochastic_depth
