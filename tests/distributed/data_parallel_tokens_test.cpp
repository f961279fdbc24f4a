// SPDX-License-Identifier: MIT
#include <stochastic_depth/distributed/data_parallel.hpp>

#include <cstdint>
#include <utility>

#include <stochastic_depth/models/transformer.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"

namespace {
namespace sd = stochastic_depth;
using sd::Index;

constexpr Index positions = 40, sequences = 32, vocabulary = 11;

TEST_CASE("sequences, which a shard sends through in slices, have the same gradient on any ranks") {
    sd::Philox random{3};
    const auto network = sd::transformer_classifier<double>({.vocabulary = vocabulary,
                                                             .positions = positions,
                                                             .width = 8,
                                                             .heads = 2,
                                                             .feed_forward = 12,
                                                             .blocks = 2,
                                                             .classes = 3},
                                                            random);
    sd::Matrix<double> x = sd::Matrix<double>::Constant(positions, sequences, -1.0);
    Eigen::VectorXi labels{sequences};
    for (Index j = 0; j < sequences; ++j) {
        labels(j) = static_cast<int>(random() % 3);
        const Index length = 1 + static_cast<Index>(random() % positions);
        for (Index t = 0; t < length; ++t)
            x(t, j) = static_cast<double>(random() % static_cast<std::uint32_t>(vocabulary));
    }
    // Shards of 16 samples, 6 of which go at once.
    const sd::SoftmaxCrossEntropy<double> loss;
    sd::TrainingStep step{network, loss, {.seed = 9}};
    sd::DataParallel all{network, loss, {.seed = 9, .shards = 2}, MPI_COMM_WORLD};
    for (const std::uint64_t t : {std::uint64_t{4}, std::uint64_t{5}}) {
        Eigen::VectorXd shares[2];
        double losses[2];
        for (const Index shard : {0, 1}) {
            losses[shard] =
                step.differentiate(network, x.middleCols(16 * shard, 16),
                                   labels.segment(16 * shard, 16), t, {16 * shard, sequences})
                    .loss;
            shares[shard] = sd::test::slopes(network, step.gradient());
            step.discard();
        }
        CHECK(all.differentiate(network, x, labels, t).loss == losses[0] + losses[1]);
        CHECK(sd::test::same_bits(sd::test::slopes(network, all.gradient()),
                                  Eigen::VectorXd(shares[0] + shares[1])));
        auto other = network;
        all.finish(other);
    }
}

}  // namespace
