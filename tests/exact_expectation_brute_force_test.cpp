// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/exact_expectation.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"

namespace {

using namespace stochastic_depth;
using plain::OneLinear;
using plain::TwoLinears;

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

/// How many Linear layers a branch has, beside its one activation.
template <class Branch>
constexpr int linears_of =
    std::tuple_size_v<std::remove_cvref_t<decltype(std::declval<Branch>().layers())>> - 1;

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
            auto network =
                plain::random_network(random, {depth, width, linears_of<Branch>, activation, Ends});
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

TEST_CASE("ExactExpectation: brute force in long double on random networks",
          "[exact_expectation_brute_force]") {
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

TEST_CASE("ExactExpectation: float networks keep the precision of float",
          "[exact_expectation_brute_force]") {
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
          "[exact_expectation_brute_force]") {
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
          "[exact_expectation_brute_force]") {
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
          "[exact_expectation_brute_force]") {
    check_variance_is_not_negative<double>(31);
    check_variance_is_not_negative<float>(32);
}

}  // namespace
