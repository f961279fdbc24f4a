// SPDX-License-Identifier: MIT
#include <stochastic_depth/inverted_scaling.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/scaled.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/layers.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/plain_network.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

using Branch = plain::TwoLinears<double, Tanh<double>>;

// Types change at compile time, and only where a branch is skippable.
using Node = StochasticDepth<Residual<Branch>>;
static_assert(std::is_same_v<decltype(without_inverted_scaling(std::declval<const Node&>())),
                             StochasticDepth<Residual<Scaled<Branch>>>>);
static_assert(std::is_same_v<decltype(with_inverted_scaling(
                                 std::declval<const Sequential<Branch, Stack<Node>>&>())),
                             Sequential<Branch, Stack<StochasticDepth<Residual<Scaled<Branch>>>>>>);

/// A residual network as its inverted scaling means it: x + s / p F(x), in long double.
struct InvertedNetwork {
    plain::Network network;

    std::vector<long double> operator()(std::vector<long double> x, std::uint64_t mask) const {
        x = (*network.stem)(x);
        for (std::size_t l = 0; l < network.blocks.size(); ++l) {
            if ((mask >> l & 1u) == 0) continue;
            const std::vector<long double> kept = network.blocks[l](x);
            for (std::size_t i = 0; i < x.size(); ++i)
                x[i] += (kept[i] - x[i]) / network.blocks[l].p;
        }
        return (*network.head)(x);
    }
};

plain::Network random_network(std::uint_fast32_t seed) {
    Philox random{seed};
    plain::Network network = plain::random_network(random, {.depth = 6,
                                                            .width = 5,
                                                            .linears = 2,
                                                            .activation = plain::Activation::tanh,
                                                            .ends = true});
    // Small p would only make the numbers large.
    for (std::size_t l = 0; l < network.blocks.size(); ++l)
        network.blocks[l].p = 1 - 0.1 * static_cast<double>(l);
    return network;
}

void check_close(double got, long double expected) {
    CHECK(static_cast<double>(std::abs(got - expected)) <=
          1e-12 * (1 + static_cast<double>(std::abs(expected))));
}

TEST_CASE("without_inverted_scaling: under every mask it is x + s / p F(x)", "[inverted_scaling]") {
    const InvertedNetwork inverted{random_network(21)};
    const auto network = without_inverted_scaling(plain::to_library<Branch>(inverted.network));
    Philox random{22};
    const Matrix<double> x = random_matrix<double>(random, 3, 3);
    const std::uint64_t count = std::uint64_t{1} << 6;
    for (std::uint64_t bits = 0; bits < count; ++bits) {
        SurvivalMask mask = SurvivalMask::none(6);
        mask.set_word(0, bits);
        const Matrix<double> y = network(x, mask);
        CAPTURE(bits);
        for (Index j = 0; j < 3; ++j) {
            const auto expected = inverted(plain::column(x, j), bits);
            for (Index i = 0; i < 2; ++i)
                check_close(y(i, j), expected[static_cast<std::size_t>(i)]);
        }
    }
}

TEST_CASE("without_inverted_scaling: the exact expectation is that of x + s / p F(x)",
          "[inverted_scaling]") {
    const InvertedNetwork inverted{random_network(23)};
    const auto network = without_inverted_scaling(plain::to_library<Branch>(inverted.network));
    Philox random{24};
    const Matrix<double> x = random_matrix<double>(random, 3, 4);
    const auto result = ExactExpectation{}(network, x);
    for (Index j = 0; j < 4; ++j) {
        std::vector<long double> mean(2), squares(2);
        for (std::uint64_t bits = 0; bits < std::uint64_t{1} << 6; ++bits) {
            const auto y = inverted(plain::column(x, j), bits);
            for (std::size_t i = 0; i < 2; ++i) {
                mean[i] += inverted.network.probability(bits) * y[i];
                squares[i] += inverted.network.probability(bits) * y[i] * y[i];
            }
        }
        for (std::size_t i = 0; i < 2; ++i) {
            check_close(result.mean(static_cast<Index>(i), j), mean[i]);
            check_close(result.variance(static_cast<Index>(i), j), squares[i] - mean[i] * mean[i]);
        }
    }
}

TEST_CASE("inverted scaling: plain pass and weight scaling change places", "[inverted_scaling]") {
    const auto network = plain::to_library<Branch>(random_network(25));
    Philox random{26};
    const Matrix<double> x = random_matrix<double>(random, 3, 5);
    Matrix<double> plain_pass(2, 5), converted_pass(2, 5);
    network.forward(x, plain_pass);
    CHECK(largest_difference(WeightScaling{}(without_inverted_scaling(network), x).mean,
                             plain_pass) <= 1e-13);
    with_inverted_scaling(network).forward(x, converted_pass);
    CHECK(largest_difference(WeightScaling{}(network, x).mean, converted_pass) <= 1e-13);
    // The distance that is closed: without a conversion the two differ.
    CHECK(largest_difference(plain_pass, converted_pass) > 0.1);

    // There and back is the same network, up to rounding.
    const auto back = without_inverted_scaling(with_inverted_scaling(network));
    const SurvivalMasks masks = MaskSampler{network.survival_probabilities(), 1}.sample(0, 5);
    CHECK(largest_difference(back(x, masks), network(x, masks)) <= 1e-13);
    CHECK(back.survival_probabilities() == network.survival_probabilities());
}

TEST_CASE("without_inverted_scaling: a step under inverted scaling is a plain step of the result",
          "[inverted_scaling]") {
    auto network = plain::to_library<Branch>(random_network(29));
    auto converted = without_inverted_scaling(network);
    Philox random{30};
    const Matrix<double> x = random_matrix<double>(random, 3, 9);
    const Matrix<double> targets = random_matrix<double>(random, 2, 9);
    TrainingStep inverted{network, MeanSquaredError<double>{}, {.scaling = Scaling::inverted}};
    TrainingStep definition{converted, MeanSquaredError<double>{}};
    for (std::uint64_t t = 0; t < 3; ++t) {
        const double loss = inverted.differentiate(network, x, targets, t).loss;
        CHECK(std::abs(definition.differentiate(converted, x, targets, t).loss - loss) <=
              1e-13 * loss);
    }
    const Eigen::VectorXd expected = slopes(network, inverted.gradient());
    const Eigen::VectorXd got = slopes(converted, definition.gradient());
    REQUIRE(expected.cwiseAbs().minCoeff() > 0);
    CHECK(largest_difference(got, expected) <= 1e-13 * expected.cwiseAbs().maxCoeff());
}

TEST_CASE("without_inverted_scaling: skippable layers inside a branch, and shortcuts of their own",
          "[inverted_scaling]") {
    Philox random{27};
    const auto l = [&](Index inputs, Index outputs) {
        return linear<double>(random, inputs, outputs);
    };
    const auto a = l(4, 4), b = l(4, 4), c = l(4, 3), d = l(4, 3), e = l(3, 3);
    const SurvivalProbability half{0.5}, most{0.8}, little{0.25};
    // Layer 0 around layer 1, layer 2 with a shortcut, layer 3 inside a residual layer.
    const Sequential network{
        StochasticDepth{Residual{Sequential{a, StochasticDepth{Residual{b}, most}}}, half},
        StochasticDepth{Residual{c, d}, little},
        Residual{Sequential{StochasticDepth{Residual{e}, half}, Tanh<double>{}}}};
    const auto converted = without_inverted_scaling(network);
    REQUIRE(converted.depth() == 4);
    CHECK(converted.survival_probabilities() == network.survival_probabilities());
    const Matrix<double> x = random_matrix<double>(random, 4, 7);
    const Matrix<double> tall = random_matrix<double>(random, 4, 40);
    Matrix<double> mean = Matrix<double>::Zero(3, 7);
    for (unsigned bits = 0; bits < 16; ++bits) {
        const auto s = [&](int layer) { return (bits >> layer & 1u) != 0 ? 1.0 : 0.0; };
        const auto apply = [](const Linear<double>& layer, const Matrix<double>& z) {
            return Matrix<double>((layer.weights() * z).colwise() + layer.bias());
        };
        Matrix<double> inner = apply(a, x);
        inner += s(1) / 0.8 * apply(b, inner);
        Matrix<double> h = x + s(0) / 0.5 * inner;
        h = apply(d, h) + s(2) / 0.25 * apply(c, h);
        Matrix<double> branch = h + s(3) / 0.5 * apply(e, h);
        h += branch.array().tanh().matrix();
        SurvivalMask mask = SurvivalMask::none(4);
        mask.set_word(0, bits);
        CAPTURE(bits);
        CHECK(largest_difference(converted(x, mask), h) <= 1e-12);
        double probability = 1;
        for (int layer = 0; layer < 4; ++layer) {
            const double p = converted.survival_probabilities()(layer);
            probability *= s(layer) == 1 ? p : 1 - p;
        }
        mean += probability * h;
    }
    CHECK(largest_difference(ExactExpectation{}(converted, x).mean, mean) <= 1e-12);
    Matrix<double> plain_pass(3, 40);
    network.forward(tall, plain_pass);
    CHECK(largest_difference(WeightScaling{}(converted, tall).mean, plain_pass) <= 1e-12);
}

TEST_CASE("without_inverted_scaling: refuses a factor that the scalar cannot hold",
          "[inverted_scaling]") {
    Philox random{28};
    const Linear<float> layer = linear<float>(random, 2, 2);
    const StochasticDepth network{Residual{layer}, SurvivalProbability{1e-40}};
    CHECK(refusal([&] { (void)without_inverted_scaling(network); }) ==
          "Scaled: factor must be finite, got inf");
    CHECK(with_inverted_scaling(network).depth() == 1);
}

}  // namespace
