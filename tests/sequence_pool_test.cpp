// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/sequence/attention_pool.hpp>
#include <stochastic_depth/layers/sequence/sequence_pool.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/sequence/embedding.hpp>
#include <stochastic_depth/training/gradient_error.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>

#include "support/layer_contract.hpp"
#include "support/refusal.hpp"
#include "support/sequences.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

TEST_CASE("SequencePool: mean, first and last of what belongs to a sequence", "[sequence_pool]") {
    Philox random{1};
    for (int trial = 0; trial < 60; ++trial) {
        const Index width = whole(random, 1, 9), count = whole(random, 1, 8);
        const Embedding<double> embedding{{11, 8, width}, random};
        const auto pooling = static_cast<SequencePooling>(trial % 3);
        const Sequential network{embedding, SequencePool<double>{width, pooling}};
        const Sequences x = random_sequences(random, count, 4, 11);
        const Matrix<double> h = embedding(x.tokens), y = network(x.tokens);
        for (Index j = 0; j < 4; ++j)
            for (Index i = 0; i < width; ++i) {
                const Index length = x.length(j);
                double sum = 0;
                for (Index t = 0; t < length; ++t) sum += h(t * width + i, j);
                const double expected =
                    pooling == SequencePooling::mean ? sum / static_cast<double>(length)
                    : pooling == SequencePooling::first ? h(i, j)
                                                        : h((length - 1) * width + i, j);
                REQUIRE(y(i, j) == expected);
            }
        CHECK(gradient_error(network, x.tokens, SurvivalMask::all(0), MeanSquaredError<double>{},
                             random_matrix<double>(random, width, 4))
                  .largest < 1e-8);
    }
}

TEST_CASE("AttentionPool: a mean by learned weights, over what belongs to a sequence",
          "[sequence_pool]") {
    Philox random{2};
    for (int trial = 0; trial < 60; ++trial) {
        const Index width = whole(random, 1, 9), count = whole(random, 1, 8);
        const Embedding<double> embedding{{11, 8, width}, random};
        const Vector<double> query = 3 * random_matrix<double>(random, width, 1);
        const Sequential network{embedding, AttentionPool<double>{query}};
        const Sequences x = random_sequences(random, count, 4, 11);
        const Matrix<double> h = embedding(x.tokens), y = network(x.tokens);
        for (Index j = 0; j < 4; ++j) {
            std::vector<double> weights;
            double sum = 0;
            for (Index t = 0; t < x.length(j); ++t) {
                weights.push_back(std::exp(query.dot(h.col(j).segment(t * width, width)) /
                                           std::sqrt(static_cast<double>(width))));
                sum += weights.back();
            }
            Vector<double> expected = Vector<double>::Zero(width);
            for (Index t = 0; t < x.length(j); ++t)
                expected += weights[static_cast<std::size_t>(t)] / sum *
                            h.col(j).segment(t * width, width);
            CHECK((y.col(j) - expected).cwiseAbs().maxCoeff() < 1e-12);
        }
        CHECK(gradient_error(network, x.tokens, SurvivalMask::all(0), MeanSquaredError<double>{},
                             random_matrix<double>(random, width, 4))
                  .largest < 1e-8);
    }
}

TEST_CASE("Pools of sequences keep the layer contract", "[sequence_pool]") {
    Philox random{3};
    for (const auto pooling :
         {SequencePooling::mean, SequencePooling::first, SequencePooling::last})
        check_layer_contract("SequencePool", SequencePool<double>{3, pooling}, 12);
    check_layer_contract("AttentionPool",
                         AttentionPool<double>{Vector<double>(random_matrix<double>(random, 3, 1))},
                         12);
    check_layer_contract("AttentionPool", AttentionPool<double>{2}, 4);
}

TEST_CASE("Pools of sequences refuse sizes that don't fit, by name", "[sequence_pool]") {
    CHECK(refusal([] { SequencePool<double>{0}; }) ==
          "SequencePool: width must be at least 1, got 0");
    CHECK(refusal([] { AttentionPool<double>{0}; }) ==
          "AttentionPool: width must be at least 1, got 0");
    CHECK(refusal([] { AttentionPool<double>{Vector<double>(0)}; }) ==
          "AttentionPool: width must be at least 1, got 0");
    CHECK(refusal([] { (void)SequencePool<double>{3}.output_size(4); }) ==
          "SequencePool: input must have a multiple of 3 rows, got 4");
    CHECK(refusal([] { (void)AttentionPool<double>{3}.output_size(0); }) ==
          "AttentionPool: input must have a multiple of 3 rows, got 0");
    const AttentionPool<double> pool{3};
    const Matrix<double> x = Matrix<double>::Ones(6, 1), dy = Matrix<double>::Ones(3, 1);
    Matrix<double> y(3, 1), dx(6, 1);
    AttentionPool<double>::Cache cache;
    pool.forward(x, y, cache);
    AttentionPool<double>::Gradient gradient{Vector<double>::Zero(2)};
    CHECK(refusal([&] { pool.backward(x, dy, cache, gradient, dx); }) ==
          "AttentionPool: gradient must have 3 entries, got 2");
}

}  // namespace
