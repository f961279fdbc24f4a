// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/loss.hpp>

#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/training/binary_cross_entropy.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/training/trainer.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using Network = Sequential<Linear<double>>;
using test::parameters;
using test::refusal;

/// A user's loss on one logit, with labels that may be of two classes; checked or not.
struct Logistic {
    using Targets = Eigen::VectorXi;
    double value_and_gradient(const ConstMatrixRef<double>& z, const Targets& labels,
                              MatrixRef<double> gradient) const {
        double sum = 0;
        for (Index j = 0; j < z.cols(); ++j) {
            const double sign = labels(j) == 1 ? -1 : 1;
            sum += std::log1p(std::exp(sign * z(0, j)));
            gradient(0, j) = sign / (1 + std::exp(-sign * z(0, j))) / static_cast<double>(z.cols());
        }
        return sum / static_cast<double>(z.cols());
    }
};
struct CheckedLogistic : Logistic {
    void check_targets(Index outputs, const Targets& labels) const {
        if (outputs != 1 || (labels.array() > 1).any())
            throw std::invalid_argument("CheckedLogistic: one logit, two classes");
    }
};

static_assert(LossOf<Logistic, double> && LossOf<CheckedLogistic, double>);
static_assert(LossOf<BinaryCrossEntropy<double>, double>);
static_assert(!LossOf<int, double>);

struct Problem {
    Philox random{1};
    Eigen::MatrixXd x = test::random_matrix<double>(random, 2, 50);
    Eigen::VectorXi labels = (x.row(0).array() > 0).cast<int>().transpose();
    Network one_logit{Linear<double>{2, 1, random}};
    Network two_logits{Linear<double>{2, 2, random}};
};

TEST_CASE("a loss: a binary one trains one logit, with Trainer as with a step of one's own",
          "[loss]") {
    const Problem problem;
    const Dataset<double> data{problem.x, problem.labels, 2};
    const auto first_loss = [&](const auto& loss) {
        Network network = problem.one_logit;
        TrainingStep step{network, loss};
        return step.differentiate(network, problem.x, problem.labels, std::uint64_t{0}).loss;
    };
    const auto trained = [&](const auto& loss) {
        Network network = problem.one_logit;
        const auto history =
            Trainer{{.batch_size = 50, .epochs = 200, .optimizer = {.learning_rate = 1}}}.fit(
                network, data, loss);
        CHECK(std::abs(history.front().loss - first_loss(loss)) <= 1e-15);
        CHECK(history.back().loss < 0.2 * history.front().loss);
        return network;
    };
    const Eigen::VectorXd own = parameters(trained(Logistic{}));
    CHECK(test::same_bits(own, parameters(trained(CheckedLogistic{}))));
    CHECK((own - parameters(trained(BinaryCrossEntropy<double>{}))).cwiseAbs().maxCoeff() <= 1e-12);
}

TEST_CASE("a loss: what it cannot be trained on it refuses, before the first step", "[loss]") {
    Problem problem;
    problem.labels(7) = 2;
    const auto trainer = [&](Network network, const auto& loss) {
        const Eigen::VectorXd before = parameters(network);
        const std::string message = refusal([&] {
            (void)Trainer{{.batch_size = 1, .epochs = 1}}.fit(
                network, Dataset<double>{problem.x, problem.labels, 3}, loss);
        });
        // Steps of one sample: not one of them was done.
        CHECK(test::same_bits(parameters(network), before));
        return message;
    };
    const auto step = [&](const Network& network, const auto& loss) {
        TrainingStep one{network, loss};
        const std::string message = refusal(
            [&] { one.differentiate(network, problem.x, problem.labels, std::uint64_t{0}); });
        CHECK(one.cache_bytes() == 0);  // refused before the forward pass
        return message;
    };
    const std::string own = "CheckedLogistic: one logit, two classes";
    CHECK(trainer(problem.one_logit, CheckedLogistic{}) == own);
    CHECK(trainer(problem.two_logits, CheckedLogistic{}) == own);
    CHECK(step(problem.one_logit, CheckedLogistic{}) == own);
    const BinaryCrossEntropy<double> binary;
    const std::string label = "BinaryCrossEntropy: labels must lie in [0, 2), got 2 for sample 7";
    CHECK(trainer(problem.one_logit, binary) == label);
    CHECK(step(problem.one_logit, binary) == label);
    CHECK(step(problem.two_logits, binary) ==
          "BinaryCrossEntropy: labels are for 1 output, got 2 outputs");
}

}  // namespace
