// SPDX-License-Identifier: MIT
#include <stochastic_depth/distributed/data_parallel_trainer.hpp>

#include <bit>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/types.hpp>

#include "support/catch.hpp"
#include "support/gradient_networks.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/ranks.hpp"

namespace {
namespace sd = stochastic_depth;
using sd::Index;
using sd::test::rank;
using sd::test::ranks;

sd::test::Network network() {
    sd::Philox random{3};
    return sd::test::network(random, Eigen::VectorXd{{0.8, 0.5, 0.3}});
}
sd::Dataset<double> data_of(Index samples, std::uint64_t seed) {
    sd::Philox random{seed};
    const Eigen::MatrixXd x = sd::test::random_matrix<double>(random, 3, samples);
    Eigen::VectorXi labels(samples);
    for (Index j = 0; j < samples; ++j) labels(j) = x(0, j) > x(1, j);
    return {x, labels, 2};
}
const sd::SoftmaxCrossEntropy<double> loss{};

bool same_numbers(const sd::EpochRecord& a, const sd::EpochRecord& b) {
    const auto same = [](double x, double y) {
        return std::bit_cast<std::uint64_t>(x) == std::bit_cast<std::uint64_t>(y);
    };
    return a.epoch == b.epoch && same(a.loss, b.loss) &&
           same(a.validation_loss, b.validation_loss) &&
           a.layer_evaluations == b.layer_evaluations &&
           a.expected_layer_evaluations == b.expected_layer_evaluations &&
           a.full_depth_evaluations == b.full_depth_evaluations;
}

TEST_CASE("a trainer on any number of ranks gives each of them the same network and history") {
    const auto data = data_of(83, 1), validation = data_of(20, 2);
    const auto fit = [&](MPI_Comm comm, std::vector<sd::EpochRecord>& history) {
        auto net = network();
        const sd::DataParallelTrainer trainer{
            {.batch_size = 16,
             .epochs = 4,
             .seed = 5,
             .shards = 6,
             .learning_rate = [](double done) { return 0.05 * (1 - done); },
             .survival = [](const Eigen::VectorXd& p, const sd::TrainingTime& time)
                 -> Eigen::VectorXd { return p * (1 - 0.3 * time.progress()); },
             .early_stopping = sd::EarlyStoppingOptions{}},
            comm};
        history = trainer.fit(net, data, loss, sd::Adam{net}, validation);
        return sd::test::parameters(net);
    };
    std::vector<sd::EpochRecord> history, expected_history;
    const Eigen::VectorXd parameters = fit(MPI_COMM_WORLD, history);
    const Eigen::VectorXd expected = fit(MPI_COMM_SELF, expected_history);
    CHECK(sd::test::same_bits(parameters, expected));
    CHECK_FALSE(sd::test::same_bits(parameters, sd::test::parameters(network())));
    REQUIRE(history.size() == expected_history.size());
    for (std::size_t e = 0; e < history.size(); ++e)
        CHECK(same_numbers(history[e], expected_history[e]));
    CHECK(history.back().loss < history.front().loss);
}

TEST_CASE("with one shard a trainer on ranks does what Trainer does") {
    const auto data = data_of(40, 1);
    const sd::TrainerOptions options{.batch_size = 10, .epochs = 2, .seed = 5, .shards = 1};
    auto on_ranks = network(), here = network();
    const auto history = sd::DataParallelTrainer{options, MPI_COMM_WORLD}.fit(on_ranks, data, loss);
    const auto expected = sd::Trainer{options}.fit(here, data, loss);
    CHECK(sd::test::same_bits(sd::test::parameters(on_ranks), sd::test::parameters(here)));
    REQUIRE(history.size() == 2);
    CHECK(same_numbers(history[1], expected[1]));
}

TEST_CASE("a callback that one rank ends the training in, or throws in, does so on all") {
    const auto data = data_of(40, 1);
    const int last = ranks() - 1;
    auto net = network();
    const sd::DataParallelTrainer ends{
        {.batch_size = 10,
         .epochs = 5,
         .on_epoch =
             [&](const sd::EpochRecord& record) { return record.epoch < 1 || rank() != last; }},
        MPI_COMM_WORLD};
    CHECK(ends.fit(net, data, loss).size() == 2);
    const sd::DataParallelTrainer fails{{.batch_size = 10,
                                         .epochs = 5,
                                         .on_step =
                                             [&](const sd::TrainingProgress& progress) {
                                                 if (progress.step == 2 && rank() == last)
                                                     throw std::invalid_argument("disk full");
                                             }},
                                        MPI_COMM_WORLD};
    if (rank() == last)
        CHECK_THROWS_AS(fails.fit(net, data, loss), std::invalid_argument);
    else
        CHECK_THROWS_WITH(fails.fit(net, data, loss),
                          "DataParallelTrainer: rank " + std::to_string(last) + ": disk full");
}

TEST_CASE("what a trainer's ranks don't have in common is named before the first step") {
    const bool is_last = rank() == ranks() - 1 && ranks() > 1;
    const std::string on_rank = " on rank " + std::to_string(ranks() - 1);
    const auto data = data_of(40, 1);
    auto net = network();
    const Eigen::VectorXd before = sd::test::parameters(net);
    const auto check = [&](const auto& action, const std::string& words) {
        if (ranks() == 1)
            CHECK_NOTHROW(action());
        else
            CHECK_THROWS_WITH(action(), words + on_rank);
        CHECK(sd::test::same_bits(sd::test::parameters(net), before));
    };
    check([&] { (void)sd::DataParallelTrainer({.batch_size = is_last ? 8 : 4}, MPI_COMM_WORLD); },
          "DataParallelTrainer: batch_size must be the same on every rank, got 4 on rank 0 and 8");
    const sd::DataParallelTrainer trainer{{.batch_size = 10, .epochs = 0}, MPI_COMM_WORLD};
    check([&] { (void)trainer.fit(net, data_of(is_last ? 39 : 40, 1), loss); },
          "DataParallelTrainer: data's number of samples must be the same on every rank, got 40 on "
          "rank 0 and 39");
    check(
        [&] {
            (void)trainer.fit(net, data, loss, sd::Adam{net, {.beta1 = is_last ? 0.8 : 0.9}});
        },
        "DataParallelTrainer: beta1 must be the same on every rank, got 0.9 on rank 0 and 0.8");
    if (ranks() > 1) {
        const auto fit_other_data = [&] {
            (void)trainer.fit(net, data_of(40, is_last ? 2 : 1), loss);
        };
        CHECK_THROWS_WITH(fit_other_data(),
                          Catch::Matchers::Contains("data's hash of inputs must be the same"));
        CHECK_THROWS_WITH((sd::DataParallelTrainer{{.batch_size = 0}, MPI_COMM_WORLD}),
                          "Trainer: batch_size must be at least 1, got 0");
    }
}

}  // namespace
