// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/sharded_gradient.hpp>

#include <cstdint>
#include <limits>
#include <stdexcept>
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
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/sample_weighted.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/trainer.hpp>
#include <stochastic_depth/training/training_step.hpp>
#include <stochastic_depth/training/weighted_targets.hpp>

#include "support/catch.hpp"
#include "support/laws.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/shard_networks.hpp"
#include "support/thrown.hpp"
#include "support/token_problem.hpp"
#include "support/training_problem.hpp"

namespace {

using namespace stochastic_depth;
using test::batch_for_shards;
using test::Bits;
using test::bits_of;
using test::largest_difference;
using test::network_for_shards;
using test::NetworkForShards;
using test::same_bits;
using test::slopes;

using CrossEntropy = SoftmaxCrossEntropy<float>;

Bits trained(const TrainingStepOptions& options, Index samples, std::uint64_t steps,
             std::vector<double>& losses) {
    const auto step_of = [&](const NetworkForShards& network) {
        return TrainingStep{network, CrossEntropy{}, options};
    };
    return test::trained_in_shards(step_of, samples, steps, losses);
}

void check_any_threads(TrainingStepOptions options, Index samples, std::uint64_t steps) {
    options.seed = 7;
    std::vector<double> expected_losses;
    const Bits expected = trained(options, samples, steps, expected_losses);
    CHECK((expected == bits_of(network_for_shards(1))) == (samples == 0));
    for (const unsigned threads : {2u, 3u, 8u}) {
        INFO(threads << " threads, " << options.shards << " shards, " << samples << " samples");
        options.threads = threads;
        std::vector<double> losses;
        CHECK(trained(options, samples, steps, losses) == expected);
        CHECK(losses == expected_losses);
    }
}

TEST_CASE("shards: the number of threads changes no bit, in all mask scopes and scalings",
          "[sharded_gradient]") {
    for (const auto scope : {MaskScope::batch, MaskScope::sample, MaskScope::subset})
        for (const auto scaling : {Scaling::none, Scaling::inverted})
            check_any_threads({.mask_scope = scope, .scaling = scaling, .shards = 4}, 21, 20);
    check_any_threads({.law = test::TwoBackLaw{5}, .shards = 4}, 21, 20);
}

TEST_CASE("shards: the number of threads changes no bit, whatever the number of shards and samples",
          "[sharded_gradient]") {
    for (const Index shards : {2, 3, 5, 13}) check_any_threads({.shards = shards}, 21, 5);
    for (const Index samples : {0, 1, 5}) check_any_threads({.shards = 8}, samples, 5);
}

TEST_CASE("shards are added in a tree, and the network takes the mean of their statistics",
          "[sharded_gradient]") {
    const auto batch = batch_for_shards(20, 3);
    const auto network = network_for_shards(1);
    TrainingStep all{network, CrossEntropy{}, {.seed = 7, .threads = 2, .shards = 3}};
    const StepLedger ledger = all.differentiate(network, batch.x, batch.labels, 5);

    TrainingStep step{network, CrossEntropy{}, {.seed = 7}};
    std::vector<Eigen::VectorXf> shares, changes;
    double losses[3], evaluations = 0;
    const auto state = [](const NetworkForShards& of) {
        std::vector<float> numbers;
        detail::visit_state(of, [&](const char*, const auto& matrix) {
            numbers.insert(numbers.end(), matrix.data(), matrix.data() + matrix.size());
        });
        return Eigen::VectorXf(Eigen::VectorXf::Map(numbers.data(), Index(numbers.size())));
    };
    const Eigen::VectorXf before = state(network);
    for (const auto& [first, count] : {std::pair<Index, Index>{0, 7}, {7, 7}, {14, 6}}) {
        const auto part = step.differentiate(network, batch.x.middleCols(first, count),
                                             batch.labels.segment(first, count), 5, {first, 20});
        losses[shares.size()] = part.loss;
        evaluations += part.layer_evaluations;
        shares.push_back(slopes(network, step.gradient()).cast<float>());
        NetworkForShards copy = network;
        step.finish(copy);
        const Eigen::VectorXd change = (state(copy).cast<double>() - before.cast<double>());
        changes.push_back((static_cast<double>(count) / 20 * change).cast<float>());
    }
    const Eigen::VectorXf sum = (shares[0] + shares[1]) + shares[2];
    CHECK(same_bits(Eigen::VectorXf(slopes(network, all.gradient()).cast<float>()), sum));
    CHECK(ledger.loss == (losses[0] + losses[1]) + losses[2]);
    CHECK(ledger.layer_evaluations == evaluations);
    CHECK(ledger.full_depth_evaluations == 20.0 * static_cast<double>(network.depth()));
    CHECK(ledger.expected_layer_evaluations ==
          step.differentiate(network, batch.x, batch.labels, 5).expected_layer_evaluations);
    CHECK(all.cache_bytes() > 0);

    NetworkForShards moved = network;
    all.finish(moved);
    const Eigen::VectorXf change = (changes[0] + changes[1]) + changes[2];
    CHECK(change.norm() > 0);
    CHECK(same_bits(
        state(moved),
        Eigen::VectorXf((before.cast<double>() + change.cast<double>()).cast<float>())));
    CHECK(slopes(network, all.gradient()).isZero(0));
}

TEST_CASE("shards: without batch statistics the gradient is the undivided batch's, by given masks too",
          "[sharded_gradient]") {
    const test::Problem problem;
    const auto& network = problem.network;
    const MeanSquaredError<double> loss;
    TrainingStep whole{network, loss, {.seed = 3}};
    TrainingStep cut{network, loss, {.seed = 3, .threads = 2, .shards = 3}};
    const MaskSampler sampler{network.survival_probabilities(), 8};
    const auto check = [&](const auto& differentiate) {
        const double of_whole = differentiate(whole).loss, of_cut = differentiate(cut).loss;
        CHECK(of_cut == Approx(of_whole).epsilon(1e-14));
        const Eigen::VectorXd expected = slopes(network, whole.gradient());
        CHECK(expected.norm() > 0);
        CHECK(largest_difference(slopes(network, cut.gradient()), expected) <= 1e-14);
    };
    const Index samples = problem.x.cols();
    for (const std::uint64_t t : {0u, 1u, 2u})  // which add up
        check([&](auto& step) {
            return step.differentiate(network, problem.x, problem.targets, t);
        });
    check([&](auto& step) {
        return step.differentiate(network, problem.x, problem.targets, sampler.sample(4), 4);
    });
    const SurvivalMasks masks = sampler.sample(5, samples);
    check([&](auto& step) {
        return step.differentiate(network, problem.x, problem.targets, masks, 5);
    });
    // A batch that is taken in parts, each of them cut into shards.
    check([&](auto& step) {
        const Index first = samples / 2;
        StepLedger sum = step.differentiate(network, problem.x.leftCols(first),
                                            problem.targets.leftCols(first), 6, {0, samples});
        sum.loss += step.differentiate(network, problem.x.rightCols(samples - first),
                                       problem.targets.rightCols(samples - first), 6,
                                       {first, samples})
                        .loss;
        return sum;
    });
}

TEST_CASE("shards: an update moves what a sample of the call has reached, and nothing else",
          "[sharded_gradient]") {
    const test::Problem problem;
    const Index samples = problem.x.cols();
    SurvivalMasks masks(problem.network.depth(), samples);
    masks.keep(0, 0);
    masks.keep(1, samples - 1);
    const auto moved = [&](Index shards, Index first, Index count) {
        test::Network network = problem.network;
        TrainingStep step{network, MeanSquaredError<double>{}, {.threads = 2, .shards = shards}};
        (void)step.differentiate(network, problem.x.middleCols(first, count),
                                 problem.targets.middleCols(first, count), masks, 0,
                                 {first, samples});
        Sgd{network, {.weight_decay = 0.5}}.step(network, step.gradient());
        const Eigen::VectorXd change =
            test::parameters(network) - test::parameters(problem.network);
        return Eigen::VectorX<bool>(change.array() != 0.0);
    };
    for (const auto& [first, count] :
         {std::pair<Index, Index>{0, samples}, {0, 2}, {2, samples - 2}}) {
        const auto expected = moved(1, first, count);
        CHECK(expected.any());
        CHECK(expected.all() == (count == samples));
        CHECK(moved(2, first, count) == expected);
    }
}

TEST_CASE("shards: layers of unknown types, a user's layer, loss and composite, which runs its part "
          "twice, train as without shards",
          "[sharded_gradient]") {
    Philox random{1};
    std::vector<AnyLayer<float>> layers{test::Shift{}};
    for (const double p : {0.3, 0.5, 0.2})
        layers.emplace_back(test::Twice{StochasticDepth{
            Residual{Sequential{Linear<float>{4, 4, random, 1.0}, test::Shift{}}},
            SurvivalProbability{p}}});
    const Stack<AnyLayer<float>> network{std::move(layers)};
    const auto x = test::random_matrix<float>(random, 4, 10);
    const auto targets = test::random_matrix<float>(random, 4, 10);
    TrainingStep whole{network, test::Cubes{}, {}};
    TrainingStep cut{network, test::Cubes{}, {.threads = 2, .shards = 4}};
    const double of_whole = whole.differentiate(network, x, targets, 3).loss;
    CHECK(cut.differentiate(network, x, targets, 3).loss == Approx(of_whole).epsilon(1e-6));
    const Eigen::VectorXd expected = slopes(network, whole.gradient());
    CHECK(largest_difference(slopes(network, cut.gradient()), expected) <= 1e-5 * expected.norm());
}

TEST_CASE("shards: sequences, which a shard sends through in slices", "[sharded_gradient]") {
    const test::TokenProblem problem{32};
    const auto& network = problem.network;
    const auto& x = problem.x;
    const auto& labels = problem.labels;
    // Shards of 16 samples, 6 of which go at once.
    const SoftmaxCrossEntropy<double> loss;
    TrainingStep alone{network, loss, {.seed = 9}};
    TrainingStep cut{network, loss, {.seed = 9, .threads = 2, .shards = 2}};
    for (const std::uint64_t t : {4u, 5u}) {
        Eigen::VectorXd shares[2];
        double losses[2];
        for (const Index shard : {0, 1}) {
            losses[shard] =
                alone
                    .differentiate(network, x.middleCols(16 * shard, 16),
                                   labels.segment(16 * shard, 16), t, {16 * shard, 32})
                    .loss;
            shares[shard] = slopes(network, alone.gradient());
            auto unused = network;
            alone.finish(unused);
        }
        CHECK(cut.differentiate(network, x, labels, t).loss == losses[0] + losses[1]);
        CHECK(same_bits(slopes(network, cut.gradient()), Eigen::VectorXd(shares[0] + shares[1])));
        auto unused = network;
        cut.finish(unused);
    }
}

/// Fails for a target of 77, and is not finite for one of 78.
struct FailsAt {
    using Targets = Matrix<double>;
    double value_and_gradient(const ConstMatrixRef<double>& output, const Targets& targets,
                              MatrixRef<double> gradient) const {
        if ((targets.array() == 77.0).any()) throw test::OwnError{};
        const double loss =
            MeanSquaredError<double>{}.value_and_gradient(output, targets, gradient);
        return (targets.array() == 78.0).any() ? std::numeric_limits<double>::infinity() : loss;
    }
};

TEST_CASE("shards: what one fails at leaves the gradient, and the first one says it",
          "[sharded_gradient]") {
    test::Problem problem;
    for (const unsigned threads : {1u, 2u, 3u}) {
        TrainingStep step{problem.network, FailsAt{}, {.threads = threads, .shards = 5}};
        (void)step.differentiate(problem.network, problem.x, problem.targets, 0);
        const Eigen::VectorXd before = slopes(problem.network, step.gradient());
        Eigen::MatrixXd targets = problem.targets;
        const auto differentiate = [&] {
            (void)step.differentiate(problem.network, problem.x, targets, 1);
        };
        targets(0, 4) = 77;
        CHECK_THROWS_AS(differentiate(), test::OwnError);
        targets(1, 2) = 78;
        CHECK(thrown<std::runtime_error>(differentiate) ==
              "TrainingStep: loss must be finite, got inf in step 1; a smaller learning rate may "
              "help");
        CHECK(same_bits(slopes(problem.network, step.gradient()), before));
        step.finish(problem.network);
        TrainingStep fresh{problem.network, FailsAt{}, {.shards = 5}};
        (void)step.differentiate(problem.network, problem.x, problem.targets, 2);
        (void)fresh.differentiate(problem.network, problem.x, problem.targets, 2);
        CHECK(same_bits(slopes(problem.network, step.gradient()),
                        slopes(problem.network, fresh.gradient())));
    }
}

TEST_CASE("shards: targets of other types than matrices are cut, weights of samples and a user's",
          "[sharded_gradient]") {
    const test::Problem problem;
    const Index samples = problem.x.cols();
    const auto check = [&](const auto& network, const auto& x, const auto& loss,
                           const auto& targets, double tolerance) {
        TrainingStep whole{network, loss, {.seed = 3}};
        TrainingStep cut{network, loss, {.seed = 3, .threads = 2, .shards = 3}};
        const double expected_loss = whole.differentiate(network, x, targets, 1).loss;
        CHECK(cut.differentiate(network, x, targets, 1).loss ==
              Approx(expected_loss).epsilon(tolerance));
        const Eigen::VectorXd expected = slopes(network, whole.gradient());
        CHECK(expected.norm() > 0);
        CHECK(largest_difference(slopes(network, cut.gradient()), expected) <= tolerance);
    };
    const Eigen::VectorXd weights = Eigen::VectorXd::LinSpaced(samples, 0, 2);
    check(problem.network, problem.x, SampleWeighted{MeanSquaredError<double>{}},
          WeightedTargets<Matrix<double>>{problem.targets, weights}, 1e-14);
    check(problem.network, problem.x, SampleWeighted{SoftmaxCrossEntropy<double>{}},
          WeightedTargets<Eigen::VectorXi>{problem.labels, weights}, 1e-14);

    Philox random{4};
    const Sequential network{Linear<float>{4, 4, random},
                             StochasticDepth{Residual{Linear<float>{4, 4, random}},
                                             SurvivalProbability{0.5}}};
    const auto matrix = [&] { return test::random_matrix<float>(random, 4, 11); };
    const Matrix<float> x = matrix();
    const test::OutsideInterval::Targets intervals{matrix(), Eigen::VectorXf::Constant(11, 0.1f)};
    check(network, x, test::OutsideInterval{}, intervals, 1e-6);
    check(network, x, SampleWeighted{test::Cubes{}},
          WeightedTargets<Matrix<float>>{matrix(), Eigen::VectorXd::LinSpaced(11, 0, 2)}, 1e-5);
}

/// Targets of which no part can be taken.
struct OneClass {
    int label;
};
struct OfOneClass {
    using Targets = OneClass;
    double value_and_gradient(const ConstMatrixRef<double>& output, const Targets& targets,
                              MatrixRef<double> gradient) const {
        const Eigen::VectorXi labels = Eigen::VectorXi::Constant(output.cols(), targets.label);
        return SoftmaxCrossEntropy<double>{}.value_and_gradient(output, labels, gradient);
    }
};

TEST_CASE("shards: bad input is named as without them", "[sharded_gradient]") {
    const test::Problem problem;
    TrainingStep step{
        problem.network, SoftmaxCrossEntropy<double>{}, {.threads = 2, .shards = 2}};
    CHECK(thrown<std::invalid_argument>([&] {
              (void)step.differentiate(problem.network, problem.x, problem.labels_with(9), 0);
          }) == "SoftmaxCrossEntropy: labels must lie in [0, 2), got 9 for sample 2");
    CHECK(thrown<std::invalid_argument>([&] {
              (void)step.differentiate(problem.network, problem.x,
                                       Eigen::VectorXi(problem.labels.head(4)), 0);
          }) == "TrainingStep: targets must be of 5 samples, got 4");
    CHECK(slopes(problem.network, step.gradient()).isZero(0));
    const auto make = [&](const auto& loss, Index shards) {
        return thrown<std::invalid_argument>([&] {
            (void)TrainingStep{problem.network, loss, {.shards = shards}};
        });
    };
    CHECK(make(MeanSquaredError<double>{}, -1) == "TrainingStep: shards must be at least 0, got -1");
    CHECK(make(OfOneClass{}, 2) ==
          "TrainingStep: shards must be 1 for targets of OneClass, which cannot be cut, got 2");
    const SampleWeighted weighted{MeanSquaredError<double>{}};
    TrainingStep weighted_step{problem.network, weighted, {.shards = 2}};
    const auto refusal = [&](Index targets, Index weights) {
        return thrown<std::invalid_argument>([&] {
            (void)weighted_step.differentiate(
                problem.network, problem.x,
                {problem.targets.leftCols(targets), Eigen::VectorXd::Ones(weights)}, 0);
        });
    };
    CHECK(refusal(4, 4) == "TrainingStep: targets must be of 5 samples, got 4");
    CHECK(refusal(5, 4) ==
          "SampleWeighted: weights must have one entry for each of 5 samples, got 4");
    CHECK(thrown<std::invalid_argument>([] { (void)Trainer{{.shards = -2}}; }) ==
          "Trainer: shards must be at least 0, got -2");
}

TEST_CASE("shards: a Trainer's threads change no bit", "[sharded_gradient]") {
    const auto batch = batch_for_shards(50, 1);
    const Dataset<float> data{batch.x, batch.labels, 3};
    const auto fitted = [&](unsigned threads, Index shards) {
        NetworkForShards network = network_for_shards(1);
        (void)Trainer{{.batch_size = 20, .epochs = 3, .threads = threads, .shards = shards}}.fit(
            network, data, CrossEntropy{});
        return bits_of(network);
    };
    const Bits expected = fitted(1, 2);
    CHECK(fitted(2, 2) == expected);
    CHECK(fitted(2, 1) != expected);
}

}  // namespace
