// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <stochastic_depth/layers/probability/softmax.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/probe_layers.hpp"
#include "support/skippable_layers.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using plain::OneLinear;
using plain::TwoLinears;

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

long double largest(const std::vector<long double>& values) {
    long double size = 0;
    for (const long double value : values) size = std::max(size, std::abs(value));
    return size;
}

struct Worst {
    double mean = 0, variance = 0;
};

/// The largest errors over a batch, relative to the largest |E y_i| and the largest Var y_i of the
/// column that an entry stands in: an entry that cancels to next to nothing is not asked for more
/// digits than its neighbours have.
template <class Library, class Scalar, class Output>
Worst compare(const plain::Network& network, const Library& library, const Matrix<Scalar>& x,
              const Output& output) {
    const auto exact = ExactExpectation{}(library, x);
    Worst worst;
    for (Index j = 0; j < x.cols(); ++j) {
        const plain::Moments expected = network.moments(plain::column(x, j), output);
        REQUIRE(exact.mean.rows() == static_cast<Index>(expected.mean.size()));
        const long double mean_scale = largest(expected.mean);
        const long double variance_scale = largest(expected.variance);
        for (Index i = 0; i < exact.mean.rows(); ++i) {
            const auto at = static_cast<std::size_t>(i);
            const long double mean_error = std::abs(exact.mean(i, j) - expected.mean[at]);
            const long double variance_error =
                std::abs(exact.variance(i, j) - expected.variance[at]);
            // A NaN must not pass for a small error.
            REQUIRE(mean_error >= 0);
            REQUIRE(variance_error >= 0);
            REQUIRE(exact.variance(i, j) >= 0);
            if (mean_error > 0)
                worst.mean = std::max(worst.mean, static_cast<double>(mean_error / mean_scale));
            if (variance_error > 0)
                worst.variance =
                    std::max(worst.variance, static_cast<double>(variance_error / variance_scale));
        }
    }
    return worst;
}

const auto itself = [](const std::vector<long double>& y) { return y; };

/// Float weights are what the plain network of a float network must have.
void round_to_float(plain::Network& network) {
    const auto round = [](plain::Affine& affine) {
        for (double& weight : affine.weights) weight = static_cast<float>(weight);
        for (double& bias : affine.bias) bias = static_cast<float>(bias);
    };
    if (network.stem) round(*network.stem);
    if (network.head) round(*network.head);
    for (plain::Block& block : network.blocks) {
        round(block.first);
        if (block.second) round(*block.second);
    }
}

/// Random networks of every depth up to `deepest`, of many widths.
template <class Branch, bool Ends>
Worst worst_of_random_networks(std::uint32_t seed, plain::Activation activation,
                               std::size_t deepest = 13) {
    using Scalar = typename Branch::Scalar;
    Philox random{seed};
    Worst worst;
    for (std::size_t depth = 0; depth <= deepest; ++depth) {
        // A few columns where masks are few, one where they are many; all widths come by.
        const Index columns = depth < 7 ? 3 : 1;
        for (const std::size_t step : {0u, 7u, 13u}) {
            if (depth > 11 && step != 7) continue;
            const std::size_t width = 1 + (3 * depth + step + seed) % 20;
            auto network = plain::random_network(
                random, {depth, width, std::tuple_size_v<std::remove_cvref_t<decltype(std::declval<Branch>().layers())>> == 2 ? 1 : 2, activation, Ends});
            if constexpr (std::is_same_v<Scalar, float>) round_to_float(network);
            const auto x =
                test::random_matrix<Scalar>(random, Ends ? 3 : static_cast<Index>(width), columns);
            Worst here;
            if constexpr (Ends)
                here = compare(network, plain::to_library<Branch>(network), x, itself);
            else
                here = compare(network, plain::to_blocks<Branch>(network), x, itself);
            worst.mean = std::max(worst.mean, here.mean);
            worst.variance = std::max(worst.variance, here.variance);
        }
    }
    return worst;
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

TEST_CASE("ExactExpectation: brute force in long double on random networks",
          "[exact_expectation]") {
    using plain::Activation;
    const auto check = [](const char* what, Worst worst, double tolerance) {
        INFO(what << ": mean " << worst.mean << ", variance " << worst.variance);
        CHECK(worst.mean <= tolerance);
        CHECK(worst.variance <= tolerance);
        // Errors of exactly 0 everywhere would mean that nothing was compared.
        CHECK(worst.mean > 0);
        CHECK(worst.variance > 0);
    };
    check("W relu",
          worst_of_random_networks<OneLinear<double, ReLU<double>>, true>(1, Activation::relu),
          1e-13);
    check("W tanh",
          worst_of_random_networks<OneLinear<double, Tanh<double>>, false>(2, Activation::tanh),
          1e-13);
    check("W relu W",
          worst_of_random_networks<TwoLinears<double, ReLU<double>>, false>(3, Activation::relu),
          1e-13);
    check("W tanh W",
          worst_of_random_networks<TwoLinears<double, Tanh<double>>, true>(4, Activation::tanh),
          1e-13);
}

TEST_CASE("ExactExpectation: float networks keep the precision of float", "[exact_expectation]") {
    using plain::Activation;
    const auto check = [](const char* what, Worst worst, double tolerance) {
        INFO(what << ": mean " << worst.mean << ", variance " << worst.variance);
        CHECK(worst.mean <= tolerance);
        CHECK(worst.variance <= tolerance);
        CHECK(worst.mean > 0);
    };
    // 2^-24 is 6e-8; a mean in which terms of both signs cancel loses a digit or two of it.
    check("W relu W",
          worst_of_random_networks<TwoLinears<float, ReLU<float>>, true>(5, Activation::relu, 11),
          1e-5);
    check("W tanh",
          worst_of_random_networks<OneLinear<float, Tanh<float>>, false>(6, Activation::tanh, 11),
          1e-5);
}

TEST_CASE("ExactExpectation: class probabilities, with the softmax inside the expectation",
          "[exact_expectation]") {
    Philox random{11};
    const plain::Network network =
        plain::random_network(random, {9, 12, 1, plain::Activation::relu, true});
    const auto logits = plain::to_library<OneLinear<double, ReLU<double>>>(network);
    const Sequential classifier{logits, Softmax<double>{}};
    const auto x = test::random_matrix<double>(random, 3, 4);
    const auto softmax = [](std::vector<long double> y) {
        long double sum = 0;
        for (long double& z : y) sum += z = std::exp(z);
        for (long double& z : y) z /= sum;
        return y;
    };
    const Worst worst = compare(network, classifier, x, softmax);
    CHECK(worst.mean <= 1e-13);
    CHECK(worst.variance <= 1e-13);
    const auto probabilities = ExactExpectation{}(classifier, x);
    for (Index j = 0; j < x.cols(); ++j)
        CHECK(std::abs(probabilities.mean.col(j).sum() - 1.0) <= 1e-15);
    // Outside it the answer is another one: the softmax of the mean logits.
    Eigen::MatrixXd outside(2, 4);
    Softmax<double>{}.forward(ExactExpectation{}(logits, x).mean, outside);
    CHECK((outside - probabilities.mean).cwiseAbs().maxCoeff() > 1e-3);
}

/// Mean and covariance through x + W x + b kept with p:
///     m' = A m + p b,  C' = A C A^T + p (1 - p) (W C W^T + (W m + b) (W m + b)^T),  A = I + p W.
template <class Layer>
void check_linear_branches(const std::vector<Linear<double>>& branches, const Eigen::VectorXd& p,
                           const Layer& make) {
    using LongMatrix = Matrix<long double>;
    using LongVector = Vector<long double>;
    std::vector<decltype(make(branches[0], 0.5))> layers;
    for (std::size_t l = 0; l < branches.size(); ++l)
        layers.push_back(make(branches[l], p(static_cast<Index>(l))));
    const Stack network{layers};
    Philox random{77};
    const Index width = branches[0].inputs();
    const auto x = test::random_matrix<double>(random, width, 2);
    const auto exact = ExactExpectation{}(network, x);
    for (Index j = 0; j < x.cols(); ++j) {
        LongVector mean = x.col(j).cast<long double>();
        LongMatrix covariance = LongMatrix::Zero(width, width);
        for (std::size_t l = 0; l < branches.size(); ++l) {
            const LongMatrix w = branches[l].weights().template cast<long double>();
            const long double kept = p(static_cast<Index>(l));
            const LongMatrix a = LongMatrix::Identity(width, width) + kept * w;
            const LongVector branch = w * mean + branches[l].bias().template cast<long double>();
            const LongMatrix spread = w * covariance * w.transpose() + branch * branch.transpose();
            covariance = LongMatrix(a * covariance * a.transpose() + kept * (1 - kept) * spread);
            mean += kept * branch;
        }
        const long double size = mean.cwiseAbs().maxCoeff();
        const long double spread = covariance.diagonal().maxCoeff();
        INFO("column " << j << ", L = " << branches.size());
        for (Index i = 0; i < width; ++i) {
            CHECK(near(exact.mean(i, j), mean(i), size, 1e-13));
            CHECK(near(exact.variance(i, j), covariance(i, i), spread, 1e-13));
        }
    }
}

TEST_CASE("ExactExpectation: linear branches give prod(I + p_l W_l) x and its covariance",
          "[exact_expectation]") {
    Philox random{21};
    const auto layer = [](const Linear<double>& branch, double p) {
        return StochasticDepth{Residual{branch}, SurvivalProbability{p}};
    };
    for (const Index depth : {1, 2, 5, 11, 16})
        for (const Index width : {1, 4, 9}) {
            std::vector<Linear<double>> branches;
            Eigen::VectorXd p(depth);
            for (Index l = 0; l < depth; ++l) {
                branches.push_back(plain::to_linear<double>(
                    plain::random_affine(random, static_cast<std::size_t>(width),
                                         static_cast<std::size_t>(width), 0.7)));
                p(l) = uniform<double>(random, 0.01, 1.0);
            }
            check_linear_branches(branches, p, layer);
        }
    SECTION("at widths known at compile time") {
        std::vector<Linear<double>> branches;
        for (Index l = 0; l < 8; ++l) branches.emplace_back(4, 4, random, 0.7);
        check_linear_branches(branches, Eigen::VectorXd::LinSpaced(8, 0.2, 0.95),
                              [](const Linear<double>& branch, double p) {
                                  return StochasticDepth{Residual{Linear<double, 4, 4>{
                                                             branch.weights(), branch.bias()}},
                                                         SurvivalProbability{p}};
                              });
    }
}

template <class Scalar>
void check_variance_is_not_negative(std::uint32_t seed) {
    using Branch = TwoLinears<Scalar, ReLU<Scalar>>;
    Philox random{seed};
    const double extremes[] = {5e-324,
                               1e-300,
                               1e-40,
                               1e-8,
                               0.5,
                               1 - 1e-6,
                               std::nextafter(1.0, 0.0),
                               static_cast<double>(std::nextafter(1.0f, 0.0f)),
                               1.0};
    for (int trial = 0; trial < 60; ++trial) {
        plain::Network network = plain::random_network(
            random, {6, 1 + static_cast<std::size_t>(trial) % 9, 2, plain::Activation::relu, true});
        // Huge and tiny activations, and branches that change nothing but the last digits.
        const double size = std::pow(10.0, trial % 7 * 2 - 6);
        for (double& weight : network.stem->weights) weight *= size;
        for (plain::Block& block : network.blocks) {
            block.p = extremes[random() % std::size(extremes)];
            if (trial % 3 == 0)
                for (double& weight : block.second->weights) weight *= 1e-9;
        }
        const auto x = test::random_matrix<Scalar>(random, 3, 7);
        const auto exact = ExactExpectation{}(plain::to_library<Branch>(network), x);
        // Written so that NaN fails.
        const bool holds = (exact.variance.array() >= Scalar(0)).all() && exact.mean.allFinite();
        INFO("trial " << trial);
        REQUIRE(holds);
    }
}

TEST_CASE("ExactExpectation: no variance is negative, however extreme the survival probabilities",
          "[exact_expectation]") {
    check_variance_is_not_negative<double>(31);
    check_variance_is_not_negative<float>(32);
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
        CHECK_THROWS_AS(none(deep(1, 0.5), x), std::length_error);
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
        CHECK_THROWS_AS((ExactExpectation{{.max_layer_evaluations = 59}}(deep(60, 1.0), x)),
                        std::length_error);
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

}  // namespace
