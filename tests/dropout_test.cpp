// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/elementwise/dropout.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/threads/thread_team.hpp>
#include <stochastic_depth/training/gradient_error.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/layer_contract.hpp"
#include "support/layers.hpp"
#include "support/recorded_pass.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// Whether an entry is dropped, from the definition: U < rate, digit by digit, where digit 2 b and
/// 2 b + 1 of feature 64 w + k are bits k of the halves of Philox block (1024 w + b, sample) under
/// the key of seed, step and layer.
bool is_dropped(double rate, std::uint64_t seed, std::uint64_t step, std::uint32_t layer,
                std::uint32_t sample, std::uint32_t feature) {
    using Block = std::array<std::uint32_t, 4>;
    const auto low = [](std::uint64_t word) { return static_cast<std::uint32_t>(word); };
    const auto high = [](std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); };
    const Block of_seed = philox4x32_10({low(seed), high(seed), 0, 0}, {7, 1});
    const Block of_step =
        philox4x32_10({low(step), high(step), layer, 0}, {of_seed[0], of_seed[1]});
    for (std::uint32_t digit = 0; digit < 1080; ++digit) {
        const Block words = philox4x32_10({feature / 64 * 1024 + digit / 2, sample, 0, 0},
                                          {of_step[0], of_step[1]});
        const std::uint32_t bit = feature % 64;
        const bool u = (words[2 * (digit % 2) + bit / 32] >> (bit % 32) & 1u) != 0;
        rate *= 2;
        const bool r = rate >= 1;
        if (r) rate -= 1;
        if (u != r) return r;
        if (rate == 0) return false;
    }
    return false;
}

/// Drops in step `step` of a recorded pass.
template <class Network>
Matrix<typename Network::Scalar> in_step(const Network& network, Matrix<typename Network::Scalar> h,
                                         const SurvivalMasks& masks, std::uint64_t seed,
                                         std::uint64_t step,
                                         const detail::Team& team = detail::Team::alone()) {
    detail::StepContext draw;
    draw.seed = seed;
    draw.step = step;
    RecordedPass<Network> pass(team);
    pass.forward(network, h, detail::MaskView{masks, &draw});
    return h;
}

SurvivalMasks no_layers(Index batch) { return SurvivalMasks{0, batch}; }

TEST_CASE("Dropout keeps the layer contract", "[dropout]") {
    for (const Index size : {1, 3, 70}) check_layer_contract("Dropout", Dropout<double>{0.4}, size);
    check_layer_contract("Dropout", Dropout<float>{0.0}, 5);
    static_assert(ElementwiseLayer<Dropout<float>> && DifferentiableLayer<Dropout<double>>);
}

TEST_CASE("Dropout: a step drops what the definition says, and divides the rest", "[dropout]") {
    Philox random{1};
    for (const double rate : {0.5, 0.1, 0.75, 1 / 3.0, 0.99}) {
        const std::uint64_t seed = 0x123456789abcdef0, step = 0xfedcba987;
        const Sequential network{Dropout<double>{rate}, Dropout<double>{rate}};
        const Matrix<double> x = random_matrix<double>(random, 131, 9);
        const Matrix<double> y = in_step(network, x, no_layers(9), seed, step);
        const double scale = 1 / (1 - rate);
        for (std::uint32_t j = 0; j < 9; ++j)
            for (std::uint32_t i = 0; i < 131; ++i) {
                CAPTURE(rate, i, j);
                double expected = x(i, j);
                for (const std::uint32_t layer : {0u, 1u})
                    expected = is_dropped(rate, seed, step, layer, j, i) ? 0 : scale * expected;
                CHECK(y(i, j) == expected);
            }
    }
}

TEST_CASE("Dropout: shares are those of independent entries with the given rate", "[dropout]") {
    // n = 200 x 1000 entries: the share has sigma = sqrt(rate (1 - rate) / n). Products of the
    // deviations of two entries (neighbours in a column, in a row, in steps, in layers) have mean 0
    // and sigma rate (1 - rate) / sqrt(n). All within 6 sigma: false alarms 2e-9 each.
    const Index features = 200, batch = 1000;
    const double n = 200 * 1000, rate = 0.3, variance = rate * (1 - rate);
    const Matrix<double> ones = Matrix<double>::Ones(features, batch);
    const auto deviation = [&](const Matrix<double>& y) {
        return Matrix<double>((y.array() == 0).cast<double>() - rate);
    };
    const Dropout<double> layer{rate};
    const Matrix<double> d = deviation(in_step(Sequential{layer}, ones, no_layers(batch), 1, 5));
    const Matrix<double> next = deviation(in_step(Sequential{layer}, ones, no_layers(batch), 1, 6));
    const Matrix<double> other =
        deviation(in_step(Sequential{layer}, ones, no_layers(batch), 2, 5));
    CHECK(std::abs(d.mean()) < 6 * std::sqrt(variance / n));
    const auto correlation = [&](const auto& a, const auto& b) {
        return std::abs(a.cwiseProduct(b).sum()) /
               (variance * std::sqrt(static_cast<double>(a.size())));
    };
    CHECK(correlation(d, next) < 6);
    CHECK(correlation(d, other) < 6);
    CHECK(correlation(d.topRows(199), d.bottomRows(199)) < 6);
    CHECK(correlation(d.topRows(136), d.bottomRows(136)) < 6);  // 64 features apart
    CHECK(correlation(d.leftCols(999), d.rightCols(999)) < 6);
}

TEST_CASE("Dropout: bits don't depend on the batch, the survivors or the threads", "[dropout]") {
    Philox random{2};
    const Index batch = 600, features = 96;
    const Dropout<float> layer{0.2};
    const Sequential network{
        Dropout<float>{0.5},
        StochasticDepth{Residual{Sequential{Tanh<float>{}, layer}}, SurvivalProbability{0.5}}};
    const Matrix<float> x = random_matrix<float>(random, features, batch);
    const SurvivalMasks masks = MaskSampler{Eigen::VectorXd::Constant(1, 0.5), 3}.sample(0, batch);
    const SurvivalMasks all = MaskSampler{Eigen::VectorXd::Constant(1, 1.0), 3}.sample(0, batch);
    const Matrix<float> y = in_step(network, x, masks, 9, 4);
    const Matrix<float> full = in_step(network, x, all, 9, 4);
    const Matrix<float> first = in_step(Sequential{Dropout<float>{0.5}}, x, no_layers(batch), 9, 4);
    for (Index j = 0; j < batch; ++j)
        CHECK(same_bits(y.col(j), masks(0, j) ? full.col(j) : first.col(j)));
    for (const unsigned threads : {2u, 3u})
        CHECK(same_bits(in_step(network, x, masks, 9, 4, detail::ThreadTeam{threads}), y));
    const SurvivalMasks few = MaskSampler{Eigen::VectorXd::Constant(1, 0.5), 3}.sample(0, 7);
    CHECK(same_bits(in_step(network, x.leftCols(7), few, 9, 4), y.leftCols(7)));
}

TEST_CASE("Dropout: a step's gradient is that of its loss", "[dropout]") {
    Philox random{3};
    const Sequential network{
        linear<double>(random, 3, 6),
        Tanh<double>{},
        Dropout<double>{0.3},
        StochasticDepth{Residual{Sequential{linear<double>(random, 6, 6), Dropout<double>{0.4},
                                            Tanh<double>{}, linear<double>(random, 6, 6)}},
                        SurvivalProbability{0.5}},
        Dropout<double>{0.2},
        linear<double>(random, 6, 2)};
    const Matrix<double> x = random_matrix<double>(random, 3, 8);
    const Matrix<double> targets = random_matrix<double>(random, 2, 8);
    const SurvivalMasks masks = MaskSampler{network.survival_probabilities(), 3}.sample(0, 8);
    REQUIRE(masks.mask(0).count() + masks.mask(1).count() + masks.mask(2).count() > 0);
    CHECK(gradient_error(network, x, masks, MeanSquaredError<double>{}, targets, {.seed = 5})
              .largest <= 1e-9);
    // By the input of the dropped entries nothing comes back, not even a NaN.
    RecordedPass<Sequential<Dropout<double>>> pass;
    const Sequential<Dropout<double>> layer{Dropout<double>{0.5}};
    detail::StepContext draw;
    const SurvivalMasks none = no_layers(8);
    Matrix<double> h = Matrix<double>::Ones(20, 8), d = Matrix<double>::Constant(20, 8, 3);
    pass.forward(layer, h, detail::MaskView{none, &draw});
    auto gradient = layer.zero_gradient();
    pass.backward(layer, d, gradient);
    CHECK(same_bits(d, 3 * h));
    const Matrix<double> of_nan =
        in_step(layer, Matrix<double>::Constant(20, 8, nan), none, draw.seed, draw.step);
    for (Index k = 0; k < h.size(); ++k) CHECK(std::isnan(of_nan.data()[k]) == (h.data()[k] != 0));
}

TEST_CASE("Dropout: under given masks each call is a step of its own, the next or the one it names",
          "[dropout]") {
    Philox random{5};
    const Sequential network{
        StochasticDepth{Residual{Sequential{Dropout<double>{0.5}, linear<double>(random, 8, 8)}},
                        SurvivalProbability{1.0}},
        linear<double>(random, 8, 2)};
    const Matrix<double> x = random_matrix<double>(random, 8, 4);
    const Matrix<double> targets = Matrix<double>::Zero(2, 4);
    const SurvivalMask mask = SurvivalMask::all(1);
    const SurvivalMasks masks = SurvivalMasks::all(1, 4);
    const auto fresh = [&] {
        return TrainingStep{network, MeanSquaredError<double>{}, {.seed = 7}};
    };
    // The dropout of step t, whatever was before: survival probabilities of 1 draw these masks.
    const auto loss_of_step = [&](std::uint64_t t) {
        return fresh().differentiate(network, x, targets, t).loss;
    };

    SECTION("the step is an argument") {
        auto step = fresh();
        for (const std::uint64_t t : {5u, 0u, 5u, 1u}) {
            CAPTURE(t);
            CHECK(step.differentiate(network, x, targets, mask, t).loss == loss_of_step(t));
            CHECK(step.differentiate(network, x, targets, masks, t).loss == loss_of_step(t));
        }
        CHECK(loss_of_step(5) != loss_of_step(0));
    }
    SECTION("without it, each call is the next step") {
        auto one = fresh(), each = fresh();
        for (std::uint64_t t = 0; t < 6; ++t) {
            CAPTURE(t);
            CHECK(one.differentiate(network, x, targets, mask).loss == loss_of_step(t));
            CHECK(each.differentiate(network, x, targets, masks).loss == loss_of_step(t));
            if (t > 0) CHECK(loss_of_step(t) != loss_of_step(t - 1));
            auto copy = network;
            one.finish(copy);
        }
    }
    SECTION("they count on from the last step, however it was given") {
        auto step = fresh();
        step.differentiate(network, x, targets, 41);
        CHECK(step.differentiate(network, x, targets, mask).loss == loss_of_step(42));
        CHECK(step.differentiate(network, x, targets, masks).loss == loss_of_step(43));
        step.differentiate(network, x, targets, mask, 8);
        CHECK(step.differentiate(network, x, targets, mask).loss == loss_of_step(9));
        step.differentiate(network, x, targets, masks, std::uint64_t{1} << 40);
        CHECK(step.differentiate(network, x, targets, masks).loss ==
              loss_of_step((std::uint64_t{1} << 40) + 1));
    }
    SECTION("a call that is refused is no step") {
        auto step = fresh();
        step.differentiate(network, x, targets, 3);
        CHECK(refusal([&] { step.differentiate(network, x, targets, SurvivalMask::all(2)); }) !=
              "accepted");
        CHECK(refusal([&] {
                  step.differentiate(network, x, targets, SurvivalMasks::all(1, 5), 70);
              }) != "accepted");
        CHECK(refusal([&] {
                  step.differentiate(network, x, Matrix<double>::Zero(2, 3), mask, 70);
              }) != "accepted");
        CHECK(refusal([&] { step.differentiate(network, x, Matrix<double>::Zero(2, 3), 70); }) !=
              "accepted");
        CHECK(step.differentiate(network, x, targets, mask).loss == loss_of_step(4));
    }
}

TEST_CASE("Dropout: in use the network is the one without it", "[dropout]") {
    Philox random{4};
    const auto a = linear<float>(random, 9, 33), b = linear<float>(random, 33, 5);
    const Matrix<float> x = random_matrix<float>(random, 9, 20);
    const Matrix<float> y = run(Sequential{a, Tanh<float>{}, b}, x);
    CHECK(same_bits(
        run(Sequential{a, Dropout<float>{0.9}, Tanh<float>{}, Dropout<float>{0.5}, b}, x), y));
    // A rate of 0 drops nothing in a step either.
    const Sequential still{a, Dropout<float>{0}, Tanh<float>{}, b};
    CHECK(same_bits(in_step(still, x, no_layers(20), 1, 1), y));
}

TEST_CASE("Dropout: refuses what is no rate", "[dropout]") {
    CHECK(refusal([] { Dropout<double>{1}; }) == "Dropout: rate must lie in [0, 1), got 1");
    CHECK(refusal([] { Dropout<float>{-0.1}; }) == "Dropout: rate must lie in [0, 1), got -0.1");
    CHECK(refusal([] { Dropout<float>{nan}; }) == "Dropout: rate must lie in [0, 1), got nan");
}

}  // namespace
