// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/composition/any_layer.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/exact_gradient.hpp>
#include <stochastic_depth/expectation/exact_sensitivity.hpp>
#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/dropout.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/function.hpp>
#include <stochastic_depth/layers/normalisation/batch_norm.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/independent_law.hpp>
#include <stochastic_depth/survival/layer_count_law.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/training/adam.hpp>
#include <stochastic_depth/training/checkpoint.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/trainer.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "../examples/own_composite.hpp"
#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using test::parameters;
using test::random_matrix;
using test::same_bits;

using Any = AnyLayer<double>;
constexpr Index width = 4;

Linear<double> linear(Philox& random, Index outputs = width) {
    return Linear<double>{width, outputs, random};
}
auto branch(Philox& random) { return Sequential{linear(random), Tanh<double>{}}; }
auto block(Philox& random, double p) {
    return StochasticDepth{Residual{branch(random)}, SurvivalProbability{p}};
}

/// The same layers under their own types, and each behind an AnyLayer: a block, one around another,
/// one with a projection, a composite of the user's own with skippable layers on both sides, layers
/// that keep statistics and that draw random numbers.
template <class Join>
auto join_layers(std::uint32_t seed, const Join& join) {
    Philox random{seed};
    const auto first = block(random, 0.5);
    const StochasticDepth nest{Residual{Sequential{block(random, 0.7), linear(random)}},
                               SurvivalProbability{0.6}};
    const StochasticDepth projected{Residual{branch(random), linear(random)},
                                    SurvivalProbability{0.75}};
    const Gated own{block(random, 0.9), Sequential{block(random, 0.8), linear(random)}};
    const Sequential both{BatchNorm<double>{width}, Dropout<double>{0.25}};
    return join(first, nest, Tanh<double>{}, projected, own, both, linear(random, 2));
}
auto typed_network(std::uint32_t seed) {
    return join_layers(seed, [](const auto&... layers) { return Sequential{layers...}; });
}
Stack<Any> any_network(std::uint32_t seed) {
    return join_layers(seed,
                       [](const auto&... layers) { return Stack{std::vector<Any>{layers...}}; });
}

Matrix<double> inputs(Index batch) {
    Philox random{3};
    return random_matrix<double>(random, width, batch);
}

TEST_CASE("AnyLayer: is what it holds, under every mask and by every rule", "[any_layer]") {
    const auto typed = typed_network(1);
    const Stack<Any> any = any_network(1);
    REQUIRE(any.depth() == 6);
    CHECK(any.survival_probabilities() == typed.survival_probabilities());
    for (const Index batch : {Index{0}, Index{1}, Index{40}}) {
        CAPTURE(batch);
        const Matrix<double> x = inputs(batch);
        CHECK(same_bits(any(x), typed(x)));
        const MaskSampler sampler{any.survival_probabilities(), 2};
        for (std::uint64_t t = 0; t < 20; ++t) {
            CHECK(same_bits(any(x, sampler.sample(t)), typed(x, sampler.sample(t))));
            const SurvivalMasks masks = sampler.sample(t, batch);
            CHECK(same_bits(any(x, masks), typed(x, masks)));
        }
        CHECK(same_bits(WeightScaling{}(any, x).mean, WeightScaling{}(typed, x).mean));
        const auto sampled = MonteCarloExpectation{}(any, x);
        const auto expected = MonteCarloExpectation{}(typed, x);
        CHECK(same_bits(sampled.mean, expected.mean));
        CHECK(sampled.layer_evaluations == expected.layer_evaluations);
        const auto exact = ExactExpectation{}(any, x);
        const auto exact_expected = ExactExpectation{}(typed, x);
        CHECK(exact.mean.isApprox(exact_expected.mean, 1e-13));
        CHECK(exact.variance.isApprox(exact_expected.variance, 1e-12));
        CHECK(exact.layer_evaluations == exact_expected.layer_evaluations);
        const auto sensitivity = ExactSensitivity{}(any, x);
        const auto sensitivity_expected = ExactSensitivity{}(typed, x);
        CHECK(sensitivity.by_layer.values().isApprox(sensitivity_expected.by_layer.values(), 1e-12));
    }
}

TEST_CASE("AnyLayer: under a law of masks, in the tree, scaled and where a training validates",
          "[any_layer]") {
    auto typed = typed_network(2);
    Stack<Any> any = any_network(2);
    const Matrix<double> x = inputs(7);
    const LayerCountLaw law = LayerCountLaw::exactly(6, 3);
    CHECK(ExactExpectation{}(any, x, law).mean.isApprox(ExactExpectation{}(typed, x, law).mean,
                                                        1e-13));
    CHECK(same_bits(WeightScaling{}(any, x, law).mean, WeightScaling{}(typed, x, law).mean));
    CHECK_FALSE(WeightScaling{}(any, x, law).mean.isApprox(any(x), 1e-3));
    const IndependentLaw other{Eigen::VectorXd::LinSpaced(6, 0.2, 0.9)};
    CHECK(same_bits(WeightScaling{}(any, x, other).mean, WeightScaling{}(typed, x, other).mean));

    const Dataset data{x, Matrix<double>(Matrix<double>::Ones(2, 7))};
    const auto validation_loss = [&](auto& network) {
        return Trainer{{.batch_size = 7, .epochs = 1}}
            .fit(network, data, MeanSquaredError<double>{}, data)
            .front()
            .validation_loss;
    };
    CHECK(validation_loss(any) == validation_loss(typed));
}

TEST_CASE("AnyLayer: as the last layer of a network, and alone", "[any_layer]") {
    Philox random{4};
    const auto typed = block(random, 0.5);
    const Any any = typed;
    const Matrix<double> x = inputs(5);
    CHECK(ExactExpectation{}(any, x).mean.isApprox(ExactExpectation{}(typed, x).mean, 1e-14));
    CHECK(same_bits(any(x, SurvivalMask{0}), x));
    const Stack<Any> row{{typed, typed}};
    const Stack typed_row{std::vector{typed, typed}};
    CHECK(ExactExpectation{}(row, x).mean.isApprox(ExactExpectation{}(typed_row, x).mean, 1e-14));
    const Any outer = row;  // a stack of layers of unknown types, as one of them
    CHECK(outer.depth() == 2);
    CHECK(ExactExpectation{}(outer, x).mean.isApprox(ExactExpectation{}(typed_row, x).mean, 1e-14));
    const Stack<Any> none{{}};
    CHECK(same_bits(ExactExpectation{}(none, x).mean, x));
}

TEST_CASE("AnyLayer: trained, it takes the same steps", "[any_layer]") {
    auto typed = typed_network(5);
    Stack<Any> any = any_network(5);
    const Matrix<double> x = inputs(30), targets = Matrix<double>::Ones(2, 30);
    const TrainingStepOptions options{.mask_scope = MaskScope::sample};
    TrainingStep typed_step{typed, MeanSquaredError<double>{}, options};
    TrainingStep any_step{any, MeanSquaredError<double>{}, options};
    Adam typed_adam{typed, {.learning_rate = 0.01}};
    Adam any_adam{any, {.learning_rate = 0.01}};
    for (std::uint64_t t = 0; t < 5; ++t) {
        const double expected = typed_step.differentiate(typed, x, targets, t).loss;
        CHECK(any_step.differentiate(any, x, targets, t).loss == expected);
        typed_adam.step(typed, typed_step.gradient());
        any_adam.step(any, any_step.gradient());
        typed_step.finish(typed);
        any_step.finish(any);
        CHECK(same_bits(parameters(any), parameters(typed)));
    }
    CHECK(same_bits(any(x), typed(x)));  // the batch statistics too
}

TEST_CASE("AnyLayer: gradients of the expectation are those of what it holds", "[any_layer]") {
    const auto typed = typed_network(6);
    const Stack<Any> any = any_network(6);
    const Matrix<double> x = inputs(3), targets = Matrix<double>::Ones(2, 3);
    const auto differentiate = [&](const auto& network) {
        auto gradient = network.zero_gradient();
        std::vector<double> all{ExactGradient{}.of_expected_loss(
            network, x, targets, MeanSquaredError<double>{}, gradient)};
        detail::entries_of(network, gradient)([&](const std::string&, const auto& entries) {
            detail::for_each_entry(entries, [&](double entry) { all.push_back(entry); });
        });
        return Eigen::VectorXd(
            Eigen::Map<Eigen::VectorXd>(all.data(), static_cast<Index>(all.size())));
    };
    const Eigen::VectorXd found = differentiate(any), expected = differentiate(typed);
    REQUIRE(found.size() == expected.size());
    CHECK(found.isApprox(expected, 1e-12));
}

TEST_CASE("AnyLayer: a copy is a copy, and a gradient too", "[any_layer]") {
    Stack<Any> any = any_network(7);
    const Stack<Any> before = any;
    auto gradient = before.zero_gradient();
    test::for_each_parameter(any, [](double& value) { value += 1; });
    CHECK_FALSE(same_bits(parameters(any), parameters(before)));
    auto copy = gradient;
    detail::visit_parameters(
        before, detail::WithPaths{[](const std::string&, const auto&, auto& g) { g.setOnes(); }},
        copy);
    const auto sum = [&](auto& of) {
        double total = 0;
        detail::entries_of(before, of)(
            [&](const std::string&, const auto& entries) { total += entries.sum(); });
        return total;
    };
    CHECK(sum(gradient) == 0);
    CHECK(sum(copy) == static_cast<double>(parameters(before).size()));
}

TEST_CASE("AnyLayer: a checkpoint of either loads into the other", "[any_layer]") {
    const test::TemporaryDirectory directory;
    const std::string path = directory.file("network");
    Philox random{8};
    const Sequential typed{block(random, 0.5), linear(random)};
    const auto blank = [&](std::uint32_t seed) {
        Philox other{seed};
        return Any{Sequential{Any{block(other, 0.5)}, Any{linear(other)}}};
    };
    save_parameters(path, typed);
    Any any = blank(9);
    REQUIRE_FALSE(same_bits(parameters(any), parameters(typed)));
    load_parameters(path, any);
    CHECK(same_bits(parameters(any), parameters(typed)));
    save_parameters(path, blank(10));
    Sequential loaded = typed;
    load_parameters(path, loaded);
    CHECK(same_bits(parameters(loaded), parameters(blank(10))));
}

TEST_CASE("AnyLayer: what it cannot do is refused, and said why", "[any_layer]") {
    Philox random{11};
    const Matrix<double> x = inputs(2);
    CHECK(test::refusal([&] {
              (void)StochasticDepth{Any{Residual{branch(random)}}, SurvivalProbability{0.5}};
          }) == "StochasticDepth: layer must not hide a Residual in an AnyLayer; "
                "AnyLayer{StochasticDepth{Residual{...}, p}} knows its shortcut");
    // Without a shortcut of its own it may be skipped.
    const StochasticDepth skipped{Any{Tanh<double>{}}, SurvivalProbability{0.25}};
    const StochasticDepth typed{Tanh<double>{}, SurvivalProbability{0.25}};
    CHECK(ExactExpectation{}(skipped, x).mean.isApprox(ExactExpectation{}(typed, x).mean, 1e-14));
    CHECK(test::refusal([&] {
              (void)TrainingStep{Stack<Any>{{skipped}}, MeanSquaredError<double>{},
                                 {.scaling = Scaling::inverted}};
          }) == "TrainingStep: scaling must be Scaling::none for a network that skips layers other "
                "than Residual, got Scaling::inverted");

    const Any lambda = function<double>([](const auto& z) { return 2 * z; });
    CHECK(same_bits(lambda(x), 2 * x));
    CHECK(test::refusal([&] { (void)lambda.zero_gradient(); }) ==
          "AnyLayer: layer must be differentiable, got Function");

    const Any first = linear(random), second = Tanh<double>{};
    auto gradient = second.zero_gradient();
    Any::Cache cache;
    Matrix<double> y(width, 2), dx(width, 2);
    first.forward(x, y, cache);
    CHECK(test::refusal([&] { first.backward(x, y, cache, gradient, dx); }) ==
          "AnyLayer: gradient must be of this layer, Linear");
    gradient = first.zero_gradient();
    first.backward(x, y, cache, gradient, dx);
    auto other = second.zero_gradient();
    CHECK(test::refusal([&] { second.backward(x, y, cache, other, dx); }) ==
          "AnyLayer: cache must be of a pass through this layer");
    CHECK(test::refusal([&] { (void)first(Matrix<double>::Ones(3, 1)); }) ==
          "Linear: input must have 4 rows, got 3");
}

}  // namespace
