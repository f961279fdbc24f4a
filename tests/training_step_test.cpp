// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/training_step.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/dropout.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/schedules.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>

#include "support/catch.hpp"
#include "support/layers.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/thrown.hpp"

namespace stochastic_depth {
namespace {

using test::parameters;
using test::same_bits;

using Branch = Sequential<Linear<float>, ReLU<float>, Linear<float>>;
using Block = StochasticDepth<Residual<Branch>>;
using Network = Sequential<Linear<float>, Stack<Block>, Linear<float>>;
using Step = TrainingStep<Network, SoftmaxCrossEntropy<float>>;

Network network_of(Index depth, Index width, double last_survival) {
    Philox random{61};
    std::vector<Block> blocks;
    for (const double p : linear_decay(depth, last_survival))
        blocks.emplace_back(Residual{Branch{Linear<float>{width, width, random}, ReLU<float>{},
                                            Linear<float>{width, width, random, 0.1}}},
                            SurvivalProbability{p});
    return Network{Linear<float>{12, width, random}, Stack{blocks},
                   Linear<float>{width, 5, random, 0.5}};
}

struct Batch {
    explicit Batch(Index size) : x(12, size), labels(size) {
        Philox random{62};
        x = test::random_matrix<float>(random, 12, size);
        for (Index j = 0; j < size; ++j) labels(j) = static_cast<int>(j % 5);
    }
    Matrix<float> x;
    Eigen::VectorXi labels;
};

/// The parameters after some steps.
template <class Optimizer>
Eigen::VectorXd trained(Network network, Optimizer optimizer, const Batch& batch,
                        TrainingStepOptions options, std::uint64_t steps) {
    Step step{network, {}, options};
    for (std::uint64_t t = 0; t < steps; ++t) {
        (void)step.differentiate(network, batch.x, batch.labels, t);
        optimizer.step(network, step.gradient(), step.team());
        step.finish(network);
    }
    return parameters(network);
}

}  // namespace

TEST_CASE("TrainingStep: the number of threads changes no bit", "[training_step]") {
    // Products large enough to be shared, of widths that are no multiple of a tile.
    const auto check = [](MaskScope scope, Scaling scaling, Index width, auto optimizer_of) {
        const Network network = network_of(4, width, 0.5);
        const Batch batch{75};
        const auto run = [&](unsigned threads) {
            return trained(
                network, optimizer_of(network), batch,
                {.mask_scope = scope, .scaling = scaling, .seed = 63, .threads = threads}, 200);
        };
        const Eigen::VectorXd alone = run(1);
        CHECK(alone.allFinite());
        CHECK_FALSE(same_bits(alone, parameters(network)));
        for (const unsigned threads : {2u, 3u, 8u}) {
            INFO(threads << " threads, width " << width);
            CHECK(same_bits(run(threads), alone));
        }
    };
    const auto momentum = [](const Network& network) {
        return Sgd{network, {.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 1e-4}};
    };
    const auto adam = [](const Network& network) {
        return AdamW{network, {.learning_rate = 1e-3}};
    };
    SECTION("one mask for each sample") { check(MaskScope::sample, Scaling::none, 70, momentum); }
    SECTION("subsets, inverted scaling") {
        check(MaskScope::subset, Scaling::inverted, 64, momentum);
    }
    SECTION("one mask for the batch") { check(MaskScope::batch, Scaling::none, 67, adam); }
}

TEST_CASE("TrainingStep: a step is a function of the network, the batch and its number",
          "[training_step]") {
    const Network network = network_of(6, 8, 0.5);
    const Batch batch{20}, other{7};
    for (const MaskScope scope : {MaskScope::batch, MaskScope::sample, MaskScope::subset}) {
        Step fresh{network, {}, {.mask_scope = scope, .seed = 64}};
        const StepLedger first = fresh.differentiate(network, batch.x, batch.labels, 9);
        const auto expected = test::slopes(network, fresh.gradient());
        Step used{network, {}, {.mask_scope = scope, .seed = 64}};
        for (const std::uint64_t t : {3u, 9u, 2u})
            (void)used.differentiate(network, other.x, other.labels, t);
        Network same = network;
        used.finish(same);
        CHECK(test::slopes(network, used.gradient()).isZero(0));
        const StepLedger again = used.differentiate(network, batch.x, batch.labels, 9);
        CHECK(again.loss == first.loss);
        CHECK(again.layer_evaluations == first.layer_evaluations);
        CHECK(same_bits(test::slopes(network, used.gradient()), expected));
        CHECK(same_bits(parameters(same), parameters(network)));
    }
}

TEST_CASE("TrainingStep: the ledger counts evaluations, expected, done and at full depth",
          "[training_step]") {
    const Index depth = 5;
    const Network network = network_of(depth, 8, 0.4);
    const double sum = linear_decay(depth, 0.4).sum();
    const Batch batch{40};
    for (const MaskScope scope : {MaskScope::batch, MaskScope::sample, MaskScope::subset}) {
        Step step{network, {}, {.mask_scope = scope, .seed = 65}};
        for (std::uint64_t t = 0; t < 20; ++t) {
            const StepLedger ledger = step.differentiate(network, batch.x, batch.labels, t);
            CHECK(std::abs(ledger.expected_layer_evaluations - 40 * sum) <= 1e-12 * 40 * sum);
            CHECK(ledger.full_depth_evaluations == 200);
            double kept = 0;
            if (scope == MaskScope::batch) {
                const SurvivalMask mask =
                    MaskSampler{network.survival_probabilities(), 65}.sample(t);
                for (Index l = 0; l < depth; ++l) kept += mask[l] ? 40 : 0;
            } else {
                SurvivalMasks masks(depth, 40);
                if (scope == MaskScope::sample)
                    MaskSampler{network.survival_probabilities(), 65}.sample(t, masks);
                else
                    FixedSizeMaskSampler{network.survival_probabilities(), 65}.sample(t, masks);
                for (Index l = 0; l < depth; ++l) kept += static_cast<double>(masks.count(l));
            }
            CHECK(ledger.layer_evaluations == kept);
            // Equal work: within one sample of the mean, for each layer.
            if (scope == MaskScope::subset)
                CHECK(std::abs(kept - 40 * sum) <= static_cast<double>(depth));
            CHECK(ledger.forward_seconds > 0);
            CHECK(ledger.backward_seconds > 0);
        }
    }
    // Of given masks what is expected is what they do.
    Step step{network, {}, {}};
    const StepLedger one =
        step.differentiate(network, batch.x, batch.labels, SurvivalMask{1, 0, 0, 1, 0});
    CHECK(one.expected_layer_evaluations == 80);
    CHECK(one.layer_evaluations == 80);
    SurvivalMasks masks(depth, 40);
    masks.keep(2, 7);
    const StepLedger each = step.differentiate(network, batch.x, batch.labels, masks);
    CHECK(each.expected_layer_evaluations == 1);
    CHECK(each.layer_evaluations == 1);
}

TEST_CASE("TrainingStep: what is kept for the way back grows with the survivors",
          "[training_step]") {
    const Index depth = 24;
    const Network network = network_of(depth, 64, 0.5);
    const double share = linear_decay(depth, 0.5).sum() / static_cast<double>(depth);
    const Batch batch{128};
    const auto bytes = [&](MaskScope scope, const Network& of) {
        Step step{of, {}, {.mask_scope = scope, .seed = 66}};
        double sum = 0;
        for (std::uint64_t t = 0; t < 50; ++t) {
            (void)step.differentiate(of, batch.x, batch.labels, t);
            sum += static_cast<double>(step.cache_bytes());
        }
        return sum / 50;
    };
    const double full = bytes(MaskScope::batch, network_of(depth, 64, 1.0));
    for (const MaskScope scope : {MaskScope::batch, MaskScope::sample, MaskScope::subset}) {
        INFO("scope " << static_cast<int>(scope));
        CHECK(bytes(scope, network) <= 1.1 * share * full);
    }
}

TEST_CASE("TrainingStep: survival probabilities of the moment decide masks and inverted scaling",
          "[training_step]") {
    const Network target = network_of(3, 6, 0.3);
    const Batch batch{30};
    const Eigen::VectorXd p = linear_decay(3, 0.9);
    for (const MaskScope scope : {MaskScope::batch, MaskScope::sample, MaskScope::subset}) {
        const TrainingStepOptions options{
            .mask_scope = scope, .scaling = Scaling::inverted, .seed = 67};
        Step step{target, {}, options};
        step.set_survival_probabilities(p);
        CHECK(step.survival_probabilities() == p);
        const Network other = network_of(3, 6, 0.9);
        Step expected{other, {}, options};
        for (std::uint64_t t = 0; t < 5; ++t) {
            const double loss = step.differentiate(target, batch.x, batch.labels, t).loss;
            CHECK(loss == expected.differentiate(other, batch.x, batch.labels, t).loss);
        }
        CHECK(same_bits(test::slopes(target, step.gradient()),
                        test::slopes(other, expected.gradient())));
    }
}

namespace {

/// What draws random numbers in a step: masks, of layers with one inside, and dropout.
auto network_for_parts() {
    Philox random{68};
    const auto inside = [&](double p) {
        return StochasticDepth{Residual{Sequential{test::linear<double>(random, 6, 6),
                                                   Dropout<double>{0.3}, Tanh<double>{}}},
                               SurvivalProbability{p}};
    };
    const auto block = [&](double p) {
        return StochasticDepth{
            Residual{Sequential{Dropout<double>{0.2}, test::linear<double>(random, 6, 6), inside(p),
                                test::linear<double>(random, 6, 6)}},
            SurvivalProbability{p}};
    };
    return Sequential{test::linear<double>(random, 3, 6),
                      Stack{std::vector{block(0.9), block(0.6), block(0.4)}},
                      test::linear<double>(random, 6, 5)};
}

void check_close(double actual, double expected) {
    CHECK(std::abs(actual - expected) <= 1e-12 * std::abs(expected));
}

/// The parts of a batch as steps of their own, against the step of the whole batch.
template <class Loss, class Targets, class TargetsOf>
void check_parts(const Loss& loss, const Targets& targets, const TargetsOf& targets_of,
                 const TrainingStepOptions& options) {
    const Index size = 128;
    auto network = network_for_parts();
    Philox random{69};
    const Matrix<double> x = test::random_matrix<double>(random, 3, size);
    TrainingStep whole{network, loss, options};
    const StepLedger expected = whole.differentiate(network, x, targets, 5);
    const Eigen::VectorXd slopes = test::slopes(network, whole.gradient());
    for (const std::vector<Index>& sizes :
         {std::vector<Index>{64, 64}, {1, 50, 77}, {128}, {100, 0, 28}}) {
        CAPTURE(sizes);
        TrainingStep step{network, loss, options};
        StepLedger sum;
        Index first = 0;
        for (const Index count : sizes) {
            const StepLedger part =
                step.differentiate(network, x.middleCols(first, count), targets_of(first, count), 5,
                                   BatchPart{first, size});
            sum.loss += part.loss;
            sum.expected_layer_evaluations += part.expected_layer_evaluations;
            sum.layer_evaluations += part.layer_evaluations;
            sum.full_depth_evaluations += part.full_depth_evaluations;
            first += count;
        }
        check_close(sum.loss, expected.loss);
        check_close(sum.expected_layer_evaluations, expected.expected_layer_evaluations);
        CHECK(sum.layer_evaluations == expected.layer_evaluations);
        CHECK(sum.full_depth_evaluations == expected.full_depth_evaluations);
        const Eigen::VectorXd got = test::slopes(network, step.gradient());
        CHECK((got - slopes).cwiseAbs().maxCoeff() <= 1e-13 * slopes.cwiseAbs().maxCoeff());
        if (sizes.size() == 1) CHECK(same_bits(got, slopes));
    }
}

}  // namespace

TEST_CASE("TrainingStep: the parts of a batch add up to the whole batch", "[training_step]") {
    Philox random{70};
    const Matrix<double> targets = test::random_matrix<double>(random, 5, 128);
    const auto of_matrix = [&](Index first, Index count) {
        return Matrix<double>{targets.middleCols(first, count)};
    };
    Eigen::VectorXi labels(128);
    for (Index j = 0; j < 128; ++j) labels(j) = static_cast<int>(j * j % 5);
    const auto of_labels = [&](Index first, Index count) {
        return Eigen::VectorXi{labels.segment(first, count)};
    };
    for (const MaskScope scope : {MaskScope::batch, MaskScope::sample, MaskScope::subset})
        for (const Scaling scaling : {Scaling::none, Scaling::inverted}) {
            INFO("scope " << static_cast<int>(scope) << ", scaling " << static_cast<int>(scaling));
            check_parts(MeanSquaredError<double>{}, targets, of_matrix,
                        {.mask_scope = scope, .scaling = scaling, .seed = 71});
            check_parts(SoftmaxCrossEntropy<double>{}, labels, of_labels,
                        {.mask_scope = scope, .scaling = scaling, .seed = 72, .threads = 2});
        }
}

TEST_CASE("TrainingStep: a part that no batch has is refused, and the gradient is as before",
          "[training_step]") {
    const Network network = network_of(3, 6, 0.5);
    const Batch batch{4};
    for (const MaskScope scope : {MaskScope::batch, MaskScope::sample, MaskScope::subset}) {
        Step step{network, {}, {.mask_scope = scope}};
        (void)step.differentiate(network, batch.x, batch.labels, 0);
        const Eigen::VectorXd before = test::slopes(network, step.gradient());
        for (const BatchPart part : {BatchPart{-1, 8}, BatchPart{5, 8}, BatchPart{0, 3},
                                     BatchPart{std::numeric_limits<Index>::max(), 8}}) {
            const std::string message = thrown<std::invalid_argument>(
                [&] { (void)step.differentiate(network, batch.x, batch.labels, 1, part); });
            INFO(message);
            CHECK(holds(message, "TrainingStep: "));
            CHECK(same_bits(test::slopes(network, step.gradient()), before));
        }
    }
}

TEST_CASE("TrainingStep: a batch of no samples has the loss 0 and no gradient", "[training_step]") {
    const Network network = network_of(3, 6, 0.5);
    const Batch none{0};
    for (const MaskScope scope : {MaskScope::batch, MaskScope::sample, MaskScope::subset}) {
        Step step{network, {}, {.mask_scope = scope}};
        CHECK(step.differentiate(network, none.x, none.labels, 0).loss == 0);
        CHECK(test::slopes(network, step.gradient()).isZero(0));
    }
}

TEST_CASE("TrainingStep: bad input gets a clear error, and the gradient is as before",
          "[training_step]") {
    const Network network = network_of(3, 6, 0.5);
    const Batch batch{4};
    CHECK(holds(thrown<std::invalid_argument>([&] {
                    Step{network, {}, {.threads = 0}};
                }),
                "TrainingStep: threads", "[1, 65535]", "got 0"));
    Step step{network, {}};
    (void)step.differentiate(network, batch.x, batch.labels, 0);
    const Eigen::VectorXd before = test::slopes(network, step.gradient());
    const auto refused = [&](const auto& call, auto... parts) {
        const std::string message = thrown<std::invalid_argument>(call);
        INFO(message);
        CHECK(holds(message, parts...));
        CHECK(same_bits(test::slopes(network, step.gradient()), before));
    };
    const Matrix<float> wide = Matrix<float>::Zero(13, 4);
    refused([&] { (void)step.differentiate(network, wide, batch.labels, 1); }, "Linear", "12",
            "13");
    const Eigen::VectorXi three = batch.labels.head(3);
    refused([&] { (void)step.differentiate(network, batch.x, three, 1); }, "labels", "4", "3");
    const Eigen::VectorXi unknown = Eigen::VectorXi::Constant(4, 5);
    refused([&] { (void)step.differentiate(network, batch.x, unknown, 1); }, "labels", "got 5");
    refused(
        [&] {
            (void)step.differentiate(network, batch.x, batch.labels, SurvivalMask{1, 0});
        },
        "mask must have 3 layers", "got 2");
    refused(
        [&] {
            (void)step.differentiate(network, batch.x, batch.labels, SurvivalMasks{3, 5});
        },
        "masks must be for 4 samples", "got 5");
    refused([&] { step.set_survival_probabilities(linear_decay(2, 0.5)); },
            "survival probabilities must be 3", "got 2");
    refused([&] { step.set_survival_probabilities(Eigen::Vector3d(0.5, 0, 1)); }, "(0, 1]",
            "got 0");
    Matrix<float> broken = batch.x;
    broken(0, 0) = std::numeric_limits<float>::quiet_NaN();
    const std::string message = thrown<std::runtime_error>(
        [&] { (void)step.differentiate(network, broken, batch.labels, 8); });
    CHECK(holds(message, "loss must be finite", "got nan", "step 8"));
    CHECK(same_bits(test::slopes(network, step.gradient()), before));
    // And goes on as if nothing had been.
    Step other{network, {}};
    (void)other.differentiate(network, batch.x, batch.labels, 0);
    (void)other.differentiate(network, batch.x, batch.labels, 2);
    (void)step.differentiate(network, batch.x, batch.labels, 2);
    CHECK(
        same_bits(test::slopes(network, step.gradient()), test::slopes(network, other.gradient())));
}

}  // namespace stochastic_depth
