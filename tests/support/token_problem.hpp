// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/models/transformer.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/types.hpp>

#include "support/gradient_networks.hpp"
#include "support/sequences.hpp"

namespace stochastic_depth::test {

/// A small transformer of 3 classes, and a batch of so many sequences of up to 40 tokens: more tokens
/// than go through the network at once.
struct TokenProblem {
    Philox random{3};
    TransformerClassifier<double> network = transformer_classifier<double>({.vocabulary = 11,
                                                                            .positions = 40,
                                                                            .width = 8,
                                                                            .heads = 2,
                                                                            .feed_forward = 12,
                                                                            .blocks = 2,
                                                                            .classes = 3},
                                                                           random);
    Matrix<double> x;
    Eigen::VectorXi labels;

    explicit TokenProblem(Index sequences)
        : x(random_sequences(random, 40, sequences, 11).tokens),
          labels(random_labels(random, sequences, 3)) {}
};

}  // namespace stochastic_depth::test
