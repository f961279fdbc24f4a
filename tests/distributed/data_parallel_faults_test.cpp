// SPDX-License-Identifier: MIT
#include <stochastic_depth/distributed/data_parallel.hpp>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>

#include "support/catch.hpp"
#include "support/gradient_networks.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/ranks.hpp"
#include "support/training_problem.hpp"

namespace {
namespace sd = stochastic_depth;
using sd::Index;
using sd::test::Network;
using sd::test::Problem;
using sd::test::rank;
using sd::test::ranks;

bool is_last() { return rank() == ranks() - 1; }

using Loss = sd::MeanSquaredError<double>;

/// Every rank is refused, in words that end with the last rank, whose mistake it is; a single rank
/// that makes it agrees with itself.
template <class Action>
void check_differs(const Action& action, const std::string& words) {
    if (ranks() == 1)
        CHECK_NOTHROW(action());
    else
        CHECK_THROWS_WITH(action(), words + " on rank " + std::to_string(ranks() - 1));
}

TEST_CASE("what all ranks are given wrong is refused by name") {
    const Problem problem;
    const auto make = [&](sd::TrainingStepOptions options, MPI_Comm comm = MPI_COMM_WORLD) {
        (void)sd::DataParallel{problem.network, Loss{}, options, comm};
    };
    CHECK_THROWS_WITH(make({}, MPI_COMM_NULL),
                      "DataParallel: communicator must be one, got MPI_COMM_NULL");
    CHECK_THROWS_WITH(make({.shards = -1}), "DataParallel: shards must be at least 0, got -1");
    if (ranks() == 1)
        CHECK_THROWS_WITH(make({.threads = 0}),
                          "DataParallel: threads must lie in [1, 65535], got 0");
}

TEST_CASE("what differs between the ranks is named on all of them, before the first step") {
    Problem problem;
    const auto make = [&](const sd::TrainingStepOptions& options) {
        (void)sd::DataParallel{problem.network, Loss{}, options, MPI_COMM_WORLD};
    };
    check_differs([&] { make({.seed = is_last() && ranks() > 1 ? 5U : 4U}); },
                  "DataParallel: seed must be the same on every rank, got 4 on rank 0 and 5");
    check_differs([&] { make({.shards = is_last() && ranks() > 1 ? 4 : 8}); },
                  "DataParallel: shards must be the same on every rank, got 8 on rank 0 and 4");
    check_differs(
        [&] {
            make({.mask_scope =
                      is_last() && ranks() > 1 ? sd::MaskScope::batch : sd::MaskScope::sample});
        },
        "DataParallel: mask_scope must be the same on every rank, got sample on rank 0 and batch");
    sd::Philox random{1};
    const Network deeper =
        sd::test::network(random, is_last() && ranks() > 1 ? Eigen::VectorXd{{0.7, 0.5, 0.5}}
                                                           : Eigen::VectorXd{{0.7, 0.5}});
    const auto make_deeper = [&] { (void)sd::DataParallel{deeper, Loss{}, {}, MPI_COMM_WORLD}; };
    check_differs(make_deeper,
                  "DataParallel: the number of layers must be the same on every rank, got 16 on "
                  "rank 0 and 22");
    sd::Philox again{1};
    const Network other_p =
        sd::test::network(again, Eigen::VectorXd{{0.7, is_last() && ranks() > 1 ? 0.25 : 0.5}});
    const auto make_other_p = [&] { (void)sd::DataParallel{other_p, Loss{}, {}, MPI_COMM_WORLD}; };
    check_differs(make_other_p,
                  "DataParallel: layer 1.1 must be the same on every rank, got StochasticDepth, "
                  "survival probability 0.5 on rank 0 and StochasticDepth, survival probability "
                  "0.25");
    if (ranks() == 1) return;
    if (is_last())
        sd::test::for_each_parameter(problem.network, [](double& number) { number += 1; });
    try {
        make({});
        FAIL("ranks with other parameters were taken");
    } catch (const std::invalid_argument& error) {
        const std::string text = error.what();
        CHECK(text.starts_with(
            "DataParallel: the hash of 0.weights [4 x 3] must be the same on every rank, got "));
    }
}

TEST_CASE("what a step gets that differs between the ranks is named, and nothing is changed") {
    const Problem problem;
    sd::DataParallel step{problem.network, Loss{}, {}, MPI_COMM_WORLD};
    const bool other = is_last() && ranks() > 1;
    const Eigen::MatrixXd x = problem.x.leftCols(other ? 4 : 5),
                          targets = problem.targets.leftCols(other ? 4 : 5);
    check_differs(
        [&] { (void)step.differentiate(problem.network, x, targets, 0); },
        "DataParallel: the batch size must be the same on every rank, got 5 on rank 0 and "
        "4");
    check_differs(
        [&] { (void)step.differentiate(problem.network, problem.x, problem.targets, other); },
        "DataParallel: the step t must be the same on every rank, got 0 on rank 0 and 1");
    if (ranks() > 1) {
        CHECK(sd::test::slopes(problem.network, step.gradient()).isZero(0));
        if (other) step.set_survival_probabilities(Eigen::VectorXd{{0.5, 0.5}});
        const auto differentiate = [&] {
            (void)step.differentiate(problem.network, problem.x, problem.targets, 0);
        };
        CHECK_THROWS_AS(differentiate(), std::invalid_argument);
        step.set_survival_probabilities(problem.network.survival_probabilities());
        CHECK_NOTHROW(differentiate());
    }
}

TEST_CASE("a rank must be given the whole batch or its own samples") {
    const Problem problem;
    sd::DataParallel step{problem.network, Loss{}, {.shards = 1}, MPI_COMM_WORLD};
    // With one shard, rank 0 has all samples.
    const auto differentiate = [&] {
        (void)step.differentiate(problem.network, problem.x, problem.targets, 0, {1, 6});
    };
    const std::string words =
        "DataParallel: part must hold the rank's samples, 6 from 0 on of a batch of 6, got 5 from 1 "
        "on";
    if (rank() == 0)
        CHECK_THROWS_WITH(differentiate(), words);
    else
        CHECK_THROWS(differentiate());
}

/// Fails on the samples that have this target.
struct FailsAt {
    using Targets = sd::Matrix<double>;
    double value_and_gradient(const sd::ConstMatrixRef<double>& output, const Targets& targets,
                              sd::MatrixRef<double> gradient) const {
        if ((targets.array() == 77.0).any()) throw sd::test::OwnError{};
        return Loss{}.value_and_gradient(output, targets, gradient);
    }
};

/// The rank whose shard a sample of five is in, of five shards; a rank counts its own samples.
int rank_of_sample(Index sample) {
    for (int r = 0; r < ranks(); ++r) {
        const sd::detail::Consecutive shards = sd::detail::part_of(5, ranks(), r);
        if (shards.first <= sample && sample < shards.end()) return r;
    }
    return -1;
}

TEST_CASE("what one shard fails at, all ranks fail at, and the gradient is what it was") {
    Problem problem;
    const auto check = [&](const auto& loss, const Eigen::MatrixXd& x, const auto& targets,
                           const auto& good, Index sample, const std::string& words) {
        sd::DataParallel step{problem.network, loss, {.shards = 5}, MPI_COMM_WORLD};
        (void)step.differentiate(problem.network, problem.x, good, 0);
        const Eigen::VectorXd before = sd::test::slopes(problem.network, step.gradient());
        const auto differentiate = [&] {
            (void)step.differentiate(problem.network, x, targets, 1);
        };
        if (rank() == rank_of_sample(sample))
            CHECK_THROWS_WITH(differentiate(), words);
        else
            CHECK_THROWS_WITH(
                differentiate(),
                "DataParallel: rank " + std::to_string(rank_of_sample(sample)) + ": " + words);
        CHECK(sd::test::same_bits(sd::test::slopes(problem.network, step.gradient()), before));
        // And they go on together.
        sd::DataParallel other{problem.network, loss, {.shards = 5}, MPI_COMM_WORLD};
        step.finish(problem.network);
        (void)step.differentiate(problem.network, problem.x, good, 2);
        (void)other.differentiate(problem.network, problem.x, good, 2);
        CHECK(sd::test::same_bits(sd::test::slopes(problem.network, step.gradient()),
                                  sd::test::slopes(problem.network, other.gradient())));
    };
    const double nan = std::numeric_limits<double>::quiet_NaN();
    check(Loss{}, problem.x_with(nan), problem.targets, problem.targets, 3,
          "TrainingStep: loss must be finite, got nan in step 1; a smaller learning rate may help");
    check(FailsAt{}, problem.x, problem.targets_with(77), problem.targets, 4, "a user's own error");
    check(sd::SoftmaxCrossEntropy<double>{}, problem.x, problem.labels_with(9), problem.labels, 2,
          "SoftmaxCrossEntropy: labels must lie in [0, 2), got 9 for sample " +
              std::to_string(2 - sd::detail::part_of(5, ranks(), rank_of_sample(2)).first));
}

}  // namespace
