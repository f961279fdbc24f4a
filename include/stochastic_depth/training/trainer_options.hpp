// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>

#include <stochastic_depth/survival/any_mask_law.hpp>
#include <stochastic_depth/survival/scaling.hpp>
#include <stochastic_depth/survival/time_schedules.hpp>
#include <stochastic_depth/training/any_augmentation.hpp>
#include <stochastic_depth/training/early_stopping.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/similar_lengths.hpp>
#include <stochastic_depth/training/step_options.hpp>
#include <stochastic_depth/types.hpp>

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
    Index epoch = 0;  ///< from 0
    /// Mean training loss over the samples, under the masks that they were trained with.
    double loss = 0;
    /// Mean loss over the validation data after the epoch; NaN without such data.
    double validation_loss = std::numeric_limits<double>::quiet_NaN();
    /// Of training, without validation.
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
    /// Epochs of the whole training, by which schedules go, where this call is to train a part of
    /// it: at least `epochs`; 0: `epochs`. (A call that ends early by `on_epoch` needs none.)
    Index schedule_epochs = 0;
    /// Steps of the training that are done already, counted over all epochs: those of a training
    /// that goes on from a file (training_checkpoint.hpp).
    Index first_step = 0;
    /// Fixes the order of the samples and the masks.
    std::uint64_t seed = 0;
    MaskScope mask_scope = MaskScope::sample;
    Scaling scaling = Scaling::none;
    /// Where masks come from, as TrainingStepOptions::law; `survival` is none then.
    AnyMaskLaw law = {};
    /// At least 1. Their number changes no bit.
    unsigned threads = 1;
    /// Parts of a batch that one thread each computes alone, as TrainingStepOptions::shards.
    Index shards = 0;
    /// What is done to the inputs of each batch, from epoch and sample: ImageAugmentation, or a type
    /// of one's own (AugmentationOf). It has a seed of its own; validation data are not augmented.
    AnyAugmentation augmentation = {};
    /// Batches of sequences of similar lengths, cut to their longest ones, where the inputs are
    /// token ids; none: batches of random samples with all their rows. The loss over validation
    /// data is then taken in blocks of similar lengths too.
    std::optional<SimilarLengths> batching = std::nullopt;
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
    /// Called after each epoch; false ends the training.
    std::function<bool(const EpochRecord&)> on_epoch = nullptr;
    /// Ends the training when the validation loss no longer falls; the network is then, and at the
    /// end of the training too, that of the best epoch. Needs validation data.
    std::optional<EarlyStoppingOptions> early_stopping = std::nullopt;
};

}  // namespace stochastic_depth
