// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include <stochastic_depth/all.hpp>

#include "../common/data.hpp"
#include "options.hpp"

namespace fashion_mnist {

namespace sd = stochastic_depth;

using common::classes;

/// x + relu(W x + b), skipped at random.
using Block = sd::StochasticDepth<sd::Residual<sd::Sequential<sd::Linear<float>, sd::ReLU<float>>>>;

/// Logits, [10 x batch], from images, [pixels x batch].
using Network =
    sd::Sequential<sd::Linear<float>, sd::Stack<Block>, sd::ReLU<float>, sd::Linear<float>>;

/// Class probabilities: the softmax stands inside, so that an expectation over masks is one of
/// probabilities and not of logits.
using Classifier = sd::Sequential<Network, sd::Softmax<float>>;

[[nodiscard]] inline Network make_network(sd::Index pixels, const Options& options) {
    sd::Philox random{options.seed};
    const sd::Linear<float> stem{pixels, options.width, random};
    const Eigen::VectorXd p = sd::linear_decay(options.depth, options.final_survival);
    std::vector<Block> blocks;
    for (sd::Index l = 0; l < options.depth; ++l) {
        // The deeper the network, the less each branch adds at first, so that 110 layers train too.
        const double gain = 1.0 / static_cast<double>(options.depth);
        const sd::Linear<float> linear{options.width, options.width, random, gain};
        blocks.emplace_back(sd::Residual{sd::Sequential{linear, sd::ReLU<float>{}}},
                            sd::SurvivalProbability{p(l)});
    }
    const sd::Linear<float> head{options.width, classes, random, 1.0};
    return Network{stem, sd::Stack<Block>{blocks}, sd::ReLU<float>{}, head};
}

}  // namespace fashion_mnist
