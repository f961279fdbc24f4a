// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/gradient_clipping.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

/// Fills all that the gradient has reached, with numbers in [-1, 1).
template <class Network>
void fill(const Network& network, typename Network::Gradient& gradient, Philox& random) {
    using Scalar = typename Network::Scalar;
    detail::visit_parameters(
        network,
        [&](const char*, const auto&, auto& slope) {
            slope = test::random_matrix<Scalar>(random, slope.rows(), slope.cols());
        },
        gradient);
}

long double norm_of(const Eigen::VectorXd& values) {
    long double squares = 0;
    for (const double value : values) squares += static_cast<long double>(value) * value;
    return std::sqrt(squares);
}

template <class Scalar>
using Plain = Sequential<Linear<Scalar>, Linear<Scalar>>;

template <class Scalar>
Plain<Scalar> plain_network(Philox& random) {
    return Sequential{Linear<Scalar>{5, 19, random}, Linear<Scalar>{19, 3, random}};
}

TEST_CASE("clip_gradient_norm: 3-4-5 by hand", "[gradient_clipping]") {
    const Sequential network{Linear<double>{Eigen::MatrixXd::Ones(1, 1), Eigen::VectorXd::Ones(1)}};
    auto gradient = network.zero_gradient();
    auto& slope = std::get<0>(gradient.layers);
    slope.weights(0, 0) = 3;
    slope.bias(0) = -4;
    for (const double enough : {5.0, 5.5, inf}) {
        CHECK(clip_gradient_norm(network, gradient, enough) == 5);
        CHECK(slope.weights(0, 0) == 3);
        CHECK(slope.bias(0) == -4);
    }
    CHECK(clip_gradient_norm(network, gradient, 2.5) == 5);
    CHECK(slope.weights(0, 0) == 1.5);
    CHECK(slope.bias(0) == -2);
    gradient.set_zero();
    CHECK(clip_gradient_norm(network, gradient, 1e-300) == 0);
    CHECK(slope.weights(0, 0) == 0);
}

TEMPLATE_TEST_CASE("clip_gradient_norm: agrees with a long double loop over every number",
                   "[gradient_clipping]", float, double) {
    Philox random{1};
    const auto network = plain_network<TestType>(random);
    auto gradient = network.zero_gradient();
    const double rounding = std::numeric_limits<TestType>::epsilon();
    for (const double max_norm : {1e-3, 0.5, 1.0, 3.0, 100.0}) {
        fill(network, gradient, random);
        const Eigen::VectorXd before = test::slopes(network, gradient);
        REQUIRE(before.size() == 5 * 19 + 19 + 19 * 3 + 3);
        const double exact = static_cast<double>(norm_of(before));
        const double norm = clip_gradient_norm(network, gradient, max_norm);
        // The sum is in double even for float.
        CHECK(std::abs(norm - exact) <= 1e-14 * exact);
        const Eigen::VectorXd after = test::slopes(network, gradient);
        const double scale = std::min(1.0, max_norm / exact);
        for (Index i = 0; i < after.size(); ++i)
            REQUIRE(std::abs(after(i) - scale * before(i)) <= 2 * rounding * std::abs(before(i)));
        CHECK(static_cast<double>(norm_of(after)) <=
              std::min(exact, max_norm) * (1 + 2 * rounding));
        if (max_norm >= exact) CHECK(test::same_bits(before, after));
    }
}

TEST_CASE("clip_gradient_norm: squares that overflow float don't overflow the norm",
          "[gradient_clipping]") {
    Philox random{2};
    const auto network = plain_network<float>(random);
    auto gradient = network.zero_gradient();
    std::get<1>(gradient.layers).weights(0, 0) = 3e38f;
    CHECK(clip_gradient_norm(network, gradient, 1.0) == static_cast<double>(3e38f));
    CHECK(std::abs(std::get<1>(gradient.layers).weights(0, 0) - 1.0f) <= 1e-6f);
}

TEST_CASE("clip_gradient_norm: a norm that is not finite leaves the gradient alone",
          "[gradient_clipping]") {
    Philox random{3};
    const auto network = plain_network<double>(random);
    for (const double bad : {nan, inf, -inf, 1e200}) {
        auto gradient = network.zero_gradient();
        fill(network, gradient, random);
        std::get<1>(gradient.layers).bias(2) = bad;
        const Eigen::VectorXd before = test::slopes(network, gradient);
        for (const double max_norm : {1.0, inf}) {
            const double norm = clip_gradient_norm(network, gradient, max_norm);
            CHECK_FALSE(std::isfinite(norm));
            CHECK(std::isnan(norm) == std::isnan(bad));
            CHECK(test::same_bits(test::slopes(network, gradient), before));
        }
    }
}

using Block = StochasticDepth<Residual<Linear<double>>>;

TEST_CASE("clip_gradient_norm: layers that no sample reached neither count nor change",
          "[gradient_clipping]") {
    Philox random{4};
    std::vector<Block> blocks;
    for (int l = 0; l < 3; ++l)
        blocks.emplace_back(Residual{Linear<double>{2, 2, random}}, SurvivalProbability{0.5});
    const Stack<Block> network{blocks};
    auto gradient = network.zero_gradient();
    // What an earlier step might have left in layers that this one skips.
    for (auto& layer : gradient.layers) {
        layer.layer.branch.weights.setConstant(10);
        layer.layer.branch.bias.setConstant(10);
    }
    gradient.layers[1].reached = true;
    const double norm = std::sqrt(600.0);
    CHECK(std::abs(clip_gradient_norm(network, gradient, 1.0) - norm) <= 1e-14);
    for (std::size_t l = 0; l < 3; ++l) {
        INFO("layer " << l);
        const double expected = l == 1 ? 10 / norm : 10;
        CHECK(((gradient.layers[l].layer.branch.weights.array() - expected).abs() <= 1e-15).all());
        CHECK(((gradient.layers[l].layer.branch.bias.array() - expected).abs() <= 1e-15).all());
    }
    gradient.layers[1].reached = false;
    CHECK(clip_gradient_norm(network, gradient, 1.0) == 0);
}

TEST_CASE("clip_gradient_norm: of a skipped layer, its own shortcut counts",
          "[gradient_clipping]") {
    Philox random{5};
    const StochasticDepth network{
        Residual{Linear<double>{2, 3, random}, Linear<double>{2, 3, random}},
        SurvivalProbability{0.5}};
    auto gradient = network.zero_gradient();
    gradient.layer.branch.weights.setConstant(7);
    gradient.layer.shortcut.bias.setConstant(4);
    gradient.shortcut_reached = true;
    CHECK(std::abs(clip_gradient_norm(network, gradient, 1.0) - std::sqrt(48.0)) <= 1e-14);
    CHECK((gradient.layer.branch.weights.array() == 7).all());
    CHECK(((gradient.layer.shortcut.bias.array() - 1 / std::sqrt(3.0)).abs() <= 1e-15).all());
}

TEST_CASE("clip_gradient_norm: a bad bound is refused, the gradient unchanged",
          "[gradient_clipping]") {
    Philox random{6};
    const auto network = plain_network<double>(random);
    auto gradient = network.zero_gradient();
    fill(network, gradient, random);
    const Eigen::VectorXd before = test::slopes(network, gradient);
    for (const double bad : {0.0, -1.0, -inf, nan}) {
        CHECK(test::refusal([&] {
                  (void)clip_gradient_norm(network, gradient, bad);
              }).find("clip_gradient_norm: max_norm must be above 0, got ") == 0);
        CHECK(test::same_bits(test::slopes(network, gradient), before));
    }
}

}  // namespace
