// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <stochastic_depth/models/resnet.hpp>

#include "image_settings.hpp"
#include "images.hpp"
#include "progress.hpp"
#include "rules.hpp"

/// A convolutional residual network is trained on images, as Huang et al. 2016 do it: SGD with
/// Nesterov's momentum; the learning rate falls to a tenth after a half and after three quarters of
/// the training. After each epoch it is tested, and a file is written that the training can go on
/// from. What takes a compiler long is in the source of the same name, for all programs.
namespace common {

using ImageNetwork = sd::ResNet<float>;

struct ImageTraining {
    ImageNetwork network;
    std::vector<ImageEpoch> history;
};

struct ImageTrainingOptions {
    unsigned threads = 1;
    /// Written after each epoch; empty: none.
    std::string checkpoint = {};
    /// Whether to go on from the checkpoint where it exists.
    bool resume = true;
    /// What to say before the epoch: "seed 0: ".
    std::string name = {};
};

/// Trains; one that goes on from its checkpoint gives the bits of one that was not interrupted.
/// \param on_epoch  Called after each epoch; empty: nothing is.
/// \throws UsageError  if the checkpoint is one of another training, or cannot be read.
[[nodiscard]] ImageTraining train_images(
    const Images& images, const ImageSettings& settings, const ImageTrainingOptions& options,
    Progress& progress, const std::function<void(const ImageTraining&)>& on_epoch = {});

/// What the rules come to on the test images.
[[nodiscard]] std::vector<Row> evaluate(const ImageNetwork& network, const sd::Dataset<float>& test,
                                        const EvaluationOptions& options, Progress& progress);

}  // namespace common
