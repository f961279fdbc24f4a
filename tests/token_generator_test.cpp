// SPDX-License-Identifier: MIT
#include <stochastic_depth/models/token_generator.hpp>

#include <cmath>
#include <string>
#include <vector>

#include <stochastic_depth/models/transformer.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/sequence_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"
#include "support/sequences.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

constexpr Index vocabulary = 11;

template <class Scalar>
auto language_model(Philox& random, bool rotary, Index positions = 20) {
    return transformer_language_model<Scalar>(
        {.vocabulary = vocabulary,
         .positions = positions,
         .width = 8,
         .heads = 2,
         .feed_forward = 12,
         .blocks = 3,
         .encoding = rotary ? PositionEncoding::none : PositionEncoding::learned,
         .rotary = rotary},
        random);
}

/// The scores behind each sequence's last token, by a pass of the whole.
template <class Network, class Scalar>
Matrix<Scalar> whole_pass(const Network& network, const Matrix<Scalar>& tokens,
                          const SurvivalMask& mask) {
    Matrix<Scalar> scores(vocabulary, tokens.cols());
    for (Index j = 0; j < tokens.cols(); ++j) {
        Index length = tokens.rows();
        while (tokens(length - 1, j) == Scalar(-1)) --length;
        const Matrix<Scalar> alone = tokens.col(j).head(length);
        scores.col(j) = network(alone, mask).col(0).tail(vocabulary);
    }
    return scores;
}

TEMPLATE_TEST_CASE("TokenGenerator: scores are those of the whole sequences, whatever came when",
                   "[token_generator]", float, double) {
    using Scalar = TestType;
    Philox random{1};
    for (const bool rotary : {false, true}) {
        const auto network = language_model<Scalar>(random, rotary);
        for (int trial = 0; trial < 10; ++trial) {
            SurvivalMask mask = SurvivalMask::none(6);
            for (Index l = 0; l < 6; ++l)
                if (uniform<double>(random) < 0.7) mask.keep(l);
            TokenGenerator generator{network, 3, mask};
            for (int call = 0; call < 4; ++call) {
                const Matrix<Scalar> more =
                    random_sequences(random, whole(random, 1, 5), 3, vocabulary)
                        .tokens.template cast<Scalar>();
                const Matrix<Scalar> scores = generator.append(more);
                REQUIRE(same_bits(scores, whole_pass(network, generator.tokens(), mask)));
            }
        }
    }
}

TEST_CASE("TokenGenerator: each token may have a depth of its own", "[token_generator]") {
    Philox random{2};
    const auto network = language_model<float>(random, false);
    TokenGenerator generator{network, 2, SurvivalMask::all(6)};
    const Matrix<float> token = Matrix<float>::Constant(1, 2, 3);
    for (const SurvivalMask& mask :
         {SurvivalMask{1, 1, 0, 0, 0, 0}, SurvivalMask::all(6), SurvivalMask{0, 0, 1, 1, 0, 1},
          SurvivalMask{0, 0, 1, 1, 0, 1}, SurvivalMask::none(6)}) {
        generator.set_mask(mask);
        (void)generator.append(token);
        CHECK(same_bits(generator.scores(), whole_pass(network, generator.tokens(), mask)));
    }
    generator.set_mask(SurvivalMask::all(6));
    CHECK(same_bits(generator.scores(),
                    whole_pass(network, generator.tokens(), SurvivalMask::all(6))));
}

TEST_CASE("TokenGenerator: a refused call changes nothing", "[token_generator]") {
    Philox random{3};
    const auto network = language_model<double>(random, false, 4);
    TokenGenerator generator{network, 2, SurvivalMask::all(6)};
    CHECK(refusal([&] { (void)generate(generator); }) ==
          "generate: generator must have tokens to go on from");
    Matrix<double> prompt(2, 2);
    prompt << 1, 2, 3, -1;
    (void)generator.append(prompt);
    const Matrix<double> scores = generator.scores(), tokens = generator.tokens();
    const auto refused = [&](const Matrix<double>& more) {
        const std::string message = refusal([&] { (void)generator.append(more); });
        CHECK(same_bits(generator.scores(), scores));
        CHECK(same_bits(generator.tokens(), tokens));
        CHECK((generator.length(0) == 2 && generator.length(1) == 1));
        return message;
    };
    using M = Matrix<double>;
    CHECK(refused(M::Zero(3, 2)) == "Embedding: input must have 1 to 4 positions, got 5");
    CHECK(refused(M::Zero(1, 3)) == "TokenGenerator: tokens must have 2 columns, got 3");
    CHECK(refused(M::Constant(1, 2, 11)) ==
          "Embedding: token must be an id below 11, got 11 at position 0 of sample 0");
    CHECK(refused(M::Constant(1, 2, -1)) ==
          "Embedding: a sequence must have at least 1 token, sample 0 has none");
    CHECK(refusal([&] { generator.set_mask(SurvivalMask::all(5)); }) ==
          "TokenGenerator: mask must have 6 layers, got 5");
    CHECK(refusal([&] { TokenGenerator(network, 0, SurvivalMask::all(6)); }) ==
          "TokenGenerator: sequences must be at least 1, got 0");
    CHECK(refusal([&] { (void)generate(generator, {.tokens = -1}); }) ==
          "generate: tokens must be at least 0, got -1");
    CHECK(refusal([&] { (void)generate(generator, {.temperature = -0.5}); }) ==
          "generate: temperature must be finite and at least 0, got -0.5");
    // And it goes on as if nothing had been.
    (void)generator.append(M::Constant(2, 2, 5));
    CHECK(same_bits(generator.scores(),
                    whole_pass(network, generator.tokens(), SurvivalMask::all(6))));
}

TEST_CASE("generate: tokens by their probabilities, a function of seed, sequence and position",
          "[token_generator]") {
    Philox random{4};
    const auto network = language_model<double>(random, false, 9);
    const auto draw = [&](double temperature, std::uint64_t seed, Index count) {
        TokenGenerator generator{network, 400, SurvivalMask::all(6)};
        (void)generator.append(Matrix<double>::Constant(2, 400, 7));
        return generate(generator,
                        {.tokens = count, .temperature = temperature, .seed = seed});
    };
    const Matrix<double> one = draw(1, 5, 1), more = draw(1, 5, 4);
    CHECK(one.rows() == 3);
    CHECK(more.rows() == 6);
    CHECK(same_bits(more.topRows(3), one));
    CHECK_FALSE(same_bits(draw(1, 6, 1), one));
    const Vector<double> scores =
        whole_pass(network, Matrix<double>(Matrix<double>::Constant(2, 1, 7)),
                   SurvivalMask::all(6));
    for (const double temperature : {0.3, 1.0}) {
        const Vector<double> weights = (scores / temperature).array().exp();
        const Matrix<double> drawn = draw(temperature, 5, 1);
        for (Index k = 0; k < vocabulary; ++k) {
            const double p = weights(k) / weights.sum();
            const auto count =
                static_cast<double>((drawn.row(2).array() == static_cast<double>(k)).count());
            // Five standard deviations: one false alarm in a million.
            CHECK(std::abs(count - 400 * p) <= 5 * std::sqrt(400 * p * (1 - p)) + 1);
        }
    }
    Index most = 0;
    scores.maxCoeff(&most);
    CHECK((draw(0, 5, 1).row(2).array() == static_cast<double>(most)).all());
}

TEST_CASE("A language model learns to count, and goes on counting", "[token_generator]") {
    Philox random{6};
    auto network = language_model<float>(random, true);
    Matrix<float> tokens(12, 11);
    for (Index j = 0; j < 11; ++j)
        for (Index t = 0; t < 12; ++t) tokens(t, j) = static_cast<float>((t + j) % 11);
    const Eigen::MatrixXi next = next_tokens(tokens);
    TrainingStep step{network, SequenceCrossEntropy<float>{}, {.seed = 1}};
    AdamW optimizer{network, {.learning_rate = 0.01}};
    for (std::uint64_t t = 0; t < 200; ++t) {
        (void)step.differentiate(network, tokens, next, t);
        optimizer.step(network, step.gradient());
        step.finish(network);
    }
    TokenGenerator generator{network, 1, SurvivalMask::all(6)};
    (void)generator.append(Matrix<float>::Constant(1, 1, 4));
    const Matrix<float> counted = generate(generator, {.tokens = 10, .temperature = 0});
    for (Index t = 0; t < 11; ++t) CHECK(counted(t, 0) == static_cast<float>((4 + t) % 11));
}

}  // namespace
