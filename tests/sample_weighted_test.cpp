// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/sample_weighted.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/trainer.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/loss_slopes.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using Eigen::VectorXi;
using Network = Sequential<Linear<double>>;
using test::random_matrix;
using test::refusal;

constexpr double inf = std::numeric_limits<double>::infinity();

TEST_CASE("SampleWeighted: a whole weight is a sample that often, 0 a sample left out",
          "[sample_weighted]") {
    Philox random{1};
    const MatrixXd y = random_matrix<double>(random, 3, 4), t = random_matrix<double>(random, 3, 4);
    const VectorXi labels{{2, 0, 1, 1}};
    const VectorXd weights{{2, 0, 1, 1}};
    const std::vector<Index> often{0, 0, 2, 3};
    MatrixXd gradient(3, 4), expected(3, 4);
    const auto check = [&](const auto& loss, const auto& targets, const auto& repeated) {
        const SampleWeighted weighted{loss};
        const MatrixXd of_repeated = y(Eigen::all, often);
        const double value = loss.value_and_gradient(of_repeated, repeated, expected);
        CHECK(std::abs(weighted.value_and_gradient(y, {targets, weights}, gradient) - value) <=
              1e-15);
        expected.col(0) += expected.col(1);
        expected.col(1).setZero();
        CHECK((gradient - expected).cwiseAbs().maxCoeff() <= 1e-16);
        CHECK(test::loss_slope_error(weighted, y, {targets, VectorXd{{0.3, 1.7, 0, 2}}}) <= 1e-11);
        // All 1: the loss itself.
        CHECK(std::abs(weighted.value_and_gradient(y, {targets, VectorXd::Ones(4)}, gradient) -
                       loss.value(y, targets)) <= 1e-15);
    };
    check(SoftmaxCrossEntropy<double>{}, labels, VectorXi{{2, 2, 1, 1}});
    check(MeanSquaredError<double>{}, t, MatrixXd{t(Eigen::all, often)});
    // What is left out may be anything.
    MatrixXd broken = y;
    broken(0, 1) = inf;
    CHECK(std::isfinite(SampleWeighted{MeanSquaredError<double>{}}.value_and_gradient(
        broken, {t, weights}, gradient)));
    CHECK(gradient.allFinite());
    CHECK(SampleWeighted{MeanSquaredError<double>{}}.value_and_gradient(
              MatrixXd(3, 0), {MatrixXd(3, 0), VectorXd(0)}, gradient.leftCols(0)) == 0.0);
}

TEST_CASE("SampleWeighted: Trainer hands each sample its weight, and parts of a batch add up",
          "[sample_weighted]") {
    Philox random{2};
    const Network start{Linear<double>{2, 3, random}};
    const MatrixXd x = random_matrix<double>(random, 2, 10);
    const VectorXi labels{{0, 1, 2, 0, 1, 2, 0, 1, 2, 0}};
    const VectorXd weights = VectorXd::LinSpaced(10, 0, 3);
    const SampleWeighted loss{SoftmaxCrossEntropy<double>{}};
    const Dataset data{Dataset{x, labels, 3}, weights};
    // The whole set as one batch, by hand: the order of its samples does not matter.
    Network trained = start, by_hand = start, in_parts = start;
    const double reported =
        Trainer{{.batch_size = 10, .epochs = 1}}.fit(trained, data, loss).front().loss;
    TrainingStep step{by_hand, loss}, parts{in_parts, loss};
    CHECK(std::abs(step.differentiate(by_hand, x, {labels, weights}, 0).loss - reported) <= 1e-15);
    Sgd{by_hand}.step(by_hand, step.gradient());
    CHECK(test::largest_difference(test::parameters(trained), test::parameters(by_hand)) <= 1e-15);
    double sum = 0;
    for (const Index first : {0, 4})
        sum += parts
                   .differentiate(in_parts, x.middleCols(first, first == 0 ? 4 : 6),
                                  {labels.segment(first, first == 0 ? 4 : 6),
                                   weights.segment(first, first == 0 ? 4 : 6)},
                                  0, {.first = first, .of = 10})
                   .loss;
    CHECK(std::abs(sum - reported) <= 1e-15);
    Sgd{in_parts}.step(in_parts, parts.gradient());
    CHECK(test::largest_difference(test::parameters(trained), test::parameters(in_parts)) <= 1e-15);
}

TEST_CASE("SampleWeighted: in small batches the samples keep their own weights",
          "[sample_weighted]") {
    Philox random{3};
    const Network start{Linear<double>{2, 1, random}};
    const MatrixXd x = random_matrix<double>(random, 2, 9), y = x.colwise().sum();
    VectorXd weights = VectorXd::Ones(9);
    weights(4) = 0;
    MatrixXd wrong = y;
    wrong(0, 4) = 1e3;  // an outlier that nobody hears
    const auto trained = [&](const MatrixXd& targets) {
        Network network = start;
        (void)Trainer{{.batch_size = 2, .epochs = 3}}.fit(
            network, Dataset{Dataset{x, targets}, weights},
            SampleWeighted{MeanSquaredError<double>{}});
        return test::parameters(network);
    };
    CHECK(test::same_bits(trained(y), trained(wrong)));
    CHECK_FALSE(test::same_bits(trained(y), test::parameters(start)));
}

TEST_CASE("SampleWeighted: weights that are none are refused, and nothing is written",
          "[sample_weighted]") {
    const SampleWeighted loss{MeanSquaredError<double>{}};
    const MatrixXd y = MatrixXd::Zero(2, 3);
    MatrixXd gradient = MatrixXd::Constant(2, 3, 7.0);
    const auto refused = [&](const MatrixXd& targets, const VectorXd& weights) {
        return refusal([&] { (void)loss.value_and_gradient(y, {targets, weights}, gradient); });
    };
    const std::string range = "SampleWeighted: weights must be finite and at least 0, got ";
    CHECK(refused(y, VectorXd{{1, 1, -1}}) == range + "-1 for sample 2");
    CHECK(refused(y, VectorXd{{1, std::nan(""), 1}}) == range + "nan for sample 1");
    CHECK(refused(y, VectorXd{{inf, 1, 1}}) == range + "inf for sample 0");
    CHECK(refused(y, VectorXd::Ones(2)) ==
          "SampleWeighted: weights must have one entry for each of 3 samples, got 2");
    CHECK(refused(y.leftCols(2), VectorXd::Ones(2)) ==
          "SampleWeighted: targets must be for 3 samples, got 2");
    CHECK(refused(y.topRows(1), VectorXd::Ones(3)) ==
          "MeanSquaredError: targets must be 2 x 3 like the output, got 1 x 3");
    CHECK(refusal([&] {
              (void)loss.value_and_gradient(y, {y, VectorXd::Ones(3)}, gradient.topRows(1));
          }) == "SampleWeighted: gradient must be 2 x 3 like the output, got 1 x 3");
    CHECK((gradient.array() == 7.0).all());
    CHECK(refusal([&] {
              (void)Dataset{Dataset{y, y}, VectorXd::Ones(4)};
          }) == "Dataset: weights must have one entry for each of 3 samples, got 4");
    CHECK(refusal([&] {
              (void)Dataset{Dataset{y, y}, VectorXd{{1, 1, -2}}};
          }) == "Dataset: weights must be finite and at least 0, got -2 for sample 2");
}

}  // namespace
