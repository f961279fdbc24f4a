// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <stochastic_depth/models/transformer.hpp>

#include "progress.hpp"
#include "rules.hpp"
#include "text_settings.hpp"
#include "texts.hpp"

/// A transformer is trained on texts: AdamW, gradients clipped to norm 1, the learning rate after a
/// warm-up falling as a cosine, batches of similar lengths. After each epoch it is tested, and a
/// file is written that the training can go on from. What takes a compiler long is in the source of
/// the same name, for all programs.
namespace common {

using TextNetwork = sd::TransformerClassifier<float>;

struct TextTraining {
    TextNetwork network;
    std::vector<TextEpoch> history;
};

struct TextTrainingOptions {
    unsigned threads = 1;
    /// Written after each epoch; empty: none.
    std::string checkpoint = {};
    /// Whether to go on from the checkpoint where it exists.
    bool resume = true;
    /// What to say before the epoch: "seed 0: ".
    std::string name = {};
};

/// As a training begins with.
/// \param vocabulary  Token ids.
/// \throws UsageError  if there is no such network.
[[nodiscard]] TextNetwork text_network(const TextSettings& settings, sd::Index vocabulary,
                                       sd::Index classes);

/// Trains; one that goes on from its checkpoint gives the bits of one that was not interrupted.
/// \param on_epoch  Called after each epoch; empty: nothing is.
/// \throws UsageError  if the checkpoint is one of another training, or cannot be read.
[[nodiscard]] TextTraining train_texts(
    const Texts& texts, const TextSettings& settings, const TextTrainingOptions& options,
    Progress& progress, const std::function<void(const TextTraining&)>& on_epoch = {});

/// What the rules come to on the test texts.
[[nodiscard]] std::vector<Row> evaluate(const TextNetwork& network, const sd::Dataset<float>& test,
                                        const EvaluationOptions& options, Progress& progress);

/// What the masks say of a text.
struct TextAnswer {
    /// Of each class: over the masks, the mean probability and its standard deviation.
    Eigen::VectorXd probabilities, deviations;
    /// In nats: how uncertain the class is, and how much of that is disagreement of the masks.
    double entropy = 0, mutual_information = 0;
    /// Whether all masks were asked, not a sample of them.
    bool is_exact = false;
};

/// All masks are asked where that takes at most 2^16 evaluations of layers, else 1000.
/// \param tokens  [positions x 1].
[[nodiscard]] TextAnswer answer(const TextNetwork& network, const sd::Matrix<float>& tokens,
                                unsigned threads);

}  // namespace common
