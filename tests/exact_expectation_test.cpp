// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/exact_expectation.hpp>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/probe_layers.hpp"
#include "support/skippable_layers.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using plain::OneLinear;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// x + slope x.
auto scaling_layer(double slope, double p) {
    return StochasticDepth{
        Residual{Linear<double>{Eigen::MatrixXd::Constant(1, 1, slope), Eigen::VectorXd::Zero(1)}},
        SurvivalProbability{p}};
}

/// |a - b| at most tolerance * scale, and no NaN.
bool near(long double a, long double b, long double scale, double tolerance) {
    return std::abs(a - b) <= tolerance * scale;
}

TEST_CASE("ExactExpectation: the worked example of three linear branches", "[exact_expectation]") {
    const Sequential network{scaling_layer(1, 0.8), scaling_layer(2, 0.7), scaling_layer(3, 0.6)};
    const auto exact = ExactExpectation{}(network, Eigen::MatrixXd::Constant(1, 1, 1.0));
    // prod(1 + p_l a_l), and E[y^2] = prod(1 + p_l (2 a_l + a_l^2)) = 224.4.
    CHECK(near(exact.mean(0, 0), 12.096, 12.096, 1e-15));
    CHECK(near(exact.variance(0, 0), 78.086784, 78.086784, 1e-15));
    CHECK(exact.standard_error(0, 0) == 0.0);
    CHECK(exact.layer_evaluations == 7.0);
}

TEST_CASE("ExactExpectation: no layer to skip, one, and two, by hand", "[exact_expectation]") {
    const Eigen::MatrixXd one = Eigen::MatrixXd::Constant(1, 1, 1.0);
    SECTION("L = 0: the network's output, without variance") {
        const Sequential plain_layers{Linear<double>{Eigen::MatrixXd::Constant(1, 1, 3.0),
                                                     Eigen::VectorXd::Constant(1, -1.0)},
                                      Tanh<double>{}};
        const auto exact = ExactExpectation{}(plain_layers, one);
        Eigen::MatrixXd y(1, 1);
        plain_layers.forward(one, y);
        CHECK(exact.mean == y);
        CHECK(exact.variance(0, 0) == 0.0);
        CHECK(exact.layer_evaluations == 0.0);
    }
    SECTION("L = 0: an empty stack is the identity") {
        const Stack<decltype(test::relu_layer(1, 1, 1))> empty{{}};
        const Eigen::MatrixXd x = Eigen::MatrixXd::Random(5, 3);
        const auto exact = ExactExpectation{}(empty, x);
        CHECK(exact.mean == x);
        CHECK((exact.variance.array() == 0.0).all());
        CHECK(exact.layer_evaluations == 0.0);
    }
    SECTION("L = 1: 2 with 3/4, and 2 + relu(3 * 2 - 1) = 7 with 1/4; exact in binary") {
        const Sequential network{test::relu_layer(3, -1, 0.25)};
        const auto exact = ExactExpectation{}(network, 2.0 * one);
        CHECK(exact.mean(0, 0) == 3.25);
        CHECK(exact.variance(0, 0) == 0.25 * 0.75 * 25);
        CHECK(exact.layer_evaluations == 1.0);
    }
    SECTION("L = 2: 4 with 5/8, and 1 with 3/8; exact in binary") {
        // From 1: x + relu(2 x + 1) = 4, then x + relu(4 - x) is 4 from 4 and from 1.
        const Sequential network{test::relu_layer(2, 1, 0.5), test::relu_layer(-1, 4, 0.25)};
        const auto exact = ExactExpectation{}(network, one);
        CHECK(exact.mean(0, 0) == 4 * 0.625 + 0.375);
        CHECK(exact.variance(0, 0) == 0.625 * 0.375 * 9);
        CHECK(exact.layer_evaluations == 3.0);
    }
}

TEST_CASE("ExactExpectation: an unlikely NaN is a NaN, and stays in its column",
          "[exact_expectation]") {
    using Layer = StochasticDepth<probe::NotANumber>;
    Philox random{41};
    const auto x = test::random_matrix<double>(random, 3, 30);
    SECTION("in a layer that is hardly ever kept") {
        for (const double p : {1e-12, 1e-300, 0.5, 1.0}) {
            const Sequential network{test::relu_layer(1, 1, 0.5), Layer{{}, SurvivalProbability{p}},
                                     test::relu_layer(1, 1, 0.5)};
            const auto exact = ExactExpectation{}(network, Eigen::MatrixXd::Ones(1, 2));
            CHECK(exact.mean.array().isNaN().all());
            if (p < 1) CHECK(exact.variance.array().isNaN().all());
        }
    }
    SECTION("in one column of the input") {
        const auto network = plain::to_blocks<OneLinear<double, ReLU<double>>>(
            plain::random_network(random, {5, 3, 1, plain::Activation::relu, false}));
        Eigen::MatrixXd spoilt = x;
        spoilt(1, 17) = nan;
        const auto clean = ExactExpectation{}(network, x);
        const auto exact = ExactExpectation{}(network, spoilt);
        for (Index j = 0; j < x.cols(); ++j) {
            if (j == 17) {
                // Every row: the first layer's weights carry it everywhere.
                CHECK(exact.mean.col(j).array().isNaN().all());
            } else {
                CHECK(exact.mean.col(j) == clean.mean.col(j));
                CHECK(exact.variance.col(j) == clean.variance.col(j));
            }
        }
    }
}

TEST_CASE("ExactExpectation: a batch of no samples gives no columns", "[exact_expectation]") {
    Philox random{51};
    const auto network = plain::to_library<OneLinear<double, ReLU<double>>>(
        plain::random_network(random, {4, 6, 1, plain::Activation::relu, true}));
    for (const unsigned threads : {1u, 3u}) {
        const auto exact = ExactExpectation{{.threads = threads}}(network, Eigen::MatrixXd(3, 0));
        CHECK(exact.mean.rows() == 2);
        CHECK(exact.mean.cols() == 0);
        CHECK(exact.variance.cols() == 0);
        CHECK(exact.standard_error.cols() == 0);
        CHECK(exact.layer_evaluations == 15.0);
    }
    // The same thread still works afterwards.
    CHECK(
        ExactExpectation{}(network, Eigen::MatrixXd(Eigen::MatrixXd::Ones(3, 2))).mean.allFinite());
}

TEST_CASE("ExactExpectation: a column range, an expression and a mapped array are inputs",
          "[exact_expectation]") {
    Philox random{52};
    const auto network = plain::to_library<OneLinear<double, ReLU<double>>>(
        plain::random_network(random, {6, 7, 1, plain::Activation::relu, true}));
    const auto wide = test::random_matrix<double>(random, 9, 12);
    const Eigen::MatrixXd part = wide.block(4, 2, 3, 8);
    const auto expected = ExactExpectation{}(network, part);
    CHECK(ExactExpectation{}(network, wide.block(4, 2, 3, 8)).mean == expected.mean);
    CHECK(ExactExpectation{}(network, 2.0 * (0.5 * part)).mean == expected.mean);
    const Eigen::Map<const Eigen::MatrixXd, 0, Eigen::OuterStride<>> map(&wide(4, 2), 3, 8,
                                                                         Eigen::OuterStride<>(9));
    CHECK(ExactExpectation{}(network, map).variance == expected.variance);
}

TEST_CASE("ExactExpectation: the budget is checked before any work", "[exact_expectation]") {
    std::atomic<long> columns{0};
    const auto deep = [&](Index depth, double p) {
        std::vector<StochasticDepth<probe::Counted>> layers;
        for (Index l = 0; l < depth; ++l)
            layers.emplace_back(probe::Counted{&columns}, SurvivalProbability{p});
        return Stack{layers};
    };
    const Eigen::MatrixXd x = Eigen::MatrixXd::Ones(2, 3);
    SECTION("one evaluation too few") {
        const std::string message = thrown<std::length_error>(
            [&] { (void)ExactExpectation{{.max_layer_evaluations = 1022}}(deep(10, 0.5), x); });
        INFO(message);
        CHECK(holds(message, "ExactExpectation", "depth 10", "1023", "max_layer_evaluations",
                    "1022", "MonteCarloExpectation"));
        CHECK(columns == 0);
    }
    SECTION("as many as needed") {
        CHECK(
            ExactExpectation{{.max_layer_evaluations = 1023}}(deep(10, 0.5), x).layer_evaluations ==
            1023.0);
        CHECK(columns == 3 * 1023);
    }
    SECTION("a budget of 0 takes networks without skippable layers alone") {
        const ExactExpectation none{{.max_layer_evaluations = 0}};
        CHECK(none(deep(0, 0.5), x).mean == x);
        const std::string message = thrown<std::length_error>([&] { (void)none(deep(1, 0.5), x); });
        INFO(message);
        CHECK(holds(message, "ExactExpectation", "depth 1", "max_layer_evaluations is 0"));
        CHECK(columns == 0);
    }
    SECTION("the default takes 28 layers and no more") {
        const std::string message =
            thrown<std::length_error>([&] { (void)ExactExpectation{}(deep(29, 0.5), x); });
        INFO(message);
        CHECK(holds(message, "depth 29", "536870911", "268435456"));
        CHECK(columns == 0);
    }
    SECTION("more than a double can count") {
        const ExactExpectation all{
            {.max_layer_evaluations = std::numeric_limits<std::uint64_t>::max()}};
        for (const Index depth : {65, 1100}) {
            const std::string message =
                thrown<std::length_error>([&] { (void)all(deep(depth, 0.5), x); });
            INFO(message);
            CHECK(
                holds(message, "ExactExpectation", std::to_string(depth), "MonteCarloExpectation"));
        }
        CHECK(columns == 0);
    }
    SECTION("layers with p = 1 cost one evaluation each") {
        CHECK(ExactExpectation{{.max_layer_evaluations = 60}}(deep(60, 1.0), x).layer_evaluations ==
              60.0);
        CHECK(columns == 3 * 60);
        const std::string message = thrown<std::length_error>(
            [&] { (void)ExactExpectation{{.max_layer_evaluations = 59}}(deep(60, 1.0), x); });
        INFO(message);
        CHECK(holds(message, "ExactExpectation", "depth 60", "max_layer_evaluations is 59"));
    }
}

TEST_CASE(
    "ExactExpectation: an exception of a user's layer arrives from any thread, and does no harm",
    "[exact_expectation]") {
    std::atomic<long> calls_left{0};
    std::vector<StochasticDepth<probe::Failing>> layers;
    for (int l = 0; l < 11; ++l)
        layers.emplace_back(probe::Failing{&calls_left}, SurvivalProbability{0.3 + 0.05 * l});
    const Stack network{layers};
    Philox random{61};
    const auto x = test::random_matrix<double>(random, 90, 40);
    const auto expected = ExactExpectation{}(network, x);
    const long calls = -calls_left;
    for (const unsigned threads : {1u, 2u, 3u, 8u}) {
        const ExactExpectation exact{{.threads = threads}};
        for (const long call : {1l, 2l, 7l, 40l, calls / 2}) {
            calls_left = call;
            const std::string message = thrown<std::domain_error>([&] { (void)exact(network, x); });
            INFO("threads " << threads << ", call " << call);
            CHECK(message == "the user's layer failed");
        }
        calls_left = 0;
        const auto again = exact(network, x);
        CHECK(again.mean == expected.mean);
        CHECK(again.variance == expected.variance);
    }
}

TEST_CASE("ExactExpectation: the variance of a float network knows 1 - p to float's digits",
          "[exact_expectation]") {
    // y = x + s with x = 0: mean p, variance p (1 - p).
    using Layer = StochasticDepth<Residual<Linear<float>>>;
    const Matrix<float> zero = Matrix<float>::Zero(1, 1), one = Matrix<float>::Ones(1, 1);
    for (const double q : {0.5, 1e-3, 5e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-15}) {
        const double p = 1 - q, variance = p * (1 - p);
        const Stack last{std::vector<Layer>(
            1, Layer{Residual{Linear<float>(zero, one.col(0))}, SurvivalProbability{p}})};
        const Sequential inner{last, Linear<float>(one, zero.col(0))};
        CAPTURE(q);
        const auto of_last = ExactExpectation{}(last, zero);
        const auto of_inner = ExactExpectation{}(inner, zero);
        CHECK(std::abs(static_cast<double>(of_last.variance(0)) / variance - 1) <= 3e-7);
        CHECK(std::abs(static_cast<double>(of_inner.variance(0)) / variance - 1) <= 3e-7);
        CHECK(of_last.mean(0) == static_cast<float>(p));
        CHECK(of_inner.mean(0) == static_cast<float>(p));
    }
}

TEMPLATE_TEST_CASE("ExactExpectation: a mean is finite though the outputs' difference is not",
                   "[exact_expectation]", float, double) {
    using Scalar = TestType;
    using Layer = StochasticDepth<Linear<Scalar>>;
    const Scalar most = std::numeric_limits<Scalar>::max();
    const Scalar infinity = std::numeric_limits<Scalar>::infinity();
    const auto layer = [](double weight, double p) {
        return Layer{Linear<Scalar>(Matrix<Scalar>::Constant(1, 1, static_cast<Scalar>(weight)),
                                    Vector<Scalar>::Zero(1)),
                     SurvivalProbability{p}};
    };
    const Linear<Scalar> same(Matrix<Scalar>::Ones(1, 1), Vector<Scalar>::Zero(1));
    Matrix<Scalar> x(1, 7);
    x << Scalar(0.3), -most, Scalar(1), most, infinity, std::numeric_limits<Scalar>::quiet_NaN(),
        Scalar(-0.7);
    const auto check = [&](const auto& network, double mean_factor) {
        const auto all = ExactExpectation{}(network, x);
        for (const Index j : {0, 1, 2, 3, 6}) {
            const Scalar expected = x(j) * static_cast<Scalar>(mean_factor);
            CAPTURE(j, expected, all.mean(j));
            CHECK(std::abs(all.mean(j) - expected) <=
                  4 * std::numeric_limits<Scalar>::epsilon() * std::abs(x(j)));
        }
        CHECK(all.variance(1) == infinity);
        CHECK(all.variance(3) == infinity);
        CHECK(!std::isfinite(all.mean(4)));
        CHECK(std::isnan(all.mean(5)));
        // Nor does a column notice what stands beside it.
        for (Index j = 0; j < x.cols(); ++j) {
            const auto alone = ExactExpectation{}(network, x.col(j));
            CAPTURE(j);
            CHECK((alone.mean(0) == all.mean(j) ||
                   (std::isnan(alone.mean(0)) && std::isnan(all.mean(j)))));
            CHECK((alone.variance(0) == all.variance(j) ||
                   (std::isnan(alone.variance(0)) && std::isnan(all.variance(j)))));
        }
    };
    check(Stack<Layer>{{layer(-1, 0.5)}}, 0);
    check(Sequential{layer(-1, 0.25), same}, 0.5);
    check(Stack<Layer>{{layer(-1, 0.5), layer(-1, 0.25)}}, 0);
    check(Sequential{layer(-1, 0.125), layer(-1, 0.25), same}, 0.375);
}

TEST_CASE("ExactExpectation: a variance is finite though a difference's square is not",
          "[exact_expectation]") {
    // y = s 1e20 with p = 1e-10: variance 1e30, and 1e40 is no float.
    using Layer = StochasticDepth<Residual<Linear<float>>>;
    const Linear<float> large(Matrix<float>::Zero(1, 1), Vector<float>::Constant(1, 1e20F));
    const Stack network{std::vector<Layer>(1, Layer{Residual{large}, SurvivalProbability{1e-10}})};
    const auto answer = ExactExpectation{}(network, Matrix<float>::Zero(1, 1));
    CHECK(std::abs(answer.mean(0) / 1e10F - 1) <= 1e-6F);
    CHECK(std::abs(answer.variance(0) / 1e30F - 1) <= 1e-6F);
}

}  // namespace
