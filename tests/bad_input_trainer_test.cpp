// SPDX-License-Identifier: MIT
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/trainer.hpp>

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
using test::Outputs;
using test::OwnError;
using test::Problem;
using test::refuses;

TEST_CASE("bad input: Sgd refuses options out of range, and keeps those that it has",
          "[bad_input_trainer]") {
    Philox random{1};
    using Block = StochasticDepth<Residual<Linear<double>>>;
    const Sequential trained{
        Block{Residual{Linear<double>{3, 3, random}}, SurvivalProbability{0.5}},
        Linear<double>{3, 2, random}};
    Sgd optimizer{trained, {.learning_rate = 0.25}};
    const auto rate_unchanged = [&] { return optimizer.options().learning_rate == 0.25; };
    const auto sgd = [&](SgdOptions options) {
        return [=, &trained] { (void)Sgd{trained, options}; };
    };

    refuses(sgd({.learning_rate = 0.0}), {"Sgd: learning_rate", "got 0"});
    refuses(sgd({.learning_rate = -1.0}), {"Sgd: learning_rate", "got -1"});
    refuses(sgd({.learning_rate = nan}), {"Sgd: learning_rate", "got nan"});
    refuses(sgd({.learning_rate = inf}), {"Sgd: learning_rate", "got inf"});
    refuses(sgd({.momentum = 1.0}), {"Sgd: momentum", "[0, 1)", "got 1"});
    refuses(sgd({.momentum = -0.5}), {"Sgd: momentum", "got -0.5"});
    refuses(sgd({.momentum = nan}), {"Sgd: momentum", "got nan"});
    refuses(sgd({.nesterov = true}), {"Sgd: nesterov", "momentum", "got 0"});
    refuses(sgd({.weight_decay = -0.1}), {"Sgd: weight_decay", "got -0.1"});
    refuses(sgd({.weight_decay = inf}), {"Sgd: weight_decay", "got inf"});
    refuses(sgd({.weight_decay = nan}), {"Sgd: weight_decay", "got nan"});
    refuses([&] { optimizer.set_learning_rate(-2); }, {"Sgd: learning_rate", "got -2"},
            rate_unchanged);
    refuses([&] { optimizer.set_learning_rate(nan); }, {"Sgd: learning_rate", "got nan"},
            rate_unchanged);
}

TEST_CASE("bad input: Trainer refuses options, data and losses that do not fit, and trains nothing",
          "[bad_input_trainer]") {
    Philox random{1};
    using Block = StochasticDepth<Residual<Linear<double>>>;
    Sequential trained{Block{Residual{Linear<double>{3, 3, random}}, SurvivalProbability{0.5}},
                       Linear<double>{3, 2, random}};
    const Outputs outputs;
    const MatrixXd &x = outputs.x, &wrong_x = outputs.wrong_x;
    const Dataset<double> data{x, VectorXi{{0, 1, 2, 1, 0}}, 3};
    const Dataset<double, MatrixXd> curve{x, MatrixXd::Random(2, 5)};
    const Dataset<double> nothing{MatrixXd(3, 0), VectorXi(0), 3};
    const MatrixXd halves = MatrixXd::Constant(2, 5, 0.5);
    const SoftmaxCrossEntropy<double> cross_entropy;
    const MeanSquaredError<double> squared_error;
    const VectorXd parameters_before = test::parameters(trained);
    const auto trained_unchanged = [&] {
        return test::same_bits(test::parameters(trained), parameters_before);
    };
    const auto fit = [&](TrainerOptions options, const auto& samples, const auto& loss) {
        return [=, &trained] { (void)Trainer{options}.fit(trained, samples, loss); };
    };

    refuses([] { (void)Trainer{{.batch_size = 0}}; }, {"Trainer: batch_size", "got 0"});
    refuses([] { (void)Trainer{{.batch_size = -8}}; }, {"Trainer: batch_size", "got -8"});
    refuses([] { (void)Trainer{{.epochs = -1}}; }, {"Trainer: epochs", "got -1"});
    refuses(fit({}, nothing, cross_entropy), {"Trainer: data", "at least 1 sample", "got 0"},
            trained_unchanged);
    refuses(fit({}, data, cross_entropy),
            {"SoftmaxCrossEntropy: labels", "[0, 2)", "got 2 for sample 2"}, trained_unchanged);
    refuses(fit({}, Dataset<double, MatrixXd>(x, x), squared_error),
            {"MeanSquaredError: targets", "2 x 5 like the output", "got 3 x 5"}, trained_unchanged);
    refuses(fit({}, Dataset<double, MatrixXd>(wrong_x, halves), squared_error),
            {"Linear: input", "3 rows", "got 2"}, trained_unchanged);
    refuses(fit({.optimizer = {.learning_rate = -1}}, curve, squared_error),
            {"Sgd: learning_rate", "got -1"}, trained_unchanged);
    refuses(fit({.optimizer = {.momentum = 2}}, curve, squared_error), {"Sgd: momentum", "got 2"},
            trained_unchanged);
    refuses(fit({.learning_rate = [](double) { return 0.0; }}, curve, squared_error),
            {"Sgd: learning_rate", "got 0"}, trained_unchanged);
}

TEST_CASE(
    "bad input: Trainer refuses it, and leaves the network as it was or as the last whole step left "
    "it",
    "[bad_input_trainer]") {
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

    refuses(fit(with([](auto& options) { options.threads = 0; }), 0),
            {"Trainer: threads", "at least 1", "got 0"}, unchanged);
    refuses(fit(with([](auto& options) { options.batch_size = -1; }), 0),
            {"Trainer: batch_size", "at least 1", "got -1"}, unchanged);
    refuses(fit_with(data.head(0),
                     with([](auto& options) { options.mask_scope = MaskScope::subset; }), 0),
            {"Trainer: data", "at least 1 sample", "got 0"}, unchanged);
    refuses(fit_with(Dataset<double>{problem.x.topRows(2), problem.labels, 2}, good, 0),
            {"Linear: input must have 3 rows", "got 2"}, unchanged);
    // Met in the second step alone, and refused before the first.
    refuses(fit_with(Dataset<double>{problem.x, problem.labels_with(2), 3}, good, 0),
            {"SoftmaxCrossEntropy: labels", "[0, 2)", "got 2 for sample 2"}, unchanged);

    // Schedules over time.
    refuses(survival(0, VectorXd{{0.5}}), {"survival probabilities", "2", "got 1"}, unchanged);
    refuses(survival(0, VectorXd{{0.5, 0.0}}), {"survival probability p(1)", "(0, 1]", "got 0"},
            unchanged);
    refuses(survival(3, VectorXd{{nan, 0.5}}), {"survival probability p(0)", "(0, 1]", "got nan"},
            unchanged);
    refuses(survival(5, VectorXd{{0.5, 1.0000001}}),
            {"survival probability p(1)", "(0, 1]", "got 1.0000001"}, unchanged);
    refuses(survival(4, VectorXd(0)), {"survival probabilities", "2", "got 0"}, unchanged);
    refuses(rate(0, nan), {"Sgd: learning_rate", "got nan"}, unchanged);
    refuses(rate(2, 0.0), {"Sgd: learning_rate", "got 0"}, unchanged);
    refuses(rate(5, -inf), {"Sgd: learning_rate", "got -inf"}, unchanged);
    refuses<OwnError>(fit(with([](auto& options) {
                              options.learning_rate = [](double progress) -> double {
                                  if (progress > 0.3) throw OwnError{};
                                  return SgdOptions{}.learning_rate;
                              };
                          }),
                          2),
                      {"a user's own error"}, unchanged);
    refuses<OwnError>(fit(with([](auto& options) {
                              options.survival = [](const VectorXd& p, const TrainingTime& time) {
                                  if (time.step == 4) throw OwnError{};
                                  return p;
                              };
                          }),
                          4),
                      {"a user's own error"}, unchanged);
    refuses<OwnError>(fit(with([](auto& options) {
                              options.on_step = [](const TrainingProgress& progress) {
                                  if (progress.epoch == 1) throw OwnError{};
                              };
                          }),
                          4),
                      {"a user's own error"}, unchanged);

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

}  // namespace
