// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/predictive_uncertainty.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"

namespace {

using namespace stochastic_depth;
using Branch = plain::OneLinear<double, Tanh<double>>;

/// Class probabilities, and below them their entropy.
std::vector<long double> probabilities_and_entropy(const std::vector<long double>& logits) {
    long double sum = 0;
    const long double largest = *std::max_element(logits.begin(), logits.end());
    for (const long double logit : logits) sum += std::exp(logit - largest);
    std::vector<long double> result;
    long double entropy = 0;
    for (const long double logit : logits) {
        result.push_back(std::exp(logit - largest) / sum);
        entropy -= result.back() * (logit - largest - std::log(sum));
    }
    result.push_back(entropy);
    return result;
}

struct PlainUncertainty {
    std::vector<long double> probabilities;
    long double predictive = 0, expected = 0;
};

PlainUncertainty plain_uncertainty(const plain::Network& network,
                                   const std::vector<long double>& x) {
    PlainUncertainty result;
    result.probabilities = network.moments(x, probabilities_and_entropy).mean;
    result.expected = result.probabilities.back();
    result.probabilities.pop_back();
    for (const long double p : result.probabilities) result.predictive -= p * std::log(p);
    return result;
}

double relative(long double value, long double exact, long double scale) {
    return static_cast<double>(std::abs(value - exact) / scale);
}

TEST_CASE("predictive_uncertainty: exact on 250 random networks, against all masks in long double",
          "[predictive_uncertainty]") {
    Philox random{41};
    double worst = 0, worst_difference = 0, least = 1, largest = 0;
    for (std::size_t k = 0; k < 250; ++k) {
        const std::size_t depth = k % 9, width = 2 + k % 5;
        const bool ends = k % 2 == 0;
        auto plain =
            plain::random_network(random, {depth, width, 1, plain::Activation::tanh, true});
        if (ends) plain.head = plain::random_affine(random, 2 + k % 7, width, 3.0);
        const auto library = plain::to_library<Branch>(plain);
        const Matrix<double> x = test::random_matrix<double>(random, 3, 2);
        const auto result = predictive_uncertainty(ExactExpectation{}, library, x);
        REQUIRE(result.probabilities.rows() == library.output_size(3));
        CHECK(result.layer_evaluations == static_cast<double>((1u << depth) - 1));
        for (Index j = 0; j < 2; ++j) {
            const PlainUncertainty exact = plain_uncertainty(plain, plain::column(x, j));
            double here = 0;
            for (Index i = 0; i < result.probabilities.rows(); ++i) {
                const long double p = exact.probabilities[static_cast<std::size_t>(i)];
                here = std::max(here, relative(result.probabilities(i, j), p, p));
            }
            here = std::max(
                here, relative(result.predictive_entropy(j), exact.predictive, exact.predictive));
            here = std::max(here,
                            relative(result.expected_entropy(j), exact.expected, exact.expected));
            worst = std::max(worst, here);
            REQUIRE(here <= 1e-12);
            // A difference of the two: its error is relative to these.
            const long double information = exact.predictive - exact.expected;
            const double error =
                relative(result.mutual_information(j), information, exact.predictive);
            REQUIRE(error <= 1e-12);
            REQUIRE(result.mutual_information(j) >= 0);
            worst_difference = std::max(worst_difference, error);
            if (depth > 0) least = std::min(least, result.mutual_information(j));
            largest = std::max(largest, result.mutual_information(j));
        }
    }
    CAPTURE(worst, worst_difference, least);
    // The networks were worth looking at.
    CHECK(largest > 0.05);
}

/// A rule that remembers what MonteCarloExpectation answered.
struct Remembering {
    MonteCarloExpectation rule;
    Matrix<double>* mean;
    template <class Network>
    auto operator()(const Network& network, const ConstMatrixRef<double>& x) const {
        auto result = rule(network, x);
        *mean = result.mean;
        return result;
    }
};

TEST_CASE("predictive_uncertainty: from samples it is what the samples say",
          "[predictive_uncertainty]") {
    Philox random{42};
    const auto plain = plain::random_network(random, {6, 5, 1, plain::Activation::tanh, true});
    const auto library = plain::to_library<Branch>(plain);
    const Matrix<double> x = test::random_matrix<double>(random, 3, 4);
    const MonteCarloExpectation rule{{.samples = 37, .seed = 5}};
    Matrix<double> mean;
    const auto result = predictive_uncertainty(Remembering{rule, &mean}, library, x);
    const auto probabilities = rule(Sequential{library, Softmax<double>{}}, x);
    CHECK(test::same_bits(result.probabilities, probabilities.mean));
    CHECK(result.layer_evaluations == probabilities.layer_evaluations);
    REQUIRE(mean.rows() == 3);
    CHECK(test::same_bits(result.expected_entropy, mean.row(2).transpose()));
    for (Index j = 0; j < 4; ++j) {
        const double p = mean(0, j), q = mean(1, j);
        CHECK(std::abs(result.predictive_entropy(j) + p * std::log(p) + q * std::log(q)) <= 1e-15);
        CHECK(std::abs(result.mutual_information(j) + result.expected_entropy(j) -
                       result.predictive_entropy(j)) <= 1e-15);
    }
    // One mask can't disagree with itself.
    const auto one = predictive_uncertainty(MonteCarloExpectation{{.samples = 1}}, library, x);
    for (Index j = 0; j < 4; ++j) CHECK(one.mutual_information(j) <= 1e-15);
}

// The mean of R = 20,000 plug-in estimates has a standard error of about 1.2e-4, a thirtieth of the
// bias; both bounds are 5 of these, measured from the estimates: false alarms of 6e-7 each. Masks
// of different seeds are independent.
TEST_CASE("predictive_uncertainty: a sampled predictive entropy is too low by the stated bias",
          "[predictive_uncertainty]") {
    Philox random{43};
    auto plain = plain::random_network(random, {4, 3, 1, plain::Activation::tanh, true});
    plain.head = plain::random_affine(random, 3, 3, 2.0);
    const auto library = plain::to_library<Branch>(plain);
    const Matrix<double> x = test::random_matrix<double>(random, 3, 1);
    const auto exact = ExactExpectation{}(Sequential{library, Softmax<double>{}}, x);
    const double entropy =
        predictive_uncertainty(ExactExpectation{}, library, x).predictive_entropy(0);
    const Index n = 30;
    const double bias = (exact.variance.col(0).array() / exact.mean.col(0).array()).sum() /
                        (2.0 * static_cast<double>(n));
    const int replications = 20000;
    double sum = 0, squares = 0;
    for (int r = 0; r < replications; ++r) {
        const MonteCarloExpectation rule{{.samples = n, .seed = static_cast<std::uint64_t>(r)}};
        const double below =
            entropy - predictive_uncertainty(rule, library, x).predictive_entropy(0);
        sum += below;
        squares += below * below;
    }
    const double mean = sum / replications;
    const double error = std::sqrt((squares / replications - mean * mean) / replications);
    CAPTURE(mean, error, bias);
    CHECK(mean > 5 * error);
    // The next order is about 1 / n of the first.
    CHECK(std::abs(mean - bias) <= 5 * error + 3 * bias / static_cast<double>(n));
}

TEST_CASE("predictive_uncertainty: no masks to disagree, columns alone, float, NaN, no columns",
          "[predictive_uncertainty]") {
    Philox random{44};
    auto plain = plain::random_network(random, {5, 4, 1, plain::Activation::tanh, true});
    const Matrix<double> x = test::random_matrix<double>(random, 3, 7);
    const auto library = plain::to_library<Branch>(plain);
    const auto result = predictive_uncertainty(ExactExpectation{{.threads = 2}}, library, x);
    for (Index j = 0; j < 7; ++j) {
        const auto alone = predictive_uncertainty(ExactExpectation{}, library, x.col(j));
        CHECK(test::same_bits(alone.probabilities, result.probabilities.col(j)));
        CHECK(alone.mutual_information(0) == result.mutual_information(j));
        CHECK(alone.predictive_entropy(0) == result.predictive_entropy(j));
    }
    CHECK(predictive_uncertainty(ExactExpectation{}, library, x.leftCols(0))
              .mutual_information.size() == 0);

    Matrix<double> sick = x;
    sick(1, 3) = std::numeric_limits<double>::quiet_NaN();
    const auto with_nan = predictive_uncertainty(ExactExpectation{}, library, sick);
    CHECK(std::isnan(with_nan.mutual_information(3)));
    CHECK(std::isnan(with_nan.predictive_entropy(3)));
    CHECK(with_nan.mutual_information(2) == result.mutual_information(2));

    for (plain::Block& block : plain.blocks) block.p = 1;
    const auto certain =
        predictive_uncertainty(ExactExpectation{}, plain::to_library<Branch>(plain), x);
    CHECK((certain.mutual_information.array() <= 1e-15).all());
    CHECK((certain.expected_entropy.array() > 0).all());
}

}  // namespace
