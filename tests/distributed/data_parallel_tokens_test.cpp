// SPDX-License-Identifier: MIT
#include <stochastic_depth/distributed/data_parallel.hpp>

#include <cstdint>
#include <utility>

#include <stochastic_depth/models/transformer.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

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
