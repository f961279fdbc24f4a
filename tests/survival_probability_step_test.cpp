// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/survival_probability_step.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <stochastic_depth/expectation/expected_value.hpp>
#include <stochastic_depth/expectation/mask_values.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/laws.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"
#include "support/structures.hpp"

namespace {

using namespace stochastic_depth;
using test::refusal;

/// Of a batch, as mask_values takes it.
template <class Targets>
auto loss_against(const Targets& targets) {
    return [&targets](const ConstMatrixRef<double>& y) {
        Matrix<double> slopes(y.rows(), y.cols());
        return MeanSquaredError<double>{}.value_and_gradient(y, targets, slopes);
    };
}

TEST_CASE("survival_probability_step: linear layers in closed form",
          "[survival_probability_step]") {
    // y = x prod_l (1 + s_l w_l), and the loss (y - t)^2 / 2 or without the half: by
    // E[prod] = prod (1 + p_l w_l) and E[prod^2] = prod (1 + p_l (2 w_l + w_l^2)).
    using Layer = StochasticDepth<Residual<Linear<double>>>;
    const Eigen::Vector4d w(0.5, -0.3, 0.8, -0.6), p(0.9, 0.5, 0.3, 1.0);
    std::vector<Layer> layers;
    for (Index l = 0; l < 4; ++l)
        layers.push_back(Layer{Residual{Linear<double>{Eigen::MatrixXd::Constant(1, 1, w(l)),
                                                       Eigen::VectorXd::Zero(1)}},
                               SurvivalProbability{p(l)}});
    const Stack network{layers};
    const Matrix<double> x = Matrix<double>::Constant(1, 1, 1.7);
    const Matrix<double> target = Matrix<double>::Constant(1, 1, 2.0);
    Matrix<double> slope(1, 1);
    // The loss may have a factor: its value at (y, t) = (1, 0).
    const double factor = MeanSquaredError<double>{}.value_and_gradient(
        Matrix<double>::Ones(1, 1), Matrix<double>::Zero(1, 1), slope);
    const auto without = [&](Index l, double power) {
        double product = 1;
        for (Index k = 0; k < 4; ++k)
            if (k != l) product *= 1 + p(k) * (std::pow(1 + w(k), power) - 1);
        return product;
    };
    const auto losses = mask_values(network, x, loss_against(target));
    const ExpectedValue expected = expected_value(losses, p);
    CHECK(std::abs(expected.value - factor * (1.7 * 1.7 * without(-1, 2) -
                                              2 * 1.7 * 2 * without(-1, 1) + 4)) <= 1e-13);
    const auto next = survival_probability_step(p, expected.by_survival_probability,
                                                {.learning_rate = 0.05, .depth_cost = 0.2});
    for (Index l = 0; l < 4; ++l) {
        const double by_p = factor * (1.7 * 1.7 * (2 * w(l) + w(l) * w(l)) * without(l, 2) -
                                      2 * 1.7 * 2 * w(l) * without(l, 1));
        CHECK(std::abs(expected.by_survival_probability(l) - by_p) <= 1e-13);
        const double free = p(l) - 0.05 * (by_p + 0.2);
        CHECK(std::abs(next(l) - std::min(1.0, std::max(0.01, free))) <= 1e-13);
    }
}

TEST_CASE("survival_probability_step: the objective falls, and p stays in (0, 1]",
          "[survival_probability_step]") {
    test::Structures make{3};
    const auto network = Sequential{make.block(4, 0.8), make.block(4, 0.7), make.block(4, 0.6),
                                    make.block(4, 0.5), make.block(4, 0.9)};
    const Matrix<double> x = test::random_matrix<double>(make.random, 4, 20);
    const Matrix<double> targets = test::random_matrix<double>(make.random, 4, 20);
    const auto losses = mask_values(network, x, loss_against(targets));
    double last_depth = 5;
    for (const double cost : {0.0, 0.1, 1.0}) {
        Eigen::VectorXd p = network.survival_probabilities();
        double objective = std::numeric_limits<double>::infinity();
        for (int k = 0; k < 5000; ++k) {
            const ExpectedValue expected = expected_value(losses, p);
            const double here = expected.value + cost * p.sum();
            REQUIRE(here <= objective + 1e-12);
            objective = here;
            p = survival_probability_step(p, expected.by_survival_probability,
                                          {.learning_rate = 0.05, .depth_cost = cost});
            REQUIRE(p.minCoeff() >= 0.01);
            REQUIRE(p.maxCoeff() <= 1);
        }
        // The dearer a layer, the fewer.
        CHECK(p.sum() <= last_depth);
        last_depth = p.sum();
        // It ends where no step leads anywhere: at 0.01 or 1, by the slope's sign.
        const ExpectedValue expected = expected_value(losses, p);
        for (Index l = 0; l < 5; ++l) {
            const double slope = expected.by_survival_probability(l) + cost;
            CHECK((std::abs(slope) <= 1e-3 || p(l) == (slope > 0 ? 0.01 : 1.0)));
        }
    }
    CHECK(last_depth <= 0.06);
}

TEST_CASE("survival_probability_step: p is learned while a network is trained",
          "[survival_probability_step]") {
    // The target is what the first layer can do alone: the second is only in its way.
    test::Structures make{4};
    auto network = Sequential{make.block(2, 0.5), make.block(2, 0.5)};
    const Matrix<double> x = test::random_matrix<double>(make.random, 2, 40);
    const Matrix<double> targets = x + x.cwiseMax(0.0);
    Eigen::VectorXd p = network.survival_probabilities();
    TrainingStep step{network, MeanSquaredError<double>{}, {.seed = 1}};
    Sgd optimizer{network, {.learning_rate = 0.1}};
    for (std::uint64_t t = 0; t < 400; ++t) {
        step.differentiate(network, x, targets, t);
        optimizer.step(network, step.gradient());
        step.finish(network);
        const auto losses = mask_values(network, x, loss_against(targets));
        p = survival_probability_step(p, expected_value(losses, p).by_survival_probability,
                                      {.learning_rate = 0.05, .depth_cost = 0.02});
        step.set_survival_probabilities(p);
    }
    const auto losses = mask_values(network, x, loss_against(targets));
    CHECK(expected_value(losses, p).value < 0.01);
    CHECK(p.sum() < 2);
}

TEST_CASE("survival_probability_step: what is out of range is refused",
          "[survival_probability_step]") {
    const Eigen::VectorXd p = Eigen::VectorXd::Constant(2, 0.5), slopes = Eigen::VectorXd::Zero(2);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto step = [&](SurvivalProbabilityStepOptions options) {
        return refusal([&] { (void)survival_probability_step(p, slopes, options); });
    };
    CHECK(step({.learning_rate = 0}) ==
          "survival_probability_step: learning_rate must be finite and above 0, got 0");
    CHECK(step({.depth_cost = nan}) ==
          "survival_probability_step: depth_cost must be finite, got nan");
    CHECK(step({.least = 0}) == "survival_probability_step: least must lie in (0, 1], got 0");
    CHECK(refusal([&] { (void)survival_probability_step(p, Eigen::VectorXd::Zero(3)); }) ==
          "survival_probability_step: slopes must be 2, got 3");
    CHECK(refusal([&] { (void)survival_probability_step(p, Eigen::Vector2d(0, nan)); }) ==
          "survival_probability_step: slope 1 must be finite, got nan");
    CHECK(refusal([&] { (void)survival_probability_step(Eigen::Vector2d(0.5, 1.5), slopes); }) ==
          "survival_probability_step: survival probability p(1) must lie in (0, 1], got 1.5");
    CHECK(survival_probability_step(Eigen::VectorXd(), Eigen::VectorXd()).size() == 0);
}

}  // namespace
