// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/trainer.hpp>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/learning_rate.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using test::parameters;

using Block = StochasticDepth<Residual<Linear<double>>>;
using Network = Stack<Block>;
using Curve = Dataset<double, Matrix<double>>;

Network some_network(std::uint32_t seed, double survival) {
    Philox random{seed};
    std::vector<Block> blocks;
    for (int l = 0; l < 3; ++l)
        blocks.emplace_back(Residual{Linear<double>{2, 2, random, 0.5}},
                            SurvivalProbability{survival});
    return Stack{blocks};
}

Curve some_curve(std::uint32_t seed, Index samples) {
    Philox random{seed};
    const Matrix<double> x = test::random_matrix<double>(random, 2, samples);
    const Matrix<double> weights = test::random_matrix<double>(random, 2, 2);
    return {x, weights * x};
}

/// Plain gradient descent of a user's own, which notes what it is told.
struct OwnDescent {
    double rate = 0.1;
    std::vector<double> rates = {};
    int steps = 0;

    void set_learning_rate(double learning_rate) {
        rate = learning_rate;
        rates.push_back(learning_rate);
    }
    void step(Network& network, Network::Gradient& gradient) {
        ++steps;
        detail::visit_parameters(
            network,
            [&](const char*, auto& parameter, const auto& slope) { parameter -= rate * slope; },
            gradient);
    }
};

static_assert(OptimizerOf<Sgd<Network>, Network>);
static_assert(OptimizerOf<Adam<Network>, Network>);
static_assert(OptimizerOf<AdamW<Network>, Network>);
static_assert(OptimizerOf<OwnDescent, Network>);
static_assert(!OptimizerOf<Adam<Linear<double>>, Network>);
static_assert(!OptimizerOf<double, Network>);

TEST_CASE("Trainer: an Sgd that it is given does what the options' would", "[trainer]") {
    const Curve data = some_curve(1, 25);
    const SgdOptions descent{.learning_rate = 0.05, .momentum = 0.9, .weight_decay = 0.01};
    Network own = some_network(2, 0.7), given = some_network(2, 0.7);
    const auto own_history = Trainer{{.batch_size = 4, .epochs = 3, .optimizer = descent}}.fit(
        own, data, MeanSquaredError<double>{});
    // Its own options would give another path.
    const Trainer trainer{{.batch_size = 4, .epochs = 3, .optimizer = {.learning_rate = 1e-9}}};
    const auto history = trainer.fit(given, data, MeanSquaredError<double>{}, Sgd{given, descent});
    CHECK(test::same_bits(parameters(own), parameters(given)));
    REQUIRE(history.size() == 3);
    for (std::size_t epoch = 0; epoch < 3; ++epoch)
        CHECK(history[epoch].loss == own_history[epoch].loss);
}

TEST_CASE("Trainer: a user's own optimizer is stepped once a batch, at the schedule's rates",
          "[trainer]") {
    const Curve data = some_curve(3, 10);
    Network own = some_network(4, 0.7), plain = some_network(4, 0.7);
    OwnDescent optimizer;
    const CosineLearningRate schedule{{.initial = 0.2}};
    const Trainer trainer{{.batch_size = 4, .epochs = 2, .learning_rate = schedule}};
    (void)trainer.fit(own, data, MeanSquaredError<double>{}, optimizer);
    CHECK(optimizer.steps == 6);
    REQUIRE(optimizer.rates.size() == 6);
    for (std::size_t step = 0; step < 6; ++step)
        CHECK(optimizer.rates[step] == schedule(static_cast<double>(step) / 6));
    (void)trainer.fit(plain, data, MeanSquaredError<double>{});
    CHECK(test::largest_difference(parameters(own), parameters(plain)) <= 1e-15);
}

TEST_CASE("Trainer: an optimizer that outlives the call keeps its state", "[trainer]") {
    // One batch of everything at full depth: an epoch is one step on the same gradient.
    const Curve data = some_curve(5, 1);
    const AdamWOptions options{.learning_rate = 0.01};
    Network twice = some_network(6, 1.0), once = twice;
    AdamW optimizer{twice, options};
    const Trainer one{{.batch_size = 1, .epochs = 1}}, two{{.batch_size = 1, .epochs = 2}};
    (void)one.fit(twice, data, MeanSquaredError<double>{}, optimizer);
    (void)one.fit(twice, data, MeanSquaredError<double>{}, optimizer);
    (void)two.fit(once, data, MeanSquaredError<double>{}, AdamW{once, options});
    CHECK(test::same_bits(parameters(twice), parameters(once)));
}

TEST_CASE("Trainer: Adam learns under stochastic depth, to the targets", "[trainer]") {
    // With p = 1 the three linear blocks can fit linear targets exactly.
    const Curve data = some_curve(7, 40);
    Network network = some_network(8, 1.0);
    const Trainer trainer{
        {.batch_size = 40, .epochs = 1500, .learning_rate = CosineLearningRate{{.initial = 0.02}}}};
    const auto full = trainer.fit(network, data, MeanSquaredError<double>{}, Adam{network, {}});
    CHECK(full.front().loss > 0.1);
    CHECK(full.back().loss < 1e-8);
    // Below 1, every layer is trained, each in the steps that keep it.
    Network skipping = some_network(8, 0.5);
    const Network before = skipping;
    const auto history =
        Trainer{{.batch_size = 8, .epochs = 100, .mask_scope = MaskScope::batch}}.fit(
            skipping, data, MeanSquaredError<double>{}, AdamW{skipping, {.learning_rate = 0.01}});
    CHECK(history.back().loss < history.front().loss);
    for (std::size_t l = 0; l < 3; ++l)
        CHECK_FALSE(
            test::same_bits(parameters(skipping.layers()[l]), parameters(before.layers()[l])));
}

TEST_CASE("Trainer: a training that goes on at a step equals one that was never interrupted",
          "[trainer]") {
    const Curve data = some_curve(71, 23);  // 6 steps in an epoch
    const auto options = [](Index first_step, Index epochs) {
        return TrainerOptions{.batch_size = 4,
                              .epochs = epochs,
                              .first_step = first_step,
                              .seed = 72,
                              .survival = [](const Eigen::VectorXd& p, const TrainingTime& time) {
                                  return SurvivalWarmUp{0.5}(p, time);
                              }};
    };
    Network whole = some_network(73, 0.5);
    Adam optimizer{whole, {.learning_rate = 0.01}};
    (void)Trainer{options(0, 4)}.fit(whole, data, MeanSquaredError<double>{}, optimizer);

    for (const Index stop : {0, 1, 5, 6, 11, 18, 23, 24}) {
        INFO("stopped after step " << stop);
        Network part = some_network(73, 0.5);
        Adam state{part, {.learning_rate = 0.01}};
        struct Stopped {};
        TrainerOptions until = options(0, 4);
        until.on_step = [&](const TrainingProgress& at) {
            if (at.epoch * at.steps + at.step + 1 == stop) throw Stopped{};
        };
        if (stop > 0)
            CHECK_THROWS_AS(Trainer{until}.fit(part, data, MeanSquaredError<double>{}, state),
                            Stopped);
        const auto rest =
            Trainer{options(stop, 4)}.fit(part, data, MeanSquaredError<double>{}, state);
        CHECK(test::same_bits(parameters(part), parameters(whole)));
        CHECK(rest.size() == static_cast<std::size_t>(4 - stop / 6));
    }
    CHECK(thrown<std::invalid_argument>([&] { Trainer{options(-1, 4)}; }) ==
          "Trainer: first_step must be at least 0, got -1");
}

TEST_CASE("Trainer: survival probabilities follow their schedule, and the network keeps its own",
          "[trainer]") {
    const Curve data = some_curve(74, 20);
    Network network = some_network(75, 0.25);
    const Eigen::VectorXd own = network.survival_probabilities();
    std::vector<double> asked;
    TrainerOptions options{.batch_size = 5, .epochs = 2, .seed = 76};
    options.survival = [&](const Eigen::VectorXd& p, const TrainingTime& time) {
        CHECK(p == own);
        CHECK(time.steps == 8);
        asked.push_back(time.progress());
        const ProgressiveLayerDropping dropping{0.1};
        CHECK(dropping(p, time) == dropping(p, time.step));
        return Eigen::VectorXd(time.step < 4 ? Eigen::VectorXd::Ones(3) : p);
    };
    const auto history = Trainer{options}.fit(network, data, MeanSquaredError<double>{});
    CHECK(asked == std::vector<double>{0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875});
    CHECK(network.survival_probabilities() == own);
    CHECK(history[0].layer_evaluations == history[0].full_depth_evaluations);
    CHECK(history[0].expected_layer_evaluations == 60);
    CHECK(history[1].layer_evaluations < 40);
    CHECK(history[1].expected_layer_evaluations == 15);
    CHECK(history[0].forward_seconds + history[0].backward_seconds + history[0].update_seconds <=
          history[0].seconds);
}

}  // namespace
