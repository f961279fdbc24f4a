// SPDX-License-Identifier: MIT
#include <stochastic_depth/pass/sequence_lengths.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/enumerate_masks.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/exact_gradient.hpp>
#include <stochastic_depth/expectation/mask_values.hpp>
#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/layers/composition/any_layer.hpp>
#include <stochastic_depth/layers/composition/concatenate.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/sequence/attention_pool.hpp>
#include <stochastic_depth/layers/sequence/embedding.hpp>
#include <stochastic_depth/layers/sequence/per_position.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/training/gradient_error.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/sequences.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

constexpr Index width = 4;
constexpr Index vocabulary = 9;
constexpr Index positions = 7;

Vector<double> query(Philox& random) { return random_matrix<double>(random, width, 1); }

auto block(Philox& random, double p) {
    return StochasticDepth{
        Residual{PerPosition{width, Sequential{Linear<double>{width, width, random},
                                               Tanh<double>{}}}},
        SurvivalProbability{p}};
}

/// Sequences in, two numbers out, which depend on the lengths by the pool.
auto network(Philox& random) {
    Embedding<double> embedding{{vocabulary, positions, width}, random};
    std::vector<decltype(block(random, 0.5))> blocks;
    for (const double p : {0.9, 0.6, 0.5, 0.75}) blocks.push_back(block(random, p));
    return Sequential{std::move(embedding), Stack{std::move(blocks)},
                      AttentionPool<double>{query(random)}, Linear<double>{width, 2, random}};
}

/// The columns of NN(x, S), each sequence alone and without padding.
template <class Network>
Matrix<double> one_by_one(const Network& net, const Sequences& x, const SurvivalMask& mask) {
    Matrix<double> y(net.output_size(positions), x.tokens.cols());
    for (Index j = 0; j < y.cols(); ++j) y.col(j) = net(x.alone(j), mask);
    return y;
}

/// Passes and trees of all kinds.
template <class Network>
void check_lengths(const Network& net, const Sequences& x) {
    const Index batch = x.tokens.cols();
    const auto table = enumerate_masks(net, x.tokens);
    const Eigen::VectorXd values = mask_values(
        net, x.tokens, [](const ConstMatrixRef<double>& y) { return y.sum(); });
    Matrix<double> mean = Matrix<double>::Zero(net.output_size(positions), batch);
    for (const auto& row : table) {
        const Matrix<double> expected = one_by_one(net, x, row.mask);
        REQUIRE(same_bits(row.output, expected));
        REQUIRE(same_bits(net(x.tokens, row.mask), expected));
        mean += row.probability * expected;
        Index bits = 0;
        for (Index l = 0; l < row.mask.size(); ++l) bits |= Index{row.mask[l]} << l;
        CHECK(std::abs(values(bits) - expected.sum()) < 1e-12);
    }
    for (const unsigned threads : {1u, 2u}) {
        const auto exact = ExactExpectation{{.threads = threads}}(net, x.tokens);
        CHECK((exact.mean - mean).cwiseAbs().maxCoeff() < 1e-12);
    }
    const auto sampled = MonteCarloExpectation{{.samples = 500, .seed = 3}}(net, x.tokens);
    CHECK((sampled.mean - mean).cwiseAbs().maxCoeff() < 0.3);

    const SurvivalMasks masks =
        MaskSampler{net.survival_probabilities(), 5}.sample(0, batch);
    const Matrix<double> together = net(x.tokens, masks);
    for (Index j = 0; j < batch; ++j)
        CHECK(same_bits(net(x.alone(j), masks.mask(j)).col(0), together.col(j)));
    const Matrix<double> targets = Matrix<double>::Constant(together.rows(), batch, 0.3);
    CHECK(gradient_error(net, x.tokens, masks, MeanSquaredError<double>{}, targets).largest < 1e-8);
}

TEST_CASE("SequenceLengths: repeated, cut and gathered", "[sequence_lengths]") {
    const Index numbers[] = {3, 1, 2};
    const detail::SequenceLengths none, lengths{numbers, 3};
    CHECK_FALSE(none);
    CHECK_FALSE(none.from_column(5));
    REQUIRE(lengths);
    for (Index j = 0; j < 12; ++j) {
        CHECK(lengths[j] == numbers[j % 3]);
        CHECK(lengths.from_column(j)[2] == numbers[(j + 2) % 3]);
        CHECK(lengths.from_column(j).from_column(4)[1] == numbers[(j + 5) % 3]);
    }
    const Index columns[] = {4, 0};
    Index room[2];
    const detail::SequenceLengths two = lengths.gathered(columns, 2, room);
    CHECK((two[0] == 1 && two[1] == 3));
    CHECK_FALSE(none.gathered(columns, 2, room));
}

TEST_CASE("Sequences of any length give in every pass and tree what each gives alone",
          "[sequence_lengths]") {
    Philox random{11};
    const auto net = network(random);
    for (const Index batch : {0, 1, 2, 5, 40}) {
        CAPTURE(batch);
        const Sequences x = random_sequences(random, positions, batch, vocabulary);
        if (batch > 0) check_lengths(net, x);
        else CHECK(net(x.tokens).cols() == 0);
    }
}

TEST_CASE("Lengths pass through layers side by side, nests, and layers whose type is erased",
          "[sequence_lengths]") {
    Philox random{12};
    const Sequences x = random_sequences(random, positions, 3, vocabulary);
    const auto nest = [&] {
        return StochasticDepth{Residual{Sequential{block(random, 0.5), block(random, 0.75)}},
                               SurvivalProbability{0.5}};
    };
    Embedding<double> embedding{{vocabulary, positions, width}, random};
    const auto way = [&] {
        return Sequential{block(random, 0.6), AttentionPool<double>{query(random)}};
    };
    // Both ways end in pools of their own.
    check_lengths(Sequential{embedding, nest(), way(), Linear<double>{width, 2, random}}, x);
    check_lengths(Sequential{embedding, nest(),
                             Residual{way(), AttentionPool<double>{query(random)}}}, x);
    check_lengths(Sequential{embedding, AnyLayer<double>{nest()}, AnyLayer<double>{way()}}, x);
    check_lengths(Sequential{AnyLayer<double>{embedding}, Residual{nest(), block(random, 0.5)},
                             AttentionPool<double>{query(random)}}, x);
}

TEST_CASE("ExactGradient: of sequences of different lengths, the mean over all masks",
          "[sequence_lengths]") {
    Philox random{13};
    const auto net = network(random);
    const Sequences x = random_sequences(random, positions, 5, vocabulary);
    const Matrix<double> targets = Matrix<double>::Constant(2, 5, 0.2);
    const MeanSquaredError<double> loss;
    auto exact = net.zero_gradient(), summed = net.zero_gradient();
    const double value =
        ExactGradient{}.of_expected_loss(net, x.tokens, targets, loss, exact);
    double expected = 0;
    for (const auto& row : enumerate_masks(net, x.tokens)) {
        typename decltype(net)::Gradient one = net.zero_gradient();
        detail::Tape tape;
        detail::RecordOf<std::remove_cvref_t<decltype(net)>, detail::Records> record;
        detail::Batch<double, detail::Records> batch(detail::Team::alone(), tape,
                                                     detail::const_view(x.tokens));
        detail::run(net, batch, record, detail::MaskView{row.mask});
        Matrix<double> slopes(2, 5);
        expected += row.probability * loss.value_and_gradient(batch.current(), targets, slopes);
        slopes *= row.probability;
        detail::SparePiece spare;
        detail::GradientBatch<double> back(detail::Team::alone(), {&spare},
                                           detail::const_view(slopes));
        detail::backpropagate(net, back, record, one, detail::Discard{});
        detail::visit_parameters(
            net, [](const char*, const auto&, const auto& from, auto& to) { to += from; }, one,
            summed);
    }
    CHECK(std::abs(value - expected) < 1e-12);
    double largest = 0;
    detail::visit_parameters(
        net,
        [&](const char*, const auto&, const auto& a, const auto& b) {
            largest = std::max(largest, (a - b).cwiseAbs().maxCoeff());
        },
        exact, summed);
    CHECK(largest < 1e-12);
}

}  // namespace
