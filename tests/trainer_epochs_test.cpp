// SPDX-License-Identifier: MIT
// Epochs of a Trainer: what is told after each, what stops them, and what goes on in another call.
#include <stochastic_depth/training/trainer.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/training/learning_rate.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>

#include "support/catch.hpp"
#include "support/gradient_networks.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using test::parameters;
using test::random_matrix;
using test::refusal;
using test::same_bits;
using Curve = Dataset<double, MatrixXd>;

const MeanSquaredError<double> squared_error;

/// A network of 2 skippable layers, and samples of what it is to learn.
struct Problem {
    Philox random{1};
    test::Network network = test::network(random, VectorXd{{0.8, 0.6}});
    Curve data = samples(40);
    Curve validation = samples(300);  // more than one block of columns

    Curve samples(Index count) {
        const MatrixXd x = random_matrix<double>(random, 3, count);
        return {x, (x.topRows(2).array() * x.bottomRows(2).array()).matrix()};
    }
};

/// What Trainer is told and tells.
struct Told {
    std::vector<EpochRecord> records;
    std::vector<VectorXd> networks;
    std::vector<double> rates;
};

TEST_CASE("Trainer: after each epoch it tells its number and the loss by weight scaling",
          "[trainer_epochs]") {
    Problem problem;
    for (const Scaling scaling : {Scaling::none, Scaling::inverted}) {
        test::Network network = problem.network, alone = problem.network;
        Told told;
        const Trainer trainer{{.batch_size = 16,
                               .epochs = 3,
                               .scaling = scaling,
                               .on_epoch = [&](const EpochRecord& record) {
                                   told.records.push_back(record);
                                   const MatrixXd x = problem.validation.inputs();
                                   const double loss = squared_error.value(
                                       scaling == Scaling::none ? WeightScaling{}(network, x).mean
                                                                : network(x),
                                       problem.validation.targets());
                                   CHECK(std::abs(record.validation_loss - loss) <= 1e-14);
                                   return true;
                               }}};
        const auto history = trainer.fit(network, problem.data, squared_error, problem.validation);
        REQUIRE(history.size() == 3);
        REQUIRE(told.records.size() == 3);
        for (std::size_t e = 0; e < 3; ++e) {
            CHECK(history[e].epoch == static_cast<Index>(e));
            CHECK(told.records[e].epoch == static_cast<Index>(e));
            CHECK(told.records[e].loss == history[e].loss);
            CHECK(told.records[e].validation_loss == history[e].validation_loss);
        }
        // Validation changes no bit of the training, and without it there is no such loss.
        const auto without = Trainer{{.batch_size = 16, .epochs = 3, .scaling = scaling}}.fit(
            alone, problem.data, squared_error);
        CHECK(same_bits(parameters(network), parameters(alone)));
        for (const EpochRecord& record : without) CHECK(std::isnan(record.validation_loss));
    }
}

TEST_CASE("Trainer: false from on_epoch ends the training after that epoch", "[trainer_epochs]") {
    Problem problem;
    test::Network network = problem.network, same = problem.network;
    const auto history = Trainer{
        {.epochs = 10, .on_epoch = [](const EpochRecord& record) {
             return record.epoch < 2;
         }}}.fit(network, problem.data, squared_error);
    CHECK(history.size() == 3);
    (void)Trainer{{.epochs = 3}}.fit(same, problem.data, squared_error);
    CHECK(same_bits(parameters(network), parameters(same)));
}

TEST_CASE("Trainer: early stopping ends with the network of the best epoch", "[trainer_epochs]") {
    Problem problem;
    const auto train = [&](double rate, Index patience, Told& told) {
        test::Network network = problem.network;
        const Trainer trainer{{.batch_size = 8,
                               .epochs = 60,
                               .optimizer = {.learning_rate = rate},
                               .on_epoch =
                                   [&](const EpochRecord& record) {
                                       told.records.push_back(record);
                                       told.networks.push_back(parameters(network));
                                       return true;
                                   },
                               .early_stopping = EarlyStoppingOptions{.patience = patience}}};
        (void)trainer.fit(network, problem.data, squared_error, problem.validation);
        return parameters(network);
    };
    for (const Index patience : {1, 4, 100}) {
        Told told;
        const VectorXd kept = train(0.3, patience, told);
        std::size_t best = 0;
        for (std::size_t e = 1; e < told.records.size(); ++e)
            if (told.records[e].validation_loss < told.records[best].validation_loss) best = e;
        CHECK(same_bits(kept, told.networks[best]));
        const bool ran_out = told.records.size() == 60;
        CHECK(ran_out == (patience == 100));
        if (!ran_out) CHECK(told.records.size() == best + 1 + static_cast<std::size_t>(patience));
        // The best one lies behind, so that something was restored.
        CHECK_FALSE(same_bits(kept, told.networks.back()));
    }
}

TEST_CASE("Trainer: a training that goes on epoch by epoch has the schedules of the whole",
          "[trainer_epochs]") {
    Problem problem;
    constexpr Index epochs = 5, steps = 3;
    Told whole, by_epoch, by_callback;
    const auto options = [&](Told& told) {
        TrainerOptions result{.batch_size = 16, .epochs = epochs};
        result.learning_rate = [&told, cosine = CosineLearningRate{{.initial = 0.01}}](double t) {
            told.rates.push_back(cosine(t));
            return told.rates.back();
        };
        result.survival = SurvivalWarmUp{0.5};
        return result;
    };
    const auto train = [&](Told& told, bool one_by_one, const auto& change) {
        test::Network network = problem.network;
        Adam adam{network};
        for (Index e = 0; e < (one_by_one ? epochs : 1); ++e) {
            TrainerOptions of_call = options(told);
            change(of_call, e);
            for (const EpochRecord& record :
                 Trainer{of_call}.fit(network, problem.data, squared_error, adam))
                told.records.push_back(record);
        }
        return parameters(network);
    };
    const VectorXd expected = train(whole, false, [](TrainerOptions&, Index) {});
    REQUIRE(whole.rates.size() == epochs * steps);
    CHECK(whole.rates.front() == 0.01);
    CHECK(whole.rates.back() < 2e-4);
    // By a number of epochs that grows, and by a callback that ends each call.
    CHECK(same_bits(expected, train(by_epoch, true, [](TrainerOptions& call, Index e) {
                        call.epochs = e + 1;
                        call.first_step = e * steps;
                        call.schedule_epochs = epochs;
                    })));
    CHECK(same_bits(expected, train(by_callback, true, [](TrainerOptions& call, Index e) {
                        call.first_step = e * steps;
                        call.on_epoch = [](const EpochRecord&) { return false; };
                    })));
    for (const Told* told : {&by_epoch, &by_callback}) {
        CHECK(told->rates == whole.rates);
        REQUIRE(told->records.size() == epochs);
        for (Index e = 0; e < epochs; ++e)
            CHECK(told->records[static_cast<std::size_t>(e)].epoch == e);
    }
}

TEST_CASE("Trainer: options and optimizers have defaults", "[trainer_epochs]") {
    Problem problem;
    test::Network a = problem.network, b = problem.network;
    CHECK(Trainer{}.fit(a, problem.data, squared_error, Adam{a}).size() == 10);
    (void)Trainer{{.epochs = 10}}.fit(b, problem.data, squared_error, Adam{b, {}});
    CHECK(same_bits(parameters(a), parameters(b)));
    CHECK(AdamW{a}.options().weight_decay == AdamWOptions{}.weight_decay);
    CHECK(Sgd{a}.options().learning_rate == SgdOptions{}.learning_rate);
    const Adam copied{Adam{a}};  // a copy, not an optimizer of an optimizer
    CHECK(copied.options().beta1 == 0.9);
}

TEST_CASE("Trainer: bad epochs, validation data and early stopping are refused, untrained",
          "[trainer_epochs]") {
    Problem problem;
    test::Network& network = problem.network;
    const VectorXd before = parameters(network);
    CHECK(refusal([] { (void)Trainer{{.epochs = 10, .schedule_epochs = 3}}; }) ==
          "Trainer: schedule_epochs must be 0 or at least epochs = 10, got 3");
    CHECK(refusal([] { (void)Trainer{{.schedule_epochs = -1}}; }) ==
          "Trainer: schedule_epochs must be 0 or at least epochs = 10, got -1");
    CHECK(refusal([] { (void)Trainer{{.early_stopping = EarlyStoppingOptions{.patience = 0}}}; }) ==
          "EarlyStopping: patience must be at least 1, got 0");
    const Trainer stopping{{.early_stopping = EarlyStoppingOptions{}}};
    CHECK(refusal([&] { (void)stopping.fit(network, problem.data, squared_error); }) ==
          "Trainer: early_stopping needs validation data, got none");
    const auto validated = [&](const Curve& validation) {
        return refusal(
            [&] { (void)Trainer{}.fit(network, problem.data, squared_error, validation); });
    };
    CHECK(validated(problem.data.head(0)) ==
          "Trainer: validation must have at least 1 sample, got 0");
    CHECK(validated({MatrixXd::Zero(3, 4), MatrixXd::Zero(1, 4)}) ==
          "MeanSquaredError: targets must be 2 x 4 like the output, got 1 x 4");
    CHECK(validated({MatrixXd::Zero(2, 4), MatrixXd::Zero(2, 4)}) ==
          "Linear: input must have 3 rows, got 2");
    CHECK(same_bits(parameters(network), before));
}

}  // namespace
