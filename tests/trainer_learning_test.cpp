// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/trainer.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <tuple>
#include <vector>

#include <Eigen/QR>

#include <stochastic_depth/analysis/classification.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/schedules.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"

namespace {

using namespace stochastic_depth;
using test::largest_difference;
using test::parameters;
using test::random_matrix;
using test::same_bits;

using Curve = Dataset<double, Matrix<double>>;
using LinearBlock = StochasticDepth<Residual<Linear<double>>>;

/// Least squares by QR: [W b] with the smallest |W x + b - t|^2.
Eigen::MatrixXd least_squares(const Eigen::MatrixXd& x, const Eigen::MatrixXd& t) {
    Eigen::MatrixXd with_one(x.rows() + 1, x.cols());
    with_one << x, Eigen::RowVectorXd::Ones(x.cols());
    return with_one.transpose().colPivHouseholderQr().solve(t.transpose()).transpose();
}

Eigen::MatrixXd weights_and_bias(const Linear<double>& layer) {
    Eigen::MatrixXd joined(layer.outputs(), layer.inputs() + 1);
    joined << layer.weights(), layer.bias();
    return joined;
}

TEST_CASE("Trainer: linear regression ends at the least-squares solution", "[trainer_learning]") {
    Philox random{1};
    const auto x = random_matrix<double>(random, 3, 40);
    const Eigen::MatrixXd t =
        random_matrix<double>(random, 2, 3) * x + 0.5 * random_matrix<double>(random, 2, 40);
    const Trainer trainer{{.batch_size = 40,
                           .epochs = 600,
                           .optimizer = {.learning_rate = 0.4, .momentum = 0.8, .nesterov = true}}};
    Sequential network{Linear<double>{3, 2, random}};
    const auto history = trainer.fit(network, Curve{x, t}, MeanSquaredError<double>{});
    const Eigen::MatrixXd best = least_squares(x, t);
    CHECK(largest_difference(weights_and_bias(std::get<0>(network.layers())), best) <= 1e-10);
    // The last epoch's loss is that of the solution; noise keeps it away from 0.
    const double residual =
        (best.leftCols(3) * x + best.rightCols(1).replicate(1, 40) - t).squaredNorm() / 80;
    CHECK(residual > 1e-3);
    CHECK(std::abs(history.back().loss - residual) <= 1e-12);
}

TEST_CASE("Trainer: a skippable linear layer learns the same as one that is always kept",
          "[trainer_learning]") {
    // The expected loss of x + s (W x + b) is p |x + W x + b - t|^2 + (1 - p) |x - t|^2: its
    // minimum is the least-squares fit of t - x, for any p.
    Philox random{2};
    const auto x = random_matrix<double>(random, 3, 30);
    const Eigen::MatrixXd exact_targets = random_matrix<double>(random, 3, 3) * x;
    const Eigen::MatrixXd noisy_targets =
        exact_targets + 0.3 * random_matrix<double>(random, 3, 30);
    const auto fitted = [&](const Eigen::MatrixXd& t, MaskScope scope) {
        Sequential network{
            LinearBlock{Residual{Linear<double>{3, 3, random}}, SurvivalProbability{0.6}}};
        const Trainer trainer{{.batch_size = 30,
                               .epochs = 2000,
                               .seed = 3,
                               .mask_scope = scope,
                               .optimizer = {.learning_rate = 0.5, .momentum = 0.5}}};
        (void)trainer.fit(network, Curve{x, t}, MeanSquaredError<double>{});
        return weights_and_bias(std::get<0>(network.layers()).layer().branch());
    };
    CHECK(largest_difference(fitted(noisy_targets, MaskScope::batch),
                             least_squares(x, noisy_targets - x)) <= 1e-9);
    // With masks for each sample the steps are noisy, but for targets that can be met.
    CHECK(largest_difference(fitted(exact_targets, MaskScope::sample),
                             least_squares(x, exact_targets - x)) <= 1e-9);
}

/// A ring around a disc.
Dataset<double> rings(Philox& random, Index samples) {
    Eigen::MatrixXd x(2, samples);
    Eigen::VectorXi labels(samples);
    for (Index j = 0; j < samples; ++j) {
        labels(j) = static_cast<int>(j % 2);
        const double radius =
            labels(j) == 0 ? uniform<double>(random, 0.0, 0.7) : uniform<double>(random, 1.3, 2.0);
        const double angle = uniform<double>(random, 0.0, 2 * std::numbers::pi);
        x.col(j) << radius * std::cos(angle), radius * std::sin(angle);
    }
    return {x, labels, 2};
}

auto classifier(Philox& random, Index depth, double final_survival) {
    using Block = StochasticDepth<Residual<Sequential<Linear<double>, ReLU<double>>>>;
    const Eigen::VectorXd p = linear_decay(depth, final_survival);
    std::vector<Block> blocks;
    for (Index l = 0; l < depth; ++l)
        blocks.emplace_back(
            Residual{Sequential{Linear<double>{12, 12, random, 0.5}, ReLU<double>{}}},
            SurvivalProbability{p(l)});
    return Sequential{Linear<double>{2, 12, random}, Stack<Block>{blocks},
                      Linear<double>{12, 2, random}};
}

TEST_CASE("Trainer: two classes that no line separates are learned to zero error",
          "[trainer_learning]") {
    for (const MaskScope scope : {MaskScope::sample, MaskScope::batch}) {
        Philox random{4};
        const auto data = rings(random, 160);
        auto network = classifier(random, 5, 0.8);
        const Trainer trainer{{.batch_size = 20,
                               .epochs = 80,
                               .seed = 5,
                               .mask_scope = scope,
                               .optimizer = {.momentum = 0.9},
                               .learning_rate = [](double share) { return 0.05 * (1 - share); }}};
        CHECK(error_rate(ExactExpectation{}(network, data.inputs()).mean, data.labels()) > 0.2);
        const auto history = trainer.fit(network, data, SoftmaxCrossEntropy<double>{});
        REQUIRE(history.size() == 80);
        CHECK(history.back().loss < 0.3 * history.front().loss);
        CHECK(error_rate(ExactExpectation{}(network, data.inputs()).mean, data.labels()) == 0.0);
        // And samples that it has not seen; the gap between disc and ring is wide.
        const auto unseen = rings(random, 400);
        CHECK(error_rate(ExactExpectation{}(network, unseen.inputs()).mean, unseen.labels()) <
              0.05);
    }
}

TEST_CASE("Trainer: the same options give the same bits, another seed does not",
          "[trainer_learning]") {
    Philox random{6};
    const auto data = rings(random, 50);
    const auto trained = [&](std::uint64_t seed, MaskScope scope) {
        Philox weights{7};
        auto network = classifier(weights, 3, 0.5);
        const Trainer trainer{{.batch_size = 16, .epochs = 3, .seed = seed, .mask_scope = scope}};
        const auto history = trainer.fit(network, data, SoftmaxCrossEntropy<double>{});
        Eigen::VectorXd all = parameters(network);
        all.conservativeResize(all.size() + 3);
        for (Index e = 0; e < 3; ++e)
            all(all.size() - 3 + e) = history[static_cast<std::size_t>(e)].loss;
        return all;
    };
    for (const MaskScope scope : {MaskScope::sample, MaskScope::batch}) {
        CHECK(same_bits(trained(1, scope), trained(1, scope)));
        CHECK_FALSE(same_bits(trained(1, scope), trained(2, scope)));
    }
    CHECK_FALSE(same_bits(trained(1, MaskScope::sample), trained(1, MaskScope::batch)));
}

TEST_CASE("Trainer: float networks train, and batches of one sample are batches",
          "[trainer_learning]") {
    Philox random{26};
    const auto x = random_matrix<float>(random, 2, 30);
    const Eigen::MatrixXf weights = random_matrix<float>(random, 2, 2);
    const Dataset<float, Matrix<float>> data{x, Matrix<float>(weights * x)};
    Sequential network{
        StochasticDepth{Residual{Linear<float>{2, 2, random}}, SurvivalProbability{0.5}}};
    const Trainer trainer{{.batch_size = 1, .epochs = 80, .optimizer = {.learning_rate = 0.2}}};
    const auto history = trainer.fit(network, data, MeanSquaredError<float>{});
    const Eigen::MatrixXf branch = std::get<0>(network.layers()).layer().branch().weights();
    CHECK(largest_difference(branch, Eigen::MatrixXf(weights - Eigen::MatrixXf::Identity(2, 2))) <=
          1e-5);
    CHECK(history.back().loss < history.front().loss);
}

}  // namespace
