// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

#include "fashion_mnist/network.hpp"

/// The network of examples/fashion_mnist, trained as there, softmax inside.
[[nodiscard]] inline fashion_mnist::Classifier trained_classifier(
    const stochastic_depth::Dataset<float>& data, const fashion_mnist::Options& options) {
    namespace sd = stochastic_depth;
    auto network = fashion_mnist::make_network(data.features(), options);
    const auto rate = [&](double done) {
        return options.learning_rate * std::min(1.0, 20.0 * done + 0.01) * 0.5 *
               (1.0 + std::cos(std::numbers::pi * done));
    };
    sd::Trainer{{.batch_size = options.batch_size,
                 .epochs = options.epochs,
                 .optimizer = {.learning_rate = options.learning_rate,
                               .momentum = 0.9,
                               .nesterov = true,
                               .weight_decay = 5e-4},
                 .learning_rate = rate}}
        .fit(network, data, sd::SoftmaxCrossEntropy<float>{});
    return fashion_mnist::Classifier{network, sd::Softmax<float>{}};
}
