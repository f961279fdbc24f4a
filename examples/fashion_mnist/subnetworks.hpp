// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string>

#include "../common/progress.hpp"
#include "network.hpp"
#include "report.hpp"

namespace fashion_mnist {

/// The best network of each size that is left when layers are taken out, and what pairs of layers
/// do together, by the negative log-likelihood of the first test images under every mask.
/// \throws as mask_values does.
[[nodiscard]] inline Subnetworks subnetworks(const Network& network,
                                             const sd::Dataset<float>& test,
                                             const Options& options,
                                             common::Progress& progress) {
    constexpr sd::Index most_images = 1000;
    const sd::Index images = std::min(most_images, test.size());
    const sd::Matrix<float> x = test.inputs().leftCols(images);
    const Eigen::VectorXi labels = test.labels().head(images);
    progress.now("best sub-networks");
    const Classifier classifier{network, sd::Softmax<float>{}};
    const auto score = [&](const sd::ConstMatrixRef<float>& probabilities) {
        return -sd::negative_log_likelihood(probabilities, labels);
    };
    const Eigen::VectorXd values =
        sd::mask_values(classifier, x, score, {.threads = options.threads});

    Subnetworks found{.images = images, .best = {}, .pairs = {}};
    for (const sd::Subnetwork& best : sd::best_subnetworks(classifier, values).by_size)
        found.best.push_back({best.mask, -best.score,
                              sd::error_rate(masked_forward(classifier, x, best.mask), labels)});
    const Eigen::VectorXd interactions = sd::shapley_interactions(values);
    found.pairs.setZero(network.depth(), network.depth());
    for (sd::Index l = 0; l < network.depth(); ++l)
        for (sd::Index m = 0; m < network.depth(); ++m)
            if (l != m) found.pairs(l, m) = interactions(sd::Index{1} << l | sd::Index{1} << m);
    progress.done("best sub-networks: " + std::to_string(values.size()) + " masks, " +
                  std::to_string(images) + " images");
    return found;
}

}  // namespace fashion_mnist
