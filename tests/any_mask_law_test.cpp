// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/any_mask_law.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/pass/reached_layers.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/trainer.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/laws.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"
#include "support/structures.hpp"

namespace {

using namespace stochastic_depth;
using test::refusal;
using Loss = MeanSquaredError<double>;

/// Four layers, the second inside the first; all residual, for inverted scaling.
auto nest(double outer, double inner, double third, double fourth) {
    test::Structures make{12};
    return Sequential{StochasticDepth{Residual{Sequential{make.block(4, inner), make.linear(4, 4)}},
                                      SurvivalProbability{outer}},
                      make.block(4, third), make.block(4, fourth), make.linear(4, 2)};
}
using Network = decltype(nest(1, 1, 1, 1));

/// All parameters' gradients in a row.
Eigen::VectorXd gradient_of(const Network& network, TrainingStep<Network, Loss>& step) {
    std::vector<double> numbers;
    detail::visit_parameters(
        network,
        [&](const char*, const auto&, const auto& slope) {
            for (Index k = 0; k < slope.size(); ++k) numbers.push_back(slope.data()[k]);
        },
        step.gradient());
    return Eigen::Map<Eigen::VectorXd>(numbers.data(), static_cast<Index>(numbers.size()));
}

struct Problem {
    Philox random{3};
    Matrix<double> x = test::random_matrix<double>(random, 4, 30);
    Matrix<double> targets = test::random_matrix<double>(random, 2, 30);
};

TEST_CASE("TrainingStep: under a law the masks are those of its sampler", "[any_mask_law]") {
    Problem problem;
    const auto network = nest(0.9, 0.8, 0.7, 0.6);
    const auto law = LayerCountLaw::exactly(4, 2);
    for (const MaskScope scope : {MaskScope::batch, MaskScope::sample})
        for (const Scaling scaling : {Scaling::none, Scaling::inverted}) {
            TrainingStep step{network, Loss{}, {scope, scaling, 17, 1, law}};
            TrainingStep given{network, Loss{}, {scope, scaling, 17, 1, law}};
            const auto ledger = step.differentiate(network, problem.x, problem.targets, 5);
            const LawMaskSampler sampler{law, 17};
            const auto expected =
                scope == MaskScope::batch
                    ? given.differentiate(network, problem.x, problem.targets, sampler.sample(5), 5)
                    : given.differentiate(network, problem.x, problem.targets,
                                          sampler.sample(5, 30), 5);
            CHECK(ledger.loss == expected.loss);
            CHECK(gradient_of(network, step) == gradient_of(network, given));
        }
}

TEST_CASE("TrainingStep: inverted scaling divides by how often a layer is kept where it is reached",
          "[any_mask_law]") {
    Problem problem;
    const MarkovLaw law{(Eigen::VectorXd(4) << 0.6, 0.5, 0.8, 1.0).finished(),
                        (Eigen::VectorXd(4) << 0, 0.9, 0.3, 0.0).finished()};
    // P(s_2 | s_1 = 1) = 0.5; of the others the marginals.
    const double second = 0.6 * 0.5 + 0.4 * 0.9, third = 0.8 * second + 0.3 * (1 - second);
    const auto network = nest(0.11, 0.12, 0.13, 0.14);
    const auto as_law = nest(0.6, 0.5, third, third);
    TrainingStep step{network, Loss{}, {.scaling = Scaling::inverted, .seed = 1, .law = law}};
    TrainingStep plain{as_law, Loss{}, {.scaling = Scaling::inverted, .seed = 1}};
    const SurvivalMasks masks = LawMaskSampler{law, 9}.sample(0, 30);
    const auto ledger = step.differentiate(network, problem.x, problem.targets, masks);
    const auto expected = plain.differentiate(as_law, problem.x, problem.targets, masks);
    CHECK(std::abs(ledger.loss - expected.loss) <= 1e-13);
    CHECK((gradient_of(network, step) - gradient_of(as_law, plain)).cwiseAbs().maxCoeff() <= 1e-13);
    // E of the layers that run, by listing.
    double evaluations = 0;
    for (const SurvivalMask& mask : test::all_masks(4))
        evaluations +=
            probability(mask, law) * (mask[0] + (mask[0] && mask[1]) + mask[2] + mask[3]);
    const auto drawn = step.differentiate(network, problem.x, problem.targets, 3);
    CHECK(std::abs(drawn.expected_layer_evaluations - 30 * evaluations) <= 1e-12);
    CHECK(std::abs(step.survival_probabilities()(1) - 0.5) <= 1e-15);
}

TEST_CASE("Trainer: every step under a law of exactly k layers takes the same work",
          "[any_mask_law]") {
    Problem problem;
    test::Structures make{5};
    auto network =
        Sequential{make.block(4, 0.5), make.block(4, 0.5), make.block(4, 0.5), make.linear(4, 2)};
    const Dataset<double, Matrix<double>> data{problem.x, problem.targets};
    TrainerOptions options{.batch_size = 10, .epochs = 30, .seed = 4};
    options.law = LayerCountLaw::exactly(3, 2);
    options.optimizer.learning_rate = 0.05;
    const auto history = Trainer{options}.fit(network, data, Loss{}, data);
    for (const EpochRecord& record : history) {
        CHECK(record.layer_evaluations == 60);
        CHECK(std::abs(record.expected_layer_evaluations - 60) <= 1e-12);
    }
    CHECK(history.back().loss < 0.8 * history.front().loss);
    // Validation is by weight scaling, with 2/3 of each layer.
    const auto scaled = WeightScaling{}(network, problem.x, LayerCountLaw::exactly(3, 2)).mean;
    Matrix<double> slopes(2, 30);
    CHECK(std::abs(history.back().validation_loss -
                   Loss{}.value_and_gradient(scaled, problem.targets, slopes)) <= 1e-12);
}

TEST_CASE("AnyMaskLaw: independent layers as a law are what they are without", "[any_mask_law]") {
    Problem problem;
    const auto network = nest(0.9, 0.8, 0.7, 0.6);
    TrainingStep plain{network, Loss{}, {.seed = 6}};
    TrainingStep step{
        network, Loss{}, {.seed = 6, .law = IndependentLaw{network.survival_probabilities()}}};
    const auto expected = plain.differentiate(network, problem.x, problem.targets, 2);
    const auto ledger = step.differentiate(network, problem.x, problem.targets, 2);
    CHECK(ledger.loss == expected.loss);
    CHECK(std::abs(ledger.expected_layer_evaluations - expected.expected_layer_evaluations) <=
          1e-12);
    CHECK_FALSE(AnyMaskLaw{});
    CHECK(AnyMaskLaw{test::TwoBackLaw{3}});
}

TEST_CASE("AnyMaskLaw: what a training cannot do under a law is refused", "[any_mask_law]") {
    const auto network = nest(0.9, 0.8, 0.7, 0.6);
    const auto law = LayerCountLaw::exactly(4, 2);
    const auto make = [&](TrainingStepOptions options) {
        return refusal([&] { (void)TrainingStep{network, Loss{}, std::move(options)}; });
    };
    CHECK(make({.law = LayerCountLaw::exactly(3, 2)}) ==
          "TrainingStep: law must have 4 layers, got 3");
    CHECK(make({.mask_scope = MaskScope::subset, .law = law}) ==
          "TrainingStep: mask_scope must be MaskScope::batch or MaskScope::sample under a law, got "
          "MaskScope::subset, which takes layers one by one");
    TrainingStep step{network, Loss{}, {.law = law}};
    CHECK(refusal([&] { step.set_survival_probabilities(Eigen::VectorXd::Constant(4, 0.5)); }) ==
          "TrainingStep: survival probabilities must be left to options.law, got 4");
    TrainerOptions options;
    options.law = law;
    options.survival = SurvivalWarmUp{0.5};
    CHECK(refusal([&] { (void)Trainer{options}; }) ==
          "Trainer: survival must be none where there is a law, got both");
}

}  // namespace
