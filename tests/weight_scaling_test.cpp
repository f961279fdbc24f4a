// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <cmath>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/probe_layers.hpp"

namespace {

using namespace stochastic_depth;
using test::largest_difference;
using test::random_matrix;
using test::same_bits;

auto scaling_layer(double slope, double p) {
    return StochasticDepth{
        Residual{Linear<double>{Eigen::MatrixXd::Constant(1, 1, slope), Eigen::VectorXd::Zero(1)}},
        SurvivalProbability{p}};
}

/// x + p F(x) block by block, in plain loops of long double.
std::vector<long double> scaled(const plain::Network& network, std::vector<long double> x) {
    if (network.stem) x = (*network.stem)(x);
    for (const plain::Block& block : network.blocks) {
        const std::vector<long double> y = block(x);  // x + F(x)
        for (std::size_t i = 0; i < x.size(); ++i) x[i] += block.p * (y[i] - x[i]);
    }
    return network.head ? (*network.head)(x) : x;
}

TEST_CASE("WeightScaling: exact for the worked example of linear branches", "[weight_scaling]") {
    const Sequential network{scaling_layer(1, 0.8), scaling_layer(2, 0.7), scaling_layer(3, 0.6)};
    const auto answer = WeightScaling{}(network, Eigen::MatrixXd::Constant(1, 1, 1.0));
    CHECK(std::abs(answer.mean(0, 0) - 12.096) <= 1e-14);
    CHECK(answer.layer_evaluations == 3.0);
}

TEST_CASE("WeightScaling: knows neither variance nor error", "[weight_scaling]") {
    const Sequential network{scaling_layer(1, 0.8)};
    const auto answer = WeightScaling{}(network, Eigen::MatrixXd::Constant(1, 4, 1.0));
    CHECK(answer.variance.rows() == 1);
    CHECK(answer.variance.cols() == 4);
    CHECK(answer.variance.array().isNaN().all());
    CHECK(answer.standard_error.cols() == 4);
    CHECK(answer.standard_error.array().isNaN().all());
}

TEST_CASE("WeightScaling: is x + p F(x) in plain loops on random networks", "[weight_scaling]") {
    Philox random{1};
    for (const std::size_t depth : {0u, 1u, 3u, 12u})
        for (const std::size_t width : {1u, 4u, 13u}) {
            const auto network =
                plain::random_network(random, {depth, width, 2, plain::Activation::tanh, true});
            const auto x = random_matrix<double>(random, 3, 5);
            const auto answer = WeightScaling{}(
                plain::to_library<plain::TwoLinears<double, Tanh<double>>>(network), x);
            for (Index j = 0; j < x.cols(); ++j) {
                const auto expected = scaled(network, plain::column(x, j));
                const long double scale = std::max(std::abs(expected[0]), std::abs(expected[1]));
                for (std::size_t i = 0; i < 2; ++i)
                    CHECK(std::abs(answer.mean(static_cast<Index>(i), j) - expected[i]) <=
                          1e-13L * scale);
            }
            CHECK(answer.layer_evaluations == static_cast<double>(depth));
        }
}

TEST_CASE("WeightScaling: of a layer without a shortcut it is p layer(x) + (1 - p) x",
          "[weight_scaling]") {
    const auto squaring = elementwise<double>([](double z) { return z * z; });
    const Sequential network{StochasticDepth{squaring, SurvivalProbability{0.25}}};
    CHECK(WeightScaling{}(network, Eigen::MatrixXd::Constant(1, 1, 3.0)).mean(0, 0) ==
          0.25 * 9 + 0.75 * 3);
}

TEST_CASE("WeightScaling: of nested layers each is replaced by its mean, and own shortcuts count",
          "[weight_scaling]") {
    const auto affine = [](double slope, double shift) {
        return Linear<double>{Eigen::MatrixXd::Constant(1, 1, slope),
                              Eigen::VectorXd::Constant(1, shift)};
    };
    const Eigen::MatrixXd x = Eigen::MatrixXd::Constant(1, 1, 2.0);
    SECTION("an own shortcut: shortcut(x) + p branch(x)") {
        const Sequential network{
            StochasticDepth{Residual{affine(3, 1), affine(5, 0)}, SurvivalProbability{0.5}}};
        CHECK(WeightScaling{}(network, x).mean(0, 0) == 10 + 0.5 * 7);
    }
    SECTION("a skippable layer in a skippable layer") {
        // Inner: 2 + 0.25 (4 * 2) = 4; outer: 0.5 (4 + 1) + 0.5 * 2.
        const Sequential network{StochasticDepth{
            Sequential{StochasticDepth{Residual{affine(4, 0)}, SurvivalProbability{0.25}},
                       affine(1, 1)},
            SurvivalProbability{0.5}}};
        CHECK(WeightScaling{}(network, x).mean(0, 0) == 0.5 * 5 + 0.5 * 2);
    }
    SECTION("skippable layers in branch and shortcut of a plain residual layer") {
        // Branch 2 + 0.5 * 4 = 4, shortcut 2 + 0.25 * 8 = 4.
        const Sequential network{Residual{
            Sequential{StochasticDepth{Residual{affine(2, 0)}, SurvivalProbability{0.5}}},
            Sequential{StochasticDepth{Residual{affine(4, 0)}, SurvivalProbability{0.25}}}}};
        CHECK(WeightScaling{}(network, x).mean(0, 0) == 8);
    }
}

TEST_CASE("WeightScaling: with p = 1 the network itself, bit for bit", "[weight_scaling]") {
    Philox random{2};
    auto plain_network = plain::random_network(random, {6, 11, 1, plain::Activation::relu, true});
    for (plain::Block& block : plain_network.blocks) block.p = 1;
    const auto network = plain::to_library<plain::OneLinear<double, ReLU<double>>>(plain_network);
    const auto x = random_matrix<double>(random, 3, 9);
    CHECK(same_bits(WeightScaling{}(network, x).mean, network(x, SurvivalMask::all(6))));
}

TEST_CASE("WeightScaling: equals the exact mean where every layer is affine", "[weight_scaling]") {
    Philox random{3};
    using Block = StochasticDepth<Residual<Linear<double>>>;
    std::vector<Block> blocks;
    for (int l = 0; l < 9; ++l)
        blocks.emplace_back(Residual{Linear<double>{7, 7, random, 0.8}},
                            SurvivalProbability{0.1 * (l + 1)});
    const Sequential network{Linear<double>{3, 7, random}, Stack<Block>{blocks},
                             Linear<double>{7, 2, random}};
    const auto x = random_matrix<double>(random, 3, 6);
    const auto exact = ExactExpectation{}(network, x);
    CHECK(largest_difference(WeightScaling{}(network, x).mean, exact.mean) <=
          1e-13 * exact.mean.cwiseAbs().maxCoeff());
}

TEST_CASE("WeightScaling: a column has the same bits alone and in a batch", "[weight_scaling]") {
    Philox random{4};
    const auto check = [&](const auto& network, Index rows) {
        using Scalar = typename std::remove_cvref_t<decltype(network)>::Scalar;
        const auto x = random_matrix<Scalar>(random, rows, 23);
        const Matrix<Scalar> together = WeightScaling{}(network, x).mean;
        for (Index j = 0; j < x.cols(); ++j)
            CHECK(same_bits(WeightScaling{}(network, x.col(j)).mean, together.col(j)));
    };
    for (const std::size_t width : {1u, 5u, 16u, 19u}) {
        const auto plain_network =
            plain::random_network(random, {5, width, 2, plain::Activation::relu, true});
        check(plain::to_library<plain::TwoLinears<double, ReLU<double>>>(plain_network), 3);
        check(plain::to_library<plain::TwoLinears<float, ReLU<float>>>(plain_network), 3);
    }
    SECTION("with shortcuts of their own, where mean and shortcut are mixed afterwards") {
        const Sequential network{
            StochasticDepth{Residual{Sequential{Linear<double>{5, 9, random}, Tanh<double>{}},
                                     Linear<double>{5, 9, random}},
                            SurvivalProbability{0.3}},
            StochasticDepth{Sequential{Linear<double>{9, 9, random},
                                       StochasticDepth{Residual{Linear<double>{9, 9, random}},
                                                       SurvivalProbability{0.7}},
                                       Tanh<double>{}},
                            SurvivalProbability{0.6}}};
        check(network, 5);
    }
}

TEST_CASE("WeightScaling: each skippable layer runs once for each column", "[weight_scaling]") {
    std::atomic<long> columns{0};
    const std::vector<StochasticDepth<probe::Counted>> layers(
        7, {probe::Counted{&columns}, SurvivalProbability{0.5}});
    CHECK(WeightScaling{}(Stack{layers}, Eigen::MatrixXd::Ones(2, 5)).layer_evaluations == 7.0);
    CHECK(columns == 7 * 5);
}

TEST_CASE("WeightScaling: a batch of no samples gives no columns", "[weight_scaling]") {
    Philox random{5};
    const auto network = plain::to_library<plain::OneLinear<double, ReLU<double>>>(
        plain::random_network(random, {3, 4, 1, plain::Activation::relu, true}));
    const auto answer = WeightScaling{}(network, Eigen::MatrixXd(3, 0));
    CHECK(answer.mean.rows() == 2);
    CHECK(answer.mean.cols() == 0);
    CHECK(answer.variance.cols() == 0);
}

}  // namespace
