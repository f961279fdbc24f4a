// SPDX-License-Identifier: MIT
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/distributed/agreed_numbers.hpp>
#include <stochastic_depth/distributed/communicator.hpp>
#include <stochastic_depth/distributed/data_parallel.hpp>
#include <stochastic_depth/distributed/same_training.hpp>
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/training/resumable_optimizer.hpp>
#include <stochastic_depth/training/step_options.hpp>
#include <stochastic_depth/training/trainer.hpp>
#include <stochastic_depth/training/trainer_options.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {
namespace detail {

/// Who computes the steps of a training: the ranks of a communicator.
class StepsOnRanks {
public:
    explicit StepsOnRanks(std::shared_ptr<const Communicator> ranks) : ranks_(std::move(ranks)) {}

    template <class Network, class Loss>
    [[nodiscard]] auto step(const Network& network, const Loss& loss,
                            const TrainingStepOptions& options) const {
        return DataParallel<Network, Loss>{network, loss, options, ranks_->get()};
    }

    template <class Data>
    void check_same_data(const char* name, const Data& data) const {
        const std::string who(name);
        check_agreement(*ranks_,
                        {{who + "'s number of samples", message(data.size())},
                         {who + "'s number of features", message(data.features())},
                         {who + "'s hash of inputs", message(hash_of_numbers(data.inputs()))},
                         {who + "'s hash of targets", message(hash_of_numbers(data.targets()))}});
    }

    /// Of an optimizer that a file could hold; of others nothing is known.
    template <class Network, class Optimizer>
    void check_same_optimizer(const Network& network, const Optimizer& optimizer) const {
        if constexpr (ResumableOptimizer<Optimizer>) {
            check_agreement(*ranks_, {{"the optimizer", std::string(Optimizer::name)}});
            std::vector<AgreedValue> values{
                {"learning_rate", message(static_cast<double>(optimizer.options().learning_rate))}};
            optimizer.visit_options([&](const char* name, const auto& option) {
                values.push_back({name, option_text(option)});
            });
            std::vector<std::uint8_t> state;
            ByteWriter writer{state};
            write_optimizer_state(writer, network, optimizer);
            values.push_back({"the hash of the optimizer's state", message(fnv1a(state))});
            check_agreement(*ranks_, values);
        }
    }

private:
    std::shared_ptr<const Communicator> ranks_;
};

/// The same on every rank, and with callbacks that all ranks hear of.
[[nodiscard]] inline TrainerOptions options_on_ranks(
    TrainerOptions options, const std::shared_ptr<const Communicator>& ranks) {
    const auto numbers = [](const std::optional<SimilarLengths>& batching) {
        return batching ? message("windows of ", batching->window) : std::string("none");
    };
    const auto has = [](bool some) { return std::string(some ? "given" : "none"); };
    check_agreement(*ranks, {{"batch_size", message(options.batch_size)},
                             {"epochs", message(options.epochs)},
                             {"schedule_epochs", message(options.schedule_epochs)},
                             {"first_step", message(options.first_step)},
                             {"seed", message(options.seed)},
                             {"batching", numbers(options.batching)},
                             {"augmentation", has(static_cast<bool>(options.augmentation))},
                             {"learning_rate", has(options.learning_rate != nullptr)},
                             {"survival", has(options.survival != nullptr)},
                             {"on_step", has(options.on_step != nullptr)},
                             {"on_epoch", has(options.on_epoch != nullptr)},
                             {"early_stopping", has(options.early_stopping.has_value())}});
    if (options.on_step)
        options.on_step = [ranks,
                           on_step = std::move(options.on_step)](const TrainingProgress& progress) {
            together(*ranks, [&] { on_step(progress); });
        };
    if (options.on_epoch)
        options.on_epoch = [ranks,
                            on_epoch = std::move(options.on_epoch)](const EpochRecord& record) {
            int goes_on = 1;
            together(*ranks, [&] { goes_on = on_epoch(record) ? 1 : 0; });
            check_mpi("MPI_Allreduce",
                      MPI_Allreduce(MPI_IN_PLACE, &goes_on, 1, MPI_INT, MPI_MIN, ranks->get()));
            return goes_on != 0;
        };
    return options;
}

}  // namespace detail

/// A Trainer whose batches are shared by the ranks of MPI (DataParallel):
///
///     DataParallelTrainer{{.epochs = 20}, MPI_COMM_WORLD}.fit(network, data, loss);
///
/// Every rank has the network, the data, and the same options, and calls `fit` at the same time; it
/// then has the same network and the same history, whatever the number of ranks. Validation data
/// are evaluated by each rank as a whole.
///
/// `on_step` and `on_epoch` are called on every rank: what is to be done once, such as writing a
/// checkpoint, only rank 0 does. An exception of theirs on one rank is one on all, and false of
/// `on_epoch` on one rank ends the training on all. Functions in the options, which cannot be
/// compared, must compute the same everywhere; the networks are compared before each epoch.
class DataParallelTrainer : public BasicTrainer<detail::StepsOnRanks> {
public:
    /// Collective, as is `fit`.
    /// \param ranks  As DataParallel's.
    /// \throws std::invalid_argument  if an option lies outside its range, or is not the same on
    ///                                every rank, naming it.
    DataParallelTrainer(TrainerOptions options, MPI_Comm ranks)
        : DataParallelTrainer(
              std::move(options),
              std::make_shared<const detail::Communicator>("DataParallelTrainer", ranks)) {}

private:
    DataParallelTrainer(TrainerOptions options,
                        const std::shared_ptr<const detail::Communicator>& ranks)
        : BasicTrainer(detail::options_on_ranks(std::move(options), ranks),
                       detail::StepsOnRanks{ranks}) {}
};

}  // namespace stochastic_depth
