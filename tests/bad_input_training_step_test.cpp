// SPDX-License-Identifier: MIT
#include <stdexcept>

#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/refusals.hpp"
#include "support/training_problem.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using Eigen::VectorXi;
using test::inf;
using test::nan;
using test::OwnError;
using test::Problem;
using test::refuses;

/// A mean over the batch that gives `value` whatever the outputs, or throws.
struct GivenLoss {
    using Targets = VectorXi;
    double result = 0;
    bool throws = false;
    [[nodiscard]] double value_and_gradient(const ConstMatrixRef<double>&,
                                            const Eigen::Ref<const Targets>&,
                                            MatrixRef<double> gradient) const {
        gradient.setOnes();
        if (throws) throw OwnError{};
        return result;
    }
};

TEST_CASE(
    "bad input: TrainingStep refuses it by class, argument and value, keeps its gradient, and its "
    "next step is as if nothing had been asked",
    "[bad_input_training_step]") {
    const Problem problem;
    const test::Network& network = problem.network;
    Philox random{2};
    const test::Network deeper = test::network(random, VectorXd{{0.7, 0.5, 0.5}});
    const MatrixXd &x = problem.x, &targets = problem.targets;
    const VectorXi& labels = problem.labels;
    using CrossEntropyStep = TrainingStep<test::Network, SoftmaxCrossEntropy<double>>;
    using SquaresStep = TrainingStep<test::Network, MeanSquaredError<double>>;
    using GivenStep = TrainingStep<test::Network, GivenLoss>;

    for (const MaskScope scope : {MaskScope::batch, MaskScope::sample, MaskScope::subset}) {
        const TrainingStepOptions options{.mask_scope = scope, .seed = 3};
        CrossEntropyStep step(network, {}, options);
        SquaresStep squares(network, {}, options);
        GivenStep of_nan(network, {.result = nan}, options),
            of_inf(network, {.result = inf}, options), throwing(network, {.throws = true}, options);

        // What each of them must still have, and what comes next.
        (void)step.differentiate(network, x, labels, 1);
        (void)squares.differentiate(network, x, targets, 1);
        const VectorXd kept = test::slopes(network, step.gradient());
        const VectorXd kept_squares = test::slopes(network, squares.gradient());
        CrossEntropyStep fresh(network, {}, options);
        (void)fresh.differentiate(network, x, labels, 1);
        (void)fresh.differentiate(network, x, labels, 2);
        const VectorXd next = test::slopes(network, fresh.gradient());
        const auto unchanged = [&] {
            const bool kept_all =
                test::same_bits(test::slopes(network, step.gradient()), kept) &&
                test::same_bits(test::slopes(network, squares.gradient()), kept_squares) &&
                test::slopes(network, of_nan.gradient()).isZero(0) &&
                test::slopes(network, of_inf.gradient()).isZero(0) &&
                test::slopes(network, throwing.gradient()).isZero(0) &&
                test::same_bits(step.survival_probabilities(), network.survival_probabilities());
            (void)step.differentiate(network, x, labels, 2);
            const bool goes_on = test::same_bits(test::slopes(network, step.gradient()), next);
            step.gradient().set_zero();
            (void)step.differentiate(network, x, labels, 1);
            return kept_all && goes_on;
        };
        REQUIRE(kept.norm() > 0);
        REQUIRE(unchanged());

        const auto set = [&](const VectorXd& p) {
            return [=, &step] { step.set_survival_probabilities(p); };
        };
        const auto at_step = [&](const MatrixXd& inputs, const VectorXi& classes) {
            return [=, &step, &problem] {
                (void)step.differentiate(problem.network, inputs, classes, 2);
            };
        };
        const auto under = [&](const auto& masks) {
            return [=, &step, &problem] {
                (void)step.differentiate(problem.network, problem.x, problem.labels, masks);
            };
        };
        const auto squares_at_step = [&](const MatrixXd& inputs, const MatrixXd& outputs) {
            return [=, &squares, &problem] {
                (void)squares.differentiate(problem.network, inputs, outputs, 2);
            };
        };
        const auto given = [&](GivenStep& of) {
            return [&] { (void)of.differentiate(problem.network, problem.x, problem.labels, 9); };
        };
        const MatrixXd narrow = x.topRows(2);

        refuses([&] { (void)CrossEntropyStep(network, {}, {.threads = 0}); },
                {"TrainingStep: threads", "[1, 65535]", "got 0"}, unchanged);

        // Survival probabilities of the steps to come.
        refuses(set(VectorXd{{0.5}}), {"TrainingStep: survival probabilities", "2", "got 1"},
                unchanged);
        refuses(set(VectorXd(0)), {"TrainingStep: survival probabilities", "2", "got 0"},
                unchanged);
        refuses(set(VectorXd{{0.5, 0.5, 0.5}}), {"TrainingStep: survival prob", "2", "got 3"},
                unchanged);
        refuses(set(VectorXd{{0.5, 0.0}}), {"survival probability p(1)", "(0, 1]", "got 0"},
                unchanged);
        refuses(set(VectorXd{{1.25, 0.5}}), {"survival probability p(0)", "(0, 1]", "got 1.25"},
                unchanged);
        refuses(set(VectorXd{{-0.5, 0.5}}), {"survival probability p(0)", "(0, 1]", "got -0.5"},
                unchanged);
        refuses(set(VectorXd{{0.5, nan}}), {"survival probability p(1)", "(0, 1]", "got nan"},
                unchanged);
        refuses(set(VectorXd{{0.5, inf}}), {"survival probability p(1)", "(0, 1]", "got inf"},
                unchanged);

        // Sizes.
        refuses(at_step(narrow, labels), {"Linear: input must have 3 rows", "got 2"}, unchanged);
        refuses(at_step(x, labels.head(4)), {"SoftmaxCrossEntropy: labels", "5 samples", "got 4"},
                unchanged);
        refuses(at_step(x, VectorXi(0)), {"SoftmaxCrossEntropy: labels", "5 samples", "got 0"},
                unchanged);
        refuses(at_step(x.leftCols(0), labels),
                {"SoftmaxCrossEntropy: labels", "0 samples", "got 5"}, unchanged);
        refuses(squares_at_step(x, targets.topRows(1)),
                {"MeanSquaredError: targets", "2 x 5", "got 1 x 5"}, unchanged);
        refuses(squares_at_step(x, targets.leftCols(3)),
                {"MeanSquaredError: targets", "2 x 5", "got 2 x 3"}, unchanged);
        refuses(squares_at_step(narrow, targets), {"Linear: input must have 3 rows", "got 2"},
                unchanged);

        // Another network.
        refuses([&] { (void)step.differentiate(deeper, x, labels, 2); },
                {"TrainingStep: network", "2 skippable layers", "got 3"}, unchanged);
        refuses([&] { (void)step.differentiate(deeper, x, labels, SurvivalMasks::all(3, 5)); },
                {"TrainingStep: network", "2 skippable layers", "got 3"}, unchanged);
        refuses([&] { (void)step.differentiate(deeper, x, labels, SurvivalMask::all(2)); },
                {"TrainingStep: mask", "3 layers", "got 2"}, unchanged);

        // Labels.
        refuses(at_step(x, problem.labels_with(2)),
                {"SoftmaxCrossEntropy: labels", "[0, 2)", "got 2 for sample 2"}, unchanged);
        refuses(at_step(x, problem.labels_with(-1)),
                {"SoftmaxCrossEntropy: labels", "[0, 2)", "got -1 for sample 2"}, unchanged);

        // Masks.
        refuses(under(SurvivalMask::all(3)), {"TrainingStep: mask", "2 layers", "got 3"},
                unchanged);
        refuses(under(SurvivalMask::all(0)), {"TrainingStep: mask", "2 layers", "got 0"},
                unchanged);
        refuses(under(SurvivalMasks::all(1, 5)), {"TrainingStep: masks", "2 layers", "got 1"},
                unchanged);
        refuses(under(SurvivalMasks::all(2, 4)), {"TrainingStep: masks", "5 samples", "got 4"},
                unchanged);
        refuses(under(SurvivalMasks::all(2, 6)), {"TrainingStep: masks", "5 samples", "got 6"},
                unchanged);
        refuses(under(SurvivalMasks{}), {"TrainingStep: masks", "2 layers", "got 0"}, unchanged);

        // Numbers that are not finite.
        refuses<std::runtime_error>(at_step(problem.x_with(nan), labels),
                                    {"TrainingStep: loss must be finite", "nan", "step 2"},
                                    unchanged);
        refuses<std::runtime_error>(at_step(problem.x_with(inf), labels),
                                    {"TrainingStep: loss must be finite", "got", "step 2"},
                                    unchanged);
        refuses<std::runtime_error>(squares_at_step(x, problem.targets_with(nan)),
                                    {"TrainingStep: loss must be finite", "nan", "step 2"},
                                    unchanged);
        refuses<std::runtime_error>(squares_at_step(x, problem.targets_with(-inf)),
                                    {"TrainingStep: loss must be finite", "got inf", "step 2"},
                                    unchanged);
        refuses<std::runtime_error>(squares_at_step(x, problem.targets_with(1e200)),
                                    {"TrainingStep: loss must be finite", "got inf", "step 2"},
                                    unchanged);

        // A user's loss.
        refuses<std::runtime_error>(
            given(of_nan), {"TrainingStep: loss must be finite", "nan", "step 9"}, unchanged);
        refuses<std::runtime_error>(
            given(of_inf), {"TrainingStep: loss must be finite", "got inf", "step 9"}, unchanged);
        refuses<OwnError>(given(throwing), {"a user's own error"}, unchanged);
        INFO("scope " << static_cast<int>(scope));
    }
}

TEST_CASE("TrainingStep: an empty batch has the loss 0 and adds nothing to the gradient",
          "[bad_input_training_step]") {
    const Problem problem;
    for (const MaskScope scope : {MaskScope::batch, MaskScope::sample, MaskScope::subset}) {
        TrainingStep<test::Network, SoftmaxCrossEntropy<double>> step(problem.network, {},
                                                                      {.mask_scope = scope});
        (void)step.differentiate(problem.network, problem.x, problem.labels, 0);
        const VectorXd before = test::slopes(problem.network, step.gradient());
        REQUIRE(before.norm() > 0);
        const StepLedger ledger =
            step.differentiate(problem.network, problem.x.leftCols(0), problem.labels.head(0), 1);
        CHECK(ledger.loss == 0);
        CHECK(ledger.layer_evaluations == 0);
        CHECK(ledger.full_depth_evaluations == 0);
        CHECK(test::same_bits(test::slopes(problem.network, step.gradient()), before));
    }
}

}  // namespace
