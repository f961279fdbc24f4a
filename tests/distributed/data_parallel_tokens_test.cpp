// SPDX-License-Identifier: MIT
#include <stochastic_depth/distributed/data_parallel.hpp>

#include <cstdint>

#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/token_problem.hpp"

namespace {
namespace sd = stochastic_depth;

TEST_CASE("sequences, which a shard sends through in slices, have the same gradient on any ranks") {
    const sd::test::TokenProblem problem{32};
    const auto& network = problem.network;
    const auto& x = problem.x;
    const auto& labels = problem.labels;
    // Shards of 16 samples, 6 of which go at once.
    const sd::SoftmaxCrossEntropy<double> loss;
    sd::TrainingStep here{network, loss, {.seed = 9, .shards = 2}};
    sd::DataParallel all{network, loss, {.seed = 9, .shards = 2}, MPI_COMM_WORLD};
    for (const std::uint64_t t : {std::uint64_t{4}, std::uint64_t{5}}) {
        CHECK(all.differentiate(network, x, labels, t).loss ==
              here.differentiate(network, x, labels, t).loss);
        CHECK(sd::test::same_bits(sd::test::slopes(network, all.gradient()),
                                  sd::test::slopes(network, here.gradient())));
        auto unused = network;
        here.finish(unused);
        all.finish(unused);
    }
}

}  // namespace
