// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "../common/progress.hpp"
#include "network.hpp"
#include "report.hpp"

namespace fashion_mnist {

/// What each skippable layer does for the probability of the right class, mean over the first test
/// images, and for the error when it is removed alone. \throws as the expectations do.
[[nodiscard]] inline LayerImportance layer_importance(const Network& network,
                                                      const sd::Dataset<float>& test,
                                                      const Options& options,
                                                      common::Progress& progress) {
    constexpr sd::Index most_images = 1000;
    const sd::Index images = std::min(most_images, test.size());
    const auto x = test.inputs().leftCols(images);
    const Classifier classifier{network, sd::Softmax<float>{}};
    progress.now("importance of the layers");

    // The mean over the images of the label's probability, as a scalar of the outputs.
    sd::Matrix<float> slopes = sd::Matrix<float>::Zero(classes, images);
    for (sd::Index j = 0; j < images; ++j)
        slopes(test.labels()(j), j) = 1.0f / static_cast<float>(images);

    LayerImportance importance{.images = images, .layers = {}};
    const Eigen::VectorXd p = network.survival_probabilities();
    const auto by_p =
        sd::ExactSensitivity{{.threads = options.threads}}(classifier, x).by_layer.contract(slopes);
    const auto shapley =
        sd::shapley_values(classifier, x, {.threads = options.threads}).value.contract(slopes);
    const auto error = [&](const sd::Matrix<float>& logits) {
        return -sd::error_rate(logits, test.labels().head(images));
    };
    const auto lesions = sd::lesion_study(network, x, error, {.threads = options.threads});
    importance.full_error = -lesions.full_score;
    for (sd::Index l = 0; l < p.size(); ++l)
        importance.layers.push_back({p(l), by_p(l), shapley(l), -lesions.score_without(l)});
    progress.done("importance of the layers: " + std::to_string(images) + " images");
    return importance;
}

}  // namespace fashion_mnist
