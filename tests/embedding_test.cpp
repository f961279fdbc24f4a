// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/sequence/embedding.hpp>

#include <cmath>
#include <limits>

#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/sequence/per_position.hpp>
#include <stochastic_depth/layers/sequence/sequence_pool.hpp>
#include <stochastic_depth/training/gradient_error.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"
#include "support/sequences.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

TEST_CASE("Embedding: the token's numbers and the position's, zeros behind the end",
          "[embedding]") {
    Philox random{1};
    for (int trial = 0; trial < 50; ++trial) {
        const Index width = whole(random, 1, 9), count = whole(random, 1, 8);
        const auto encoding = static_cast<PositionEncoding>(trial % 3);
        const Embedding<double> embedding{{11, 8, width, encoding}, random};
        const Sequences x = random_sequences(random, count, whole(random, 0, 5), 11);
        const Matrix<double> y = embedding(x.tokens);
        REQUIRE(y.rows() == width * count);
        for (Index j = 0; j < y.cols(); ++j)
            for (Index t = 0; t < count; ++t)
                for (Index i = 0; i < width; ++i) {
                    double expected = 0;
                    if (t < x.length(j)) {
                        expected = embedding.tokens()(i, static_cast<Index>(x.tokens(t, j)));
                        const double angle = static_cast<double>(t) /
                            std::pow(10000.0, static_cast<double>(i - i % 2) /
                                                  static_cast<double>(width));
                        if (encoding == PositionEncoding::learned)
                            expected += embedding.positions()(i, t);
                        if (encoding == PositionEncoding::sinusoidal)
                            expected += i % 2 == 0 ? std::sin(angle) : std::cos(angle);
                    }
                    REQUIRE(y(width * t + i, j) == expected);
                }
    }
}

TEST_CASE("Embedding: gradients by tokens and positions, of tokens that come again", "[embedding]") {
    Philox random{2};
    for (const auto encoding :
         {PositionEncoding::none, PositionEncoding::learned, PositionEncoding::sinusoidal}) {
        const Sequential network{Embedding<double>{{4, 6, 5, encoding}, random},
                                 PerPosition{5, Linear<double>{5, 3, random}},
                                 SequencePool<double>{3}};
        const Sequences x = random_sequences(random, 6, 4, 4);
        const GradientError error =
            gradient_error(network, x.tokens, SurvivalMask::all(0), MeanSquaredError<double>{},
                           random_matrix<double>(random, 3, 4));
        CAPTURE(error.where);
        CHECK(error.largest < 1e-8);
    }
}

TEST_CASE("Embedding: the gradient by token ids is zero", "[embedding]") {
    Philox random{3};
    const Embedding<float> embedding{{4, 3, 2}, random};
    Matrix<float> x(3, 2), y(6, 2), dx = Matrix<float>::Constant(3, 2, 7);
    x << 0, 3, 1, 2, -1, 0;
    Embedding<float>::Cache cache;
    embedding.forward(x, y, cache);
    auto gradient = embedding.zero_gradient();
    embedding.backward(x, y, cache, gradient, dx);
    CHECK((dx.array() == 0).all());
    CHECK(gradient.tokens.col(1) == y.col(0).segment(2, 2));
    CHECK(gradient.positions.col(2) == y.col(1).tail(2));
}

TEST_CASE("Embedding refuses ids that are no tokens, wherever they stand", "[embedding]") {
    Philox random{4};
    const Embedding<float> embedding{{4, 3, 2}, random};
    const auto with = [&](Index t, Index j, float id) {
        Matrix<float> x = Matrix<float>::Constant(3, 2, 1);
        x(t, j) = id;
        return refusal([&] { (void)embedding(x); });
    };
    const float inf = std::numeric_limits<float>::infinity();
    for (const float id : {4.0f, -2.0f, 1.5f, inf, -inf, std::nanf("")})
        for (const Index t : {0, 2}) {
            const std::string message = with(t, 1, id);
            CAPTURE(id, message);
            CHECK(message.find("Embedding: token must be an id below 4, got ") == 0);
            CHECK(message.find(t == 0 ? "at position 0 of sample 1" : "at position 2 of sample 1") !=
                  std::string::npos);
        }
    CHECK(with(0, 0, -1) ==
          "Embedding: token must be an id below 4, got -1 at position 0 of sample 0");
    CHECK(with(2, 0, -1) == "accepted");
    CHECK(with(0, 0, -0.0f) == "accepted");
    CHECK(refusal([&] { (void)embedding(Matrix<float>::Constant(2, 2, -1)); }) ==
          "Embedding: a sequence must have at least 1 token, sample 0 has none");
    CHECK(refusal([&] { (void)embedding(Matrix<float>::Zero(4, 1)); }) ==
          "Embedding: input must have 1 to 3 positions, got 4");
    CHECK(refusal([&] { (void)embedding(Matrix<float>::Zero(0, 1)); }) ==
          "Embedding: input must have 1 to 3 positions, got 0");
}

TEST_CASE("Embedding refuses options and tables that make none, and draws nothing then",
          "[embedding]") {
    Philox random{5};
    const Philox before = random;
    const auto of = [&](const EmbeddingOptions& options) {
        return refusal([&] { Embedding<double>(options, random); });
    };
    CHECK(of({0, 3, 2}) == "Embedding: vocabulary must lie in [1, 2^24], got 0");
    CHECK(of({(1 << 24) + 1, 3, 2}) ==
          "Embedding: vocabulary must lie in [1, 2^24], got 16777217");
    CHECK(of({4, 0, 2}) == "Embedding: positions must be at least 1, got 0");
    CHECK(of({4, 3, 0}) == "Embedding: width must be at least 1, got 0");
    CHECK(of({4, 3, -1}) == "Embedding: width must be at least 1, got -1");
    CHECK(random == before);
    using M = Matrix<double>;
    CHECK(refusal([] { Embedding<double>(M(2, 4), M(3, 4)); }) ==
          "Embedding: positions must have 2 rows, got 3");
    CHECK(refusal([] { Embedding<double>(M(2, 0), M(2, 4)); }) ==
          "Embedding: vocabulary must lie in [1, 2^24], got 0");
    CHECK(refusal([] { Embedding<double>(M(2, 4), M(2, 0)); }) ==
          "Embedding: positions must be at least 1, got 0");
    const Embedding<double> embedding{{4, 3, 2}, random};
    const M x = M::Zero(3, 1), dy = M::Zero(6, 1);
    M y(6, 1), dx(3, 1);
    Embedding<double>::Cache cache;
    embedding.forward(x, y, cache);
    auto gradient = embedding.zero_gradient();
    gradient.tokens.resize(2, 3);
    CHECK(refusal([&] { embedding.backward(x, dy, cache, gradient, dx); }) ==
          "Embedding: gradient by tokens must be [2 x 4], got [2 x 3]");
}

}  // namespace
