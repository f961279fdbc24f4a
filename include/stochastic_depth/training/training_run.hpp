// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <stochastic_depth/random/shuffle.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/survival/time_schedules.hpp>
#include <stochastic_depth/text/lengths.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/training/optimizer.hpp>
#include <stochastic_depth/training/similar_lengths.hpp>
#include <stochastic_depth/training/step_options.hpp>
#include <stochastic_depth/training/trainer_options.hpp>
#include <stochastic_depth/training/training_step.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Who computes the steps of a training: this process alone.
struct StepsHere {
    template <class Network, class Loss>
    [[nodiscard]] auto step(const Network& network, const Loss& loss,
                            const TrainingStepOptions& options) const {
        return TrainingStep<Network, Loss>{network, loss, options};
    }
    /// Before anything is done with data, or with an optimizer: where several compute the steps, all
    /// of them must have the same.
    template <class Data>
    void check_same_data(const char*, const Data&) const {}
    template <class Network, class Optimizer>
    void check_same_optimizer(const Network&, const Optimizer&) const {}
};

/// One training of a Trainer: its epochs, each an order of the samples and a step for each batch.
/// What it is given outlives it.
template <class Network, class Loss, class Optimizer, class Steps>
class TrainingRun {
public:
    using Scalar = typename Network::Scalar;
    using Data = Dataset<Scalar, typename Loss::Targets>;

    TrainingRun(Network& network, const Data& data, const Loss& loss, const TrainerOptions& options,
                Optimizer& optimizer, const Steps& steps)
        : network_(network),
          data_(data),
          options_(options),
          optimizer_(optimizer),
          p_(network.survival_probabilities()),
          steps_((data.size() + options.batch_size - 1) / options.batch_size),
          training_step_(steps.step(network, loss,
                                    {options.mask_scope, options.scaling, options.seed,
                                     options.threads, options.law, options.shards})) {
        if (options.batching) lengths_ = lengths_of(data.inputs());
    }

    /// Steps of an epoch.
    [[nodiscard]] Index steps() const { return steps_; }

    EpochRecord epoch(Index epoch) {
        const auto start = Clock::now();
        const std::vector<Index> order = order_of(static_cast<std::uint64_t>(epoch));
        if constexpr (requires { training_step_.check_same(network_); })
            training_step_.check_same(network_);
        EpochRecord record;
        record.epoch = epoch;
        for (Index step = std::max(Index{0}, options_.first_step - epoch * steps_); step < steps_;
             ++step) {
            const Index first = step * options_.batch_size;
            const Index batch = std::min(options_.batch_size, data_.size() - first);
            const Index epochs = std::max(options_.epochs, options_.schedule_epochs);
            const TrainingTime time{epoch * steps_ + step, epochs * steps_};
            follow_schedules(time);
            inputs_.resize(data_.features(), batch);
            data_.resize_targets(targets_, batch);
            data_.gather(order, first, batch, inputs_, targets_);
            if (options_.augmentation) augment(epoch, order, first);
            if (options_.batching) cut_to_longest(inputs_, spare_);
            const double loss = run_step(time.step, record);
            record.loss += loss * static_cast<double>(batch) / static_cast<double>(data_.size());
            if (options_.on_step) options_.on_step({epoch, options_.epochs, step, steps_, loss});
        }
        record.seconds = seconds_since(start);
        return record;
    }

private:
    using Clock = std::chrono::steady_clock;

    /// The samples of an epoch, batch after batch.
    [[nodiscard]] std::vector<Index> order_of(std::uint64_t epoch) const {
        std::vector<Index> order = random_order(
            data_.size(), stream_key(options_.seed, StreamPurpose::shuffling, 1), epoch);
        if (options_.batching)
            sort_by_lengths(order, lengths_, options_.batch_size, *options_.batching,
                            stream_key(options_.seed, StreamPurpose::batch_order, 1), epoch);
        return order;
    }

    /// Of the batch that is at hand, whose samples begin at order[first].
    void augment(Index epoch, const std::vector<Index>& order, Index first) {
        spare_.resize(inputs_.rows(), inputs_.cols());
        options_.augmentation.apply<Scalar>(
            static_cast<std::uint64_t>(epoch),
            std::span(order).subspan(static_cast<std::size_t>(first),
                                     static_cast<std::size_t>(inputs_.cols())),
            inputs_, spare_);
        inputs_.swap(spare_);
    }

    void follow_schedules(const TrainingTime& time) {
        if (options_.learning_rate)
            optimizer_.set_learning_rate(options_.learning_rate(time.progress()));
        if (options_.survival)
            training_step_.set_survival_probabilities(options_.survival(p_, time));
    }

    /// Returns the loss; adds to the record what else the step came to.
    double run_step(Index step, EpochRecord& record) {
        const StepLedger ledger = training_step_.differentiate(network_, inputs_, targets_,
                                                               static_cast<std::uint64_t>(step));
        const auto start = Clock::now();
        detail::update(optimizer_, network_, training_step_.gradient(), training_step_.team());
        training_step_.finish(network_);
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

    Network& network_;
    const Data& data_;
    const TrainerOptions& options_;
    Optimizer& optimizer_;
    Eigen::VectorXd p_;
    Index steps_;
    decltype(std::declval<const Steps&>().step(std::declval<const Network&>(),
                                               std::declval<const Loss&>(),
                                               TrainingStepOptions{})) training_step_;
    Matrix<Scalar> inputs_;
    Matrix<Scalar> spare_;
    std::vector<Index> lengths_;  ///< of the sequences, where they decide on batches
    typename Loss::Targets targets_;
};

}  // namespace stochastic_depth::detail
