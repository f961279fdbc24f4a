// SPDX-License-Identifier: MIT
#include <stochastic_depth/distributed/data_parallel.hpp>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/any_layer.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/sample_weighted.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>
#include <stochastic_depth/training/weighted_targets.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/ranks.hpp"
#include "support/shard_networks.hpp"

namespace {
namespace sd = stochastic_depth;
using sd::Index;
using sd::test::batch_for_shards;
using sd::test::Bits;
using sd::test::bits_of;
using sd::test::Cubes;
using sd::test::network_for_shards;
using sd::test::ranks;
using sd::test::Shift;

constexpr Index features = 4;

Bits trained(const sd::TrainingStepOptions& options, Index samples, std::uint64_t steps,
             std::vector<double>& losses, MPI_Comm comm = MPI_COMM_WORLD) {
    const auto step_of = [&](const auto& network) {
        return sd::DataParallel{network, sd::SoftmaxCrossEntropy<float>{}, options, comm};
    };
    return sd::test::trained_in_shards(step_of, samples, steps, losses);
}
/// The same in one process, without MPI.
Bits trained_here(const sd::TrainingStepOptions& options, Index samples, std::uint64_t steps,
                  std::vector<double>& losses) {
    const auto step_of = [&](const auto& network) {
        return sd::TrainingStep{network, sd::SoftmaxCrossEntropy<float>{}, options};
    };
    return sd::test::trained_in_shards(step_of, samples, steps, losses);
}

/// Ranks that share their cores wait long for each other: the number of steps is what this costs.
void check_any_ranks(const sd::TrainingStepOptions& options, std::uint64_t steps) {
    std::vector<double> losses, expected_losses;
    const Bits bits = trained(options, 21, steps, losses);
    CHECK(bits == trained_here(options, 21, steps, expected_losses));
    CHECK(losses == expected_losses);
}

TEST_CASE("any number of ranks makes the same network, in all mask scopes and scalings") {
    for (const auto scope : {sd::MaskScope::batch, sd::MaskScope::sample, sd::MaskScope::subset})
        for (const auto scaling : {sd::Scaling::none, sd::Scaling::inverted})
            check_any_ranks({.mask_scope = scope, .scaling = scaling, .seed = 7, .shards = 8}, 100);
}

TEST_CASE("any number of ranks makes the same network of any number of shards") {
    for (const Index shards : {3, 5, 13}) check_any_ranks({.seed = 7, .shards = shards}, 10);
    // Of one shard TrainingStep takes its statistics over by themselves, not as a change.
    std::vector<double> losses, expected_losses;
    const Bits bits = trained({.seed = 7, .shards = 1}, 21, 10, losses);
    CHECK(bits == trained({.seed = 7, .shards = 1}, 21, 10, expected_losses, MPI_COMM_SELF));
    CHECK(losses == expected_losses);
}

TEST_CASE("any number of ranks makes the same network of batches smaller than their shards") {
    for (const Index samples : {0, 1, 5}) {
        std::vector<double> losses, expected_losses;
        const sd::TrainingStepOptions options{.seed = 7, .threads = 2, .shards = 8};
        const Bits bits = trained(options, samples, 5, losses);
        CHECK(bits == trained_here({.seed = 7, .shards = 8}, samples, 5, expected_losses));
        CHECK(losses == expected_losses);
        CHECK((bits == bits_of(network_for_shards(1))) == (samples == 0));
    }
}

TEST_CASE("one shard is what TrainingStep computes, and calls between two finishes add up") {
    const auto first = batch_for_shards(9, 1);
    const auto network = network_for_shards(1);
    const sd::SoftmaxCrossEntropy<float> loss;
    sd::DataParallel on_ranks{network, loss, {.seed = 3, .shards = 1}, MPI_COMM_WORLD};
    sd::TrainingStep here{network, loss, {.seed = 3}};
    for (const std::uint64_t t : {std::uint64_t{11}, std::uint64_t{12}}) {
        const auto a = on_ranks.differentiate(network, first.x, first.labels, t);
        const auto b = here.differentiate(network, first.x, first.labels, t);
        CHECK(a.loss == b.loss);
        CHECK(a.layer_evaluations == b.layer_evaluations);
        CHECK(a.expected_layer_evaluations == b.expected_layer_evaluations);
        const auto of_ranks = sd::test::slopes(network, on_ranks.gradient());
        const auto of_one = sd::test::slopes(network, here.gradient());
        // Here the second way back adds to the first one's sums, there it is a sum of its own.
        CHECK(sd::test::largest_difference(of_ranks, of_one) <= (t == 11 ? 0 : 1e-6));
    }
}

TEST_CASE("a rank needs its own samples alone") {
    const auto batch = batch_for_shards(21, 1);
    const auto network = network_for_shards(1);
    const sd::SoftmaxCrossEntropy<float> loss;
    sd::DataParallel of_whole{network, loss, {.seed = 3, .shards = 5}, MPI_COMM_WORLD};
    sd::DataParallel of_parts{network, loss, {.seed = 3, .shards = 5}, MPI_COMM_WORLD};
    const sd::SampleRange own = of_parts.samples_of_rank(21);
    const auto whole = of_whole.differentiate(network, batch.x, batch.labels, 4);
    const auto parts =
        of_parts.differentiate(network, batch.x.middleCols(own.first, own.count),
                               batch.labels.segment(own.first, own.count), 4, {own.first, 21});
    CHECK(whole.loss == parts.loss);
    CHECK(sd::test::same_bits(sd::test::slopes(network, of_whole.gradient()),
                              sd::test::slopes(network, of_parts.gradient())));
    // Together the ranks have each sample once.
    int samples = static_cast<int>(own.count);
    MPI_Allreduce(MPI_IN_PLACE, &samples, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    CHECK(samples == 21);
}

TEST_CASE(
    "layers of unknown types, a user's layer and a user's loss train alike on any number of ranks") {
    const sd::TrainingStepOptions options{.mask_scope = sd::MaskScope::batch, .shards = 4};
    const auto train = [](const auto& step_of) {
        sd::Philox random{1};
        std::vector<sd::AnyLayer<float>> layers{Shift{}};
        for (const double p : {0.3, 0.5, 0.2})
            layers.emplace_back(sd::StochasticDepth{
                sd::Residual{
                    sd::Sequential{sd::Linear<float>{features, features, random, 1.0}, Shift{}}},
                sd::SurvivalProbability{p}});
        sd::Stack<sd::AnyLayer<float>> network{std::move(layers)};
        auto step = step_of(network);
        sd::Adam optimizer{network};
        for (std::uint64_t t = 0; t < 30; ++t) {
            sd::Philox numbers{t};
            const auto x = sd::test::random_matrix<float>(numbers, features, 10);
            const auto targets = sd::test::random_matrix<float>(numbers, features, 10);
            (void)step.differentiate(network, x, targets, t);
            optimizer.step(network, step.gradient());
            step.finish(network);
        }
        return bits_of(network);
    };
    CHECK(train([&](const auto& network) {
              return sd::DataParallel{network, Cubes{}, options, MPI_COMM_WORLD};
          }) == train([&](const auto& network) {
              return sd::TrainingStep{network, Cubes{}, options};
          }));
}

TEST_CASE("weights of samples, and a user's own targets, go to the ranks of their samples") {
    const auto network = network_for_shards(1);
    const auto batch = batch_for_shards(21, 1);
    const sd::TrainingStepOptions options{.seed = 3, .shards = 5};
    const auto check = [&](const auto& loss, const auto& targets) {
        sd::DataParallel on_ranks{network, loss, options, MPI_COMM_WORLD};
        sd::TrainingStep here{network, loss, options};
        CHECK(on_ranks.differentiate(network, batch.x, targets, 4).loss ==
              here.differentiate(network, batch.x, targets, 4).loss);
        CHECK(sd::test::same_bits(sd::test::slopes(network, on_ranks.gradient()),
                                  sd::test::slopes(network, here.gradient())));
    };
    check(sd::SampleWeighted{sd::SoftmaxCrossEntropy<float>{}},
          sd::WeightedTargets<Eigen::VectorXi>{batch.labels, Eigen::VectorXd::LinSpaced(21, 0, 2)});
    sd::Philox random{2};
    check(sd::test::OutsideInterval{},
          sd::test::OutsideInterval::Targets{sd::test::random_matrix<float>(random, 3, 21),
                                             Eigen::VectorXf::Constant(21, 0.1f)});
}

TEST_CASE("layers that no sample of the batch keeps are not sent") {
    sd::Philox random{1};
    std::vector<decltype(sd::StochasticDepth{sd::Residual{sd::Linear<float>{8, 8, random, 1.0}},
                                             sd::SurvivalProbability{0.5}})>
        layers;
    for (int l = 0; l < 10; ++l)
        layers.emplace_back(sd::Residual{sd::Linear<float>{8, 8, random, 1.0}},
                            sd::SurvivalProbability{l < 5 ? 0.8 : 0.3});
    sd::Stack network{std::move(layers)};
    const Eigen::MatrixXf x = sd::test::random_matrix<float>(random, 8, 16);
    sd::DataParallel step{network,
                          sd::MeanSquaredError<float>{},
                          {.mask_scope = sd::MaskScope::batch, .seed = 9, .shards = 8},
                          MPI_COMM_WORLD};
    const sd::MaskSampler sampler{network.survival_probabilities(), 9};
    const auto sent_by_all = [&] {
        auto bytes = static_cast<std::uint64_t>(step.bytes_sent());
        MPI_Allreduce(MPI_IN_PLACE, &bytes, 1, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
        return bytes;
    };
    std::uint64_t sent = 0, least = 0;
    for (std::uint64_t t = 0; t < 100; ++t) {
        (void)step.differentiate(network, x, x, t);
        step.finish(network);
        sent += sent_by_all();
        // Of each number kept, the others' sums go to the rank that adds them, and its total back.
        const auto kept = static_cast<std::uint64_t>(sampler.sample(t).count());
        const auto others = static_cast<std::uint64_t>(ranks()) - 1;
        least += kept * (8 * 8 + 8) * sizeof(float) * 2 * others;
    }
    // Three ranks have no whole nodes of the tree over eight shards: they send more sums.
    if (ranks() == 3)
        CHECK(sent > least);
    else
        CHECK(sent == least);
    step.set_survival_probabilities(Eigen::VectorXd::Ones(10));
    (void)step.differentiate(network, x, x, 0);
    const double share = 0.55;  // sum(p) / L
    CHECK(static_cast<double>(sent) <= 100 * (share + 0.02) * static_cast<double>(sent_by_all()));
}

/// Tells when the way back comes through.
struct Probe : Shift {
    std::function<void()> passed;
    void backward(const sd::ConstMatrixRef<float>& x, const sd::ConstMatrixRef<float>& dy,
                  const Cache& cache, Gradient& gradient, sd::MatrixRef<float> dx) const {
        passed();
        Shift::backward(x, dy, cache, gradient, dx);
    }
};

auto block_of(sd::Philox& random, double p) {
    return sd::StochasticDepth{sd::Residual{sd::Linear<float>{features, features, random, 1.0}},
                               sd::SurvivalProbability{p}};
}

TEST_CASE("a layer's gradient leaves while the way back goes on") {
    sd::Philox random{1};
    std::function<std::uint64_t()> bytes = [] { return std::uint64_t{0}; };
    std::vector<std::uint64_t> seen;
    const sd::Sequential network{Probe{{}, [&] { seen.push_back(bytes()); }}, block_of(random, 1.0),
                                 block_of(random, 1.0)};
    sd::DataParallel step{network, Cubes{}, {.shards = ranks()}, MPI_COMM_WORLD};
    bytes = [&] { return step.bytes_sent(); };
    const sd::Matrix<float> x = sd::test::random_matrix<float>(random, features, 2 * ranks());
    (void)step.differentiate(network, x, x, 0);
    REQUIRE(seen.size() == 1);
    CHECK((seen[0] > 0) == (ranks() > 1));
    CHECK((seen[0] < step.bytes_sent()) == (ranks() > 1));
}

TEST_CASE("a skippable layer that runs twice in a pass is refused: its gradient has left") {
    sd::Philox random{1};
    const sd::test::Twice network{block_of(random, 1.0)};
    sd::DataParallel step{network, Cubes{}, {.shards = ranks()}, MPI_COMM_WORLD};
    const sd::Matrix<float> x = sd::test::random_matrix<float>(random, features, 2 * ranks());
    const auto differentiate = [&] { (void)step.differentiate(network, x, x, 0); };
    CHECK_THROWS_WITH(
        differentiate(),
        "DataParallel: network must run each of its skippable layers at most once in a "
        "pass, got one that ran again");
}

}  // namespace
