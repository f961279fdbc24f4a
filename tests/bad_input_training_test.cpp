// SPDX-License-Identifier: MIT
#include <array>
#include <cstddef>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/survival/fixed_size_mask_sampler.hpp>
#include <stochastic_depth/survival/time_schedules.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/trainer.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/gradient_networks.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using Eigen::VectorXi;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

struct OwnError : std::exception {
    [[nodiscard]] const char* what() const noexcept override { return "a user's own error"; }
};

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

enum class Error { invalid_argument, runtime, own, none };

/// One wrong call, and what its message must hold.
struct Row {
    std::function<void()> call;
    std::array<const char*, 3> fragments;
    Error error = Error::invalid_argument;
};

/// Runs every row, and after each one asks whether anything has changed.
template <class Unchanged>
void check_rows(const std::vector<Row>& rows, const Unchanged& unchanged) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
        std::string message = "nothing";
        Error error = Error::none;
        try {
            rows[i].call();
        } catch (const std::invalid_argument& thrown) {
            error = Error::invalid_argument;
            message = thrown.what();
        } catch (const std::runtime_error& thrown) {
            error = Error::runtime;
            message = thrown.what();
        } catch (const OwnError& thrown) {
            error = Error::own;
            message = thrown.what();
        }
        INFO("row " << i << ", wants \"" << rows[i].fragments.front() << "\", said \"" << message
                    << '"');
        CHECK(error == rows[i].error);
        for (const char* fragment : rows[i].fragments) {
            if (!fragment) break;
            INFO("must name " << fragment);
            CHECK(message.find(fragment) != std::string::npos);
        }
        CHECK(unchanged());
    }
}

/// A network of 3 inputs, 2 outputs and 2 layers to skip, and a batch of 5.
struct Problem {
    Philox random{1};
    test::Network network = test::network(random, VectorXd{{0.7, 0.5}});
    MatrixXd x = test::random_matrix<double>(random, 3, 5);
    MatrixXd targets = test::random_matrix<double>(random, 2, 5);
    VectorXi labels = test::random_labels(random, 5, 2);

    [[nodiscard]] MatrixXd x_with(double value) const {
        MatrixXd changed = x;
        changed(1, 3) = value;
        return changed;
    }
    [[nodiscard]] MatrixXd targets_with(double value) const {
        MatrixXd changed = targets;
        changed(0, 4) = value;
        return changed;
    }
    [[nodiscard]] VectorXi labels_with(int label) const {
        VectorXi changed = labels;
        changed(2) = label;
        return changed;
    }
};

TEST_CASE(
    "bad input: TrainingStep refuses it by class, argument and value, keeps its gradient, and its "
    "next step is as if nothing had been asked",
    "[bad_input_training]") {
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

        const std::vector<Row> rows{
            {[&] { (void)CrossEntropyStep(network, {}, {.threads = 0}); },
             {"TrainingStep: threads", "[1, 65535]", "got 0"}},

            // Survival probabilities of the steps to come.
            {set(VectorXd{{0.5}}), {"TrainingStep: survival probabilities", "2", "got 1"}},
            {set(VectorXd(0)), {"TrainingStep: survival probabilities", "2", "got 0"}},
            {set(VectorXd{{0.5, 0.5, 0.5}}), {"TrainingStep: survival prob", "2", "got 3"}},
            {set(VectorXd{{0.5, 0.0}}), {"survival probability p(1)", "(0, 1]", "got 0"}},
            {set(VectorXd{{1.25, 0.5}}), {"survival probability p(0)", "(0, 1]", "got 1.25"}},
            {set(VectorXd{{-0.5, 0.5}}), {"survival probability p(0)", "(0, 1]", "got -0.5"}},
            {set(VectorXd{{0.5, nan}}), {"survival probability p(1)", "(0, 1]", "got nan"}},
            {set(VectorXd{{0.5, inf}}), {"survival probability p(1)", "(0, 1]", "got inf"}},

            // Sizes.
            {at_step(narrow, labels), {"Linear: input must have 3 rows", "got 2"}},
            {at_step(x, labels.head(4)), {"SoftmaxCrossEntropy: labels", "5 samples", "got 4"}},
            {at_step(x, VectorXi(0)), {"SoftmaxCrossEntropy: labels", "5 samples", "got 0"}},
            {at_step(x.leftCols(0), labels), {"SoftmaxCrossEntropy: labels", "0 samples", "got 5"}},
            {squares_at_step(x, targets.topRows(1)),
             {"MeanSquaredError: targets", "2 x 5", "got 1 x 5"}},
            {squares_at_step(x, targets.leftCols(3)),
             {"MeanSquaredError: targets", "2 x 5", "got 2 x 3"}},
            {squares_at_step(narrow, targets), {"Linear: input must have 3 rows", "got 2"}},

            // Another network.
            {[&] { (void)step.differentiate(deeper, x, labels, 2); },
             {"TrainingStep: network", "2 skippable layers", "got 3"}},
            {[&] { (void)step.differentiate(deeper, x, labels, SurvivalMasks::all(3, 5)); },
             {"TrainingStep: network", "2 skippable layers", "got 3"}},
            {[&] { (void)step.differentiate(deeper, x, labels, SurvivalMask::all(2)); },
             {"TrainingStep: mask", "3 layers", "got 2"}},

            // Labels.
            {at_step(x, problem.labels_with(2)),
             {"SoftmaxCrossEntropy: labels", "[0, 2)", "got 2 for sample 2"}},
            {at_step(x, problem.labels_with(-1)),
             {"SoftmaxCrossEntropy: labels", "[0, 2)", "got -1 for sample 2"}},

            // Masks.
            {under(SurvivalMask::all(3)), {"TrainingStep: mask", "2 layers", "got 3"}},
            {under(SurvivalMask::all(0)), {"TrainingStep: mask", "2 layers", "got 0"}},
            {under(SurvivalMasks::all(1, 5)), {"TrainingStep: masks", "2 layers", "got 1"}},
            {under(SurvivalMasks::all(2, 4)), {"TrainingStep: masks", "5 samples", "got 4"}},
            {under(SurvivalMasks::all(2, 6)), {"TrainingStep: masks", "5 samples", "got 6"}},
            {under(SurvivalMasks{}), {"TrainingStep: masks", "2 layers", "got 0"}},

            // Numbers that are not finite.
            {at_step(problem.x_with(nan), labels),
             {"TrainingStep: loss must be finite", "nan", "step 2"},
             Error::runtime},
            {at_step(problem.x_with(inf), labels),
             {"TrainingStep: loss must be finite", "got", "step 2"},
             Error::runtime},
            {squares_at_step(x, problem.targets_with(nan)),
             {"TrainingStep: loss must be finite", "nan", "step 2"},
             Error::runtime},
            {squares_at_step(x, problem.targets_with(-inf)),
             {"TrainingStep: loss must be finite", "got inf", "step 2"},
             Error::runtime},
            {squares_at_step(x, problem.targets_with(1e200)),
             {"TrainingStep: loss must be finite", "got inf", "step 2"},
             Error::runtime},

            // A user's loss.
            {given(of_nan), {"TrainingStep: loss must be finite", "nan", "step 9"}, Error::runtime},
            {given(of_inf),
             {"TrainingStep: loss must be finite", "got inf", "step 9"},
             Error::runtime},
            {given(throwing), {"a user's own error"}, Error::own},
        };
        INFO("scope " << static_cast<int>(scope));
        check_rows(rows, unchanged);
    }
}

TEST_CASE("TrainingStep: an empty batch has the loss 0 and adds nothing to the gradient",
          "[bad_input_training]") {
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

TEST_CASE(
    "bad input: Trainer refuses it, and leaves the network as it was or as the last whole step left "
    "it",
    "[bad_input_training]") {
    const Problem problem;
    const Dataset<double> data{problem.x, problem.labels, 2};
    test::Network network = problem.network;
    const VectorXd start = test::parameters(network);
    // Three steps an epoch: batches of 2, 2 and 1.
    const TrainerOptions good{.batch_size = 2, .epochs = 2, .seed = 4};
    std::vector<VectorXd> after_step{start};
    {
        TrainerOptions options = good;
        test::Network trained = network;
        options.on_step = [&](const TrainingProgress&) {
            after_step.push_back(test::parameters(trained));
        };
        (void)Trainer{options}.fit(trained, data, SoftmaxCrossEntropy<double>{});
        REQUIRE(after_step.size() == 7);
    }
    std::size_t whole_steps = 0;
    const auto unchanged = [&] {
        const bool as_expected =
            test::same_bits(test::parameters(network), after_step[whole_steps]);
        network = problem.network;
        whole_steps = 0;
        return as_expected;
    };
    const auto fit_with = [&](const Dataset<double>& samples, TrainerOptions options,
                              std::size_t steps) {
        return [=, &network, &whole_steps] {
            whole_steps = steps;
            (void)Trainer{options}.fit(network, samples, SoftmaxCrossEntropy<double>{});
        };
    };
    const auto fit = [&](const TrainerOptions& options, std::size_t steps) {
        return fit_with(data, options, steps);
    };
    const auto with = [&](auto change) {
        TrainerOptions options = good;
        change(options);
        return options;
    };
    /// A schedule over time that gives p itself and, from a step on, something else.
    const auto survival = [&](Index step, const VectorXd& p) {
        return fit(with([&](TrainerOptions& options) {
                       options.survival = [=](const VectorXd& own, const TrainingTime& time) {
                           return time.step < step ? own : p;
                       };
                   }),
                   static_cast<std::size_t>(step));
    };
    const auto rate = [&](Index step, double value) {
        return fit(with([&](TrainerOptions& options) {
                       options.learning_rate = [=](double progress) {
                           return progress * 6 < static_cast<double>(step) - 0.5
                                      ? SgdOptions{}.learning_rate
                                      : value;
                       };
                   }),
                   static_cast<std::size_t>(step));
    };

    const std::vector<Row> rows{
        {fit(with([](auto& options) { options.threads = 0; }), 0),
         {"Trainer: threads", "at least 1", "got 0"}},
        {fit(with([](auto& options) { options.batch_size = -1; }), 0),
         {"Trainer: batch_size", "at least 1", "got -1"}},
        {fit_with(data.head(0), with([](auto& options) { options.mask_scope = MaskScope::subset; }),
                  0),
         {"Trainer: data", "at least 1 sample", "got 0"}},
        {fit_with(Dataset<double>{problem.x.topRows(2), problem.labels, 2}, good, 0),
         {"Linear: input must have 3 rows", "got 2"}},
        {fit_with(Dataset<double>{problem.x, problem.labels, 3}, good, 0),
         {"Trainer: network", "3 classes", "got 2"}},

        // Schedules over time.
        {survival(0, VectorXd{{0.5}}), {"survival probabilities", "2", "got 1"}},
        {survival(0, VectorXd{{0.5, 0.0}}), {"survival probability p(1)", "(0, 1]", "got 0"}},
        {survival(3, VectorXd{{nan, 0.5}}), {"survival probability p(0)", "(0, 1]", "got nan"}},
        {survival(5, VectorXd{{0.5, 1.0000001}}),
         {"survival probability p(1)", "(0, 1]", "got 1.0000001"}},
        {survival(4, VectorXd(0)), {"survival probabilities", "2", "got 0"}},
        {rate(0, nan), {"Sgd: learning_rate", "got nan"}},
        {rate(2, 0.0), {"Sgd: learning_rate", "got 0"}},
        {rate(5, -inf), {"Sgd: learning_rate", "got -inf"}},
        {fit(with([](auto& options) {
                 options.learning_rate = [](double progress) -> double {
                     if (progress > 0.3) throw OwnError{};
                     return SgdOptions{}.learning_rate;
                 };
             }),
             2),
         {"a user's own error"},
         Error::own},
        {fit(with([](auto& options) {
                 options.survival = [](const VectorXd& p, const TrainingTime& time) {
                     if (time.step == 4) throw OwnError{};
                     return p;
                 };
             }),
             4),
         {"a user's own error"},
         Error::own},
        {fit(with([](auto& options) {
                 options.on_step = [](const TrainingProgress& progress) {
                     if (progress.epoch == 1) throw OwnError{};
                 };
             }),
             4),
         {"a user's own error"},
         Error::own},
    };
    check_rows(rows, unchanged);

    // Weights that are not finite, met in the first step.
    network = problem.network;
    Index place = 0;
    test::for_each_parameter(network, [&](double& weight) {
        if (place++ == 2) weight = inf;
    });
    const VectorXd with_inf = test::parameters(network);
    std::string message = "nothing thrown";
    try {
        (void)Trainer{good}.fit(network, data, SoftmaxCrossEntropy<double>{});
    } catch (const std::runtime_error& error) {
        message = error.what();
    }
    INFO(message);
    CHECK(message.find("loss must be finite, got") != std::string::npos);
    CHECK(test::same_bits(test::parameters(network), with_inf));
}

TEST_CASE("bad input: samplers of subsets and schedules over time refuse it",
          "[bad_input_training]") {
    const FixedSizeMaskSampler sampler{VectorXd{{0.7, 0.5}}, 1}, empty{VectorXd(0), 1};
    SurvivalMasks masks = SurvivalMasks::all(2, 5), deep = SurvivalMasks::all(3, 5),
                  wide{0, Index{1} << 32};
    const auto unchanged = [&] {
        return masks == SurvivalMasks::all(2, 5) && deep == SurvivalMasks::all(3, 5) &&
               wide.batch_size() == Index{1} << 32;
    };
    const SurvivalWarmUp warm_up{0.5};
    const ProgressiveLayerDropping dropping{0.1};
    const VectorXd p{{0.7, 0.5}};
    const auto warm = [&](const TrainingTime& time) { return [=] { (void)warm_up(p, time); }; };
    const auto drop = [&](const VectorXd& targets, const TrainingTime& time) {
        return [=] { (void)dropping(targets, time); };
    };
    const std::vector<Row> rows{
        {[&] { sampler.sample(0, deep); }, {"FixedSizeMaskSampler: masks", "2 layers", "got 3"}},
        {[&] { empty.sample(0, masks); }, {"FixedSizeMaskSampler: masks", "0 layers", "got 2"}},
        {[&] { empty.sample(0, wide); },
         {"FixedSizeMaskSampler: batch size", "[0, 4294967296)", "got 4294967296"}},
        {[&] { (void)sampler.sample(0, Index{-1}); },
         {"FixedSizeMaskSampler: batch size", "[0, 4294967296)", "got -1"}},
        {warm({5, 4}), {"SurvivalWarmUp: progress", "[0, 1]", "got 1.25"}},
        {warm({-1, 4}), {"SurvivalWarmUp: progress", "[0, 1]", "got -0.25"}},
        {warm({0, 0}), {"SurvivalWarmUp: progress", "[0, 1]", "nan"}},
        {drop(p, {-1, 4}), {"ProgressiveLayerDropping: step", "at least 0", "got -1"}},
        {drop(VectorXd{{0.5, nan}}, {1, 4}),
         {"ProgressiveLayerDropping: survival probability p(1)", "(0, 1]", "got nan"}},
    };
    check_rows(rows, unchanged);
}

}  // namespace
