// SPDX-License-Identifier: MIT
#include <stochastic_depth/all.hpp>

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using Eigen::VectorXi;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

enum class Error { invalid_argument, length, runtime, other, none };

/// One wrong call: what it must throw, what the message must hold, and what it must not have
/// changed.
struct Row {
    std::function<void()> call;
    std::array<const char*, 6> fragments;
    std::function<bool()> unchanged = [] { return true; };
    Error error = Error::invalid_argument;
};

Error thrown_by(const std::function<void()>& call, std::string& message) {
    try {
        call();
    } catch (const std::invalid_argument& error) {
        message = error.what();
        return Error::invalid_argument;
    } catch (const std::length_error& error) {
        message = error.what();
        return Error::length;
    } catch (const std::runtime_error& error) {
        message = error.what();
        return Error::runtime;
    } catch (const std::exception& error) {
        message = error.what();
        return Error::other;
    }
    return Error::none;
}

TEST_CASE(
    "bad input: every public constructor and entry point refuses it by class, argument and value, "
    "and changes nothing",
    "[bad_input]") {
    Philox random{1};
    const auto linear = [&](Index inputs, Index outputs) {
        return Linear<double>{inputs, outputs, random};
    };

    // Sound objects, for calls with one bad argument. Outputs hold 7 until somebody writes.
    const Linear<double> layer = linear(3, 4);
    const Sequential sequential{linear(3, 4), ReLU<double>{}, linear(4, 2)};
    const Stack<Linear<double>> stack{{linear(3, 3), linear(3, 3)}};
    const Residual residual{linear(3, 3)};
    using Block = StochasticDepth<Residual<Linear<double>>>;
    const Block block{residual, SurvivalProbability{0.5}};
    const Sequential network{block, block, linear(3, 2)};
    const Stack<Block> deep{std::vector<Block>(30, block)};
    const auto doubling = function<double>([](const auto& x) { return 2.0 * x; });
    const auto no_matter = [](const auto& x) { return x; };

    const MatrixXd x = MatrixXd::Random(3, 5), wrong_x = MatrixXd::Random(2, 5);
    MatrixXd y2 = MatrixXd::Constant(2, 5, 7.0), y3 = MatrixXd::Constant(3, 5, 7.0);
    MatrixXd y4 = MatrixXd::Constant(4, 5, 7.0), narrow3 = MatrixXd::Constant(3, 4, 7.0);
    MatrixXd narrow4 = MatrixXd::Constant(4, 4, 7.0);
    const auto outputs_are_7 = [&] {
        return (y2.array() == 7).all() && (y3.array() == 7).all() && (y4.array() == 7).all() &&
               (narrow3.array() == 7).all() && (narrow4.array() == 7).all();
    };
    auto layer_gradient = layer.zero_gradient();
    auto sequential_gradient = sequential.zero_gradient();
    auto stack_gradient = stack.zero_gradient();
    auto residual_gradient = residual.zero_gradient();
    auto block_gradient = block.zero_gradient();
    detail::NoGradient no_gradient;
    decltype(sequential)::Cache sequential_cache;
    Stack<Linear<double>>::Cache stack_cache;
    decltype(residual)::Cache residual_cache;
    Block::Cache block_cache;
    {
        MatrixXd y(2, 5), same(3, 5);
        sequential.forward(x, y, sequential_cache);
        stack.forward(x, same, stack_cache);
        residual.forward(x, same, residual_cache);
        block.forward(x, same, block_cache);
    }
    const auto gradients_are_0 = [&] {
        return layer_gradient.weights.isZero(0) && layer_gradient.bias.isZero(0) && outputs_are_7();
    };

    SurvivalMask mask{1, 0, 1};
    const auto mask_is_101 = [&] { return mask == SurvivalMask{1, 0, 1}; };
    const auto masks_before = SurvivalMasks::from_masks({{1, 0}, {0, 1}, {1, 1}});
    SurvivalMasks masks = masks_before;
    const auto masks_unchanged = [&] { return masks == masks_before; };
    const MaskSampler sampler{uniform_survival(2, 0.5), 1};

    const Dataset<double> data{x, VectorXi{{0, 1, 2, 1, 0}}, 3};
    const Dataset<double, MatrixXd> curve{x, MatrixXd::Random(2, 5)};
    const Dataset<double> nothing{MatrixXd(3, 0), VectorXi(0), 3};
    VectorXi labels = VectorXi::Constant(5, 7);
    const auto labels_are_7 = [&] { return (labels.array() == 7).all() && outputs_are_7(); };
    const VectorXi classes{{0, 1, 1, 0, 1}};
    const MatrixXd halves = MatrixXd::Constant(2, 5, 0.5);
    const SoftmaxCrossEntropy<double> cross_entropy;
    const MeanSquaredError<double> squared_error;

    Sequential trained{Block{residual, SurvivalProbability{0.5}}, linear(3, 2)};
    const VectorXd parameters_before = test::parameters(trained);
    const auto trained_unchanged = [&] {
        return test::same_bits(test::parameters(trained), parameters_before);
    };
    Sgd optimizer{trained, {.learning_rate = 0.25}};
    const auto rate_unchanged = [&] { return optimizer.options().learning_rate == 0.25; };
    const auto sgd = [&](SgdOptions options) {
        return [=, &trained] { (void)Sgd{trained, options}; };
    };
    const auto fit = [&](TrainerOptions options, const auto& samples, const auto& loss) {
        return [=, &trained] { (void)Trainer{options}.fit(trained, samples, loss); };
    };

    const Philox random_before = random;
    const auto random_unchanged = [&] { return random == random_before; };

    const std::vector<std::uint8_t> plain_idx{0, 0, 8, 1, 0, 0, 0, 2, 5, 6};
    const auto idx = [&](std::size_t at, std::uint8_t byte, std::size_t length) {
        auto bytes = plain_idx;
        bytes[at] = byte;
        bytes.resize(length);
        return [bytes] { (void)parse_idx(bytes, "some.idx"); };
    };

    const std::vector<Row> rows{
        // Probabilities and schedules.
        {[] { (void)SurvivalProbability{0.0}; }, {"SurvivalProbability: value", "(0, 1]", "got 0"}},
        {[] { (void)SurvivalProbability{-0.1}; }, {"SurvivalProbability: value", "got -0.1"}},
        {[] { (void)SurvivalProbability{1.2}; }, {"SurvivalProbability: value", "got 1.2"}},
        {[] { (void)SurvivalProbability{1.0000001}; },
         {"SurvivalProbability: value", "got 1.0000001"}},
        {[] { (void)SurvivalProbability{nan}; }, {"SurvivalProbability: value", "got nan"}},
        {[] { (void)SurvivalProbability{inf}; }, {"SurvivalProbability: value", "got inf"}},
        {[] { (void)DropProbability{1.0}; }, {"DropProbability: value", "[0, 1)", "got 1"}},
        {[] { (void)DropProbability{-0.25}; }, {"DropProbability: value", "got -0.25"}},
        {[] { (void)DropProbability{nan}; }, {"DropProbability: value", "got nan"}},
        {[] { (void)uniform_survival(-1, 0.5); }, {"uniform_survival: depth", "got -1"}},
        {[] { (void)uniform_survival(3, 0.0); },
         {"uniform_survival:", "survival probability", "got 0"}},
        {[] { (void)uniform_survival(0, nan); },
         {"uniform_survival:", "survival probability", "got nan"}},
        {[] { (void)linear_decay(-2, 0.5); }, {"linear_decay: depth", "got -2"}},
        {[] { (void)linear_decay(3, 1.5); },
         {"linear_decay: final survival probability", "got 1.5"}},
        {[] { (void)linear_decay(3, nan); },
         {"linear_decay: final survival probability", "got nan"}},

        // Masks.
        {[] {
             (void)SurvivalMask{0, 2};
         },
         {"SurvivalMask: entry 1", "got 2"}},
        {[] { (void)SurvivalMask{-1}; }, {"SurvivalMask: entry 0", "got -1"}},
        {[] { (void)SurvivalMask::all(-1); }, {"SurvivalMask: size", "got -1"}},
        {[] { (void)SurvivalMask::none(-3); }, {"SurvivalMask: size", "got -3"}},
        {[&] { mask.resize(-2); }, {"SurvivalMask: size", "got -2"}, mask_is_101},
        {[&] { mask.keep(3); }, {"SurvivalMask: layer", "[0, 3)", "got 3"}, mask_is_101},
        {[&] { mask.skip(-1); }, {"SurvivalMask: layer", "got -1"}, mask_is_101},
        {[] { (void)SurvivalMasks(-1, 2); }, {"SurvivalMasks: depth", "got -1"}},
        {[] { (void)SurvivalMasks(2, -1); }, {"SurvivalMasks: batch size", "got -1"}},
        {[] { (void)SurvivalMasks::all(-4, 2); }, {"SurvivalMasks: depth", "got -4"}},
        {[] { (void)SurvivalMasks::none(2, -4); }, {"SurvivalMasks: batch size", "got -4"}},
        {[] { (void)SurvivalMasks::from_masks({}); }, {"SurvivalMasks: masks", "got 0"}},
        {[] {
             (void)SurvivalMasks::from_masks({{1, 0}, {1}});
         },
         {"SurvivalMasks: mask of sample 1", "2 layers", "got 1"}},
        {[&] { (void)masks.mask(3); }, {"SurvivalMasks: sample", "[0, 3)", "got 3"}},
        {[&] { (void)masks.count(2); }, {"SurvivalMasks: layer", "[0, 2)", "got 2"}},
        {[&] { masks.keep(2, 0); }, {"SurvivalMasks: layer", "got 2"}, masks_unchanged},
        {[&] { masks.keep(0, -1); }, {"SurvivalMasks: sample", "got -1"}, masks_unchanged},
        {[&] { masks.skip(0, 3); }, {"SurvivalMasks: sample", "got 3"}, masks_unchanged},
        {[&] { masks.skip(-1, 0); }, {"SurvivalMasks: layer", "got -1"}, masks_unchanged},
        {[&] {
             masks.set_mask(3, {1, 1});
         },
         {"SurvivalMasks: sample", "got 3"},
         masks_unchanged},
        {[&] {
             masks.set_mask(1, {1, 1, 1});
         },
         {"SurvivalMasks: mask of sample 1", "2 layers", "got 3"},
         masks_unchanged},
        {[&] { masks.resize(-1, 3); }, {"SurvivalMasks: depth", "got -1"}, masks_unchanged},
        {[&] { masks.resize(2, -3); }, {"SurvivalMasks: batch size", "got -3"}, masks_unchanged},
        {[&] { (void)probability(mask, VectorXd::Constant(2, 0.5)); },
         {"probability: mask", "2 survival probabilities", "got 3"}},
        {[&] {
             (void)probability(mask, VectorXd{{0.5, 0.0, 0.5}});
         },
         {"probability:", "p(1)", "got 0"}},
        {[&] {
             (void)probability(mask, VectorXd{{0.5, 0.5, nan}});
         },
         {"probability:", "p(2)", "got nan"}},

        // Random numbers.
        {[] {
             (void)MaskSampler(VectorXd{{0.5, 1.5}}, 0);
         },
         {"MaskSampler: survival probability p(1)", "got 1.5"}},
        {[] { (void)MaskSampler(VectorXd::Constant(1, nan), 0); },
         {"MaskSampler:", "p(0)", "got nan"}},
        {[] { (void)MaskSampler(VectorXd::Ones(Index{1} << 22), 0); },
         {"MaskSampler: depth", "4194304", "got 4194304"}},
        {[&] { (void)sampler.sample(0, Index{-1}); }, {"MaskSampler: batch size", "got -1"}},
        {[&] { (void)sampler.sample(0, (Index{1} << 38) + 1); },
         {"MaskSampler: samples", "274877906944", "got 274877906945"}},
        {[&] { sampler.sample(0, mask); }, {"MaskSampler: mask", "2 layers", "got 3"}, mask_is_101},
        {[&] {
             SurvivalMasks other{3, 4};
             sampler.sample(0, other);
         },
         {"MaskSampler: masks", "2 layers", "got 3"}},
        {[&] { sampler.sample(0, -64, masks); },
         {"MaskSampler: first sample", "got -64"},
         masks_unchanged},
        {[&] { sampler.sample(0, (Index{1} << 38) - 2, masks); },
         {"MaskSampler: samples", "got 3 samples from 274877906942"},
         masks_unchanged},
        {[&] { (void)uniform<double>(random, 1.0, 1.0); },
         {"uniform: range", "[1, 1)"},
         random_unchanged},
        {[&] { (void)uniform<double>(random, 2.0, 1.0); },
         {"uniform: range", "[2, 1)"},
         random_unchanged},
        {[&] { (void)uniform<float>(random, 0.0f, std::numeric_limits<float>::infinity()); },
         {"uniform: range", "inf"},
         random_unchanged},
        {[&] { (void)uniform<double>(random, nan, 1.0); },
         {"uniform: range", "nan"},
         random_unchanged},

        // Linear.
        {[] { (void)Linear<double>(MatrixXd(3, 2), VectorXd(2)); },
         {"Linear: bias", "3 entries", "got 2"}},
        {[] { (void)Linear<double>(MatrixXd(0, 2), VectorXd(0)); }, {"Linear: outputs", "got 0"}},
        {[] { (void)Linear<double>(MatrixXd(2, 0), VectorXd(2)); }, {"Linear: inputs", "got 0"}},
        {[] { (void)Linear<double, 3, 2>(MatrixXd(2, 4), VectorXd(2)); },
         {"Linear: inputs", "3", "got 4"}},
        {[] { (void)Linear<double, 3, 2>(MatrixXd(5, 3), VectorXd(5)); },
         {"Linear: outputs", "2", "got 5"}},
        {[] { (void)Linear<double, 3, 2>(MatrixXd(2, 3), VectorXd(3)); },
         {"Linear: bias", "2 entries", "got 3"}},
        {[&] { (void)Linear<double>(0, 3, random); },
         {"Linear: inputs", "got 0"},
         random_unchanged},
        {[&] { (void)Linear<double>(3, -1, random); },
         {"Linear: outputs", "got -1"},
         random_unchanged},
        {[&] { (void)Linear<double>(3, 3, random, -1.0); },
         {"Linear: gain", "got -1"},
         random_unchanged},
        {[&] { (void)Linear<double>(3, 3, random, nan); },
         {"Linear: gain", "got nan"},
         random_unchanged},
        {[&] { (void)Linear<double>(3, 3, random, inf); },
         {"Linear: gain", "got inf"},
         random_unchanged},
        {[&] { (void)Linear<double, 3, 2>(4, 2, random); },
         {"Linear: inputs", "3", "got 4"},
         random_unchanged},
        {[&] { (void)Linear<double, 3, 2>(random, nan); },
         {"Linear: gain", "got nan"},
         random_unchanged},
        {[&] { (void)layer.output_size(2); }, {"Linear: input", "3 rows", "got 2"}},
        {[&] { layer.forward(wrong_x, y4); }, {"Linear: input", "3 rows", "got 2"}, outputs_are_7},
        {[&] { layer.forward(x, y3); }, {"Linear: output", "4 rows", "got 3"}, outputs_are_7},
        {[&] { layer.forward(x, narrow4); },
         {"Linear: output", "5 columns", "got 4"},
         outputs_are_7},
        {[&] { layer.backward(wrong_x, y4, {}, layer_gradient, y3); },
         {"Linear: input", "3 rows", "got 2"},
         gradients_are_0},
        {[&] { layer.backward(x, x, {}, layer_gradient, y3); },
         {"Linear:", "4 rows", "got 3"},
         gradients_are_0},
        {[&] { layer.backward(x, y4, {}, layer_gradient, y2); },
         {"Linear: dx", "[3 x 5]", "got [2 x 5]"},
         gradients_are_0},
        {[&] { layer.backward(x, y4, {}, layer_gradient, narrow3); },
         {"Linear: dx", "[3 x 5]", "got [3 x 4]"},
         gradients_are_0},

        // Layers without weights.
        {[&] { ReLU<double>{}.forward(x, y2); },
         {"Elementwise: output", "3 rows", "got 2"},
         outputs_are_7},
        {[&] { Tanh<double>{}.forward(x, narrow3); },
         {"Elementwise: output", "5 columns", "got 4"},
         outputs_are_7},
        {[&] { GELU<double>{}.forward(x, y4); },
         {"Elementwise: output", "3 rows", "got 4"},
         outputs_are_7},
        {[&] { ReLU<double>{}.backward(x, x, {}, no_gradient, y2); },
         {"Elementwise: dx", "[3 x 5]", "got [2 x 5]"},
         outputs_are_7},
        {[&] { Tanh<double>{}.backward(x, wrong_x, {}, no_gradient, y3); },
         {"Elementwise:", "3 rows", "got 2"},
         outputs_are_7},
        {[&] { Softmax<double>{}.forward(x, y2); },
         {"Softmax: output", "3 rows", "got 2"},
         outputs_are_7},
        {[&] { Softmax<double>{}.backward(x, x, {}, no_gradient, narrow3); },
         {"Softmax: dx", "[3 x 5]", "got [3 x 4]"},
         outputs_are_7},
        {[&] { Identity<double>{}.forward(x, y2); },
         {"Identity: output", "3 rows", "got 2"},
         outputs_are_7},
        {[&] { Identity<double>{}.backward(x, x, {}, no_gradient, y2); },
         {"Identity: dx", "[3 x 5]", "got [2 x 5]"},
         outputs_are_7},
        {[&] { (void)function<double>(no_matter, 0); }, {"Function: outputs", "got 0"}},
        {[&] { (void)function<double>(no_matter, -5); }, {"Function: outputs", "got -5"}},
        {[&] { doubling.forward(x, y2); }, {"Function: output", "3 rows", "got 2"}, outputs_are_7},
        {[&] { function<double>(no_matter, 2).forward(x, y2); },
         {"Function: result", "[2 x 5]", "got [3 x 5]"},
         outputs_are_7},

        // Composites.
        {[&] { sequential.forward(wrong_x, y2); },
         {"Linear: input", "3 rows", "got 2"},
         outputs_are_7},
        {[&] { sequential.forward(x, y3); },
         {"Sequential: output", "2 rows", "got 3"},
         outputs_are_7},
        {[&] { sequential.forward(x, y3, sequential_cache); },
         {"Sequential: output", "2 rows", "got 3"},
         outputs_are_7},
        {[&] { sequential.backward(x, x, sequential_cache, sequential_gradient, y3); },
         {"Sequential:", "2 rows", "got 3"},
         outputs_are_7},
        {[&] { sequential.backward(x, y2, sequential_cache, sequential_gradient, narrow3); },
         {"Sequential: dx", "[3 x 5]", "got [3 x 4]"},
         outputs_are_7},
        {[&] { (void)Sequential(layer, layer).output_size(3); },
         {"Linear: input", "3 rows", "got 4"}},
        {[&] { stack.forward(wrong_x, y3); }, {"Linear: input", "3 rows", "got 2"}, outputs_are_7},
        {[&] { stack.forward(x, narrow3); },
         {"Stack: output", "5 columns", "got 4"},
         outputs_are_7},
        {[&] { stack.forward(x, y2, stack_cache); },
         {"Stack: output", "3 rows", "got 2"},
         outputs_are_7},
        {[&] { stack.backward(x, y2, stack_cache, stack_gradient, y3); },
         {"Stack:", "3 rows", "got 2"},
         outputs_are_7},
        {[&] { (void)Residual(layer).output_size(3); }, {"Residual: branch", "3 outputs", "got 4"}},
        {[&] { residual.forward(wrong_x, y3); },
         {"Linear: input", "3 rows", "got 2"},
         outputs_are_7},
        {[&] { residual.forward(x, y2); }, {"Residual: output", "3 rows", "got 2"}, outputs_are_7},
        {[&] { residual.forward(x, y2, residual_cache); },
         {"Residual: output", "3 rows", "got 2"},
         outputs_are_7},
        {[&] { residual.backward(x, x, residual_cache, residual_gradient, y4); },
         {"Residual: dx", "[3 x 5]", "got [4 x 5]"},
         outputs_are_7},
        {[&] { (void)StochasticDepth(layer, SurvivalProbability{0.5}).output_size(3); },
         {"StochasticDepth: layer", "3 outputs", "got 4"}},
        {[&] { block.forward(x, y2); },
         {"StochasticDepth: output", "3 rows", "got 2"},
         outputs_are_7},
        {[&] { block.forward(x, narrow3, block_cache); },
         {"StochasticDepth: output", "5 columns", "got 4"},
         outputs_are_7},
        {[&] { block.backward(x, x, block_cache, block_gradient, y2); },
         {"StochasticDepth: dx", "[3 x 5]", "got [2 x 5]"},
         outputs_are_7},

        // Masked passes.
        {[&] { (void)network(x, SurvivalMask{1}); }, {"masked_forward: mask", "2 layers", "got 1"}},
        {[&] { (void)network(x, mask); }, {"masked_forward: mask", "2 layers", "got 3"}},
        {[&] {
             (void)network(wrong_x, SurvivalMask{1, 1});
         },
         {"Linear: input", "3 rows", "got 2"}},
        {[&] { (void)network(x, SurvivalMasks::all(2, 4)); },
         {"masked_forward: masks", "5 samples", "got 4"}},
        {[&] { (void)network(x, SurvivalMasks::all(3, 5)); },
         {"masked_forward: masks", "2 layers", "got 3"}},
        {[&] { (void)block(x, SurvivalMask{}); }, {"masked_forward: mask", "1 layers", "got 0"}},
        {[&] { (void)deep(x, SurvivalMask::all(29)); },
         {"masked_forward: mask", "30 layers", "got 29"}},
        {[&] { (void)residual(x, SurvivalMask::all(1)); },
         {"masked_forward: mask", "0 layers", "got 1"}},
        {[&] {
             masked_forward(network, x, SurvivalMask{1, 1}, y3);
         },
         {"masked_forward: output", "2 rows", "got 3"},
         outputs_are_7},
        {[&] { masked_forward(network, x, SurvivalMask{1}, y2); },
         {"masked_forward: mask", "2 layers", "got 1"},
         outputs_are_7},
        {[&] { masked_forward(network, x, SurvivalMasks::all(2, 6), y2); },
         {"masked_forward: masks", "5 samples", "got 6"},
         outputs_are_7},

        // Expectations.
        {[] { (void)ExactExpectation{{.threads = 0}}; }, {"ExactExpectation: threads", "got 0"}},
        {[&] { (void)ExactExpectation{}(network, wrong_x); }, {"Linear: input", "3 rows", "got 2"}},
        {[&] { (void)ExactExpectation{}(deep, x); },
         {"ExactExpectation:", "depth 30", "1073741823", "max_layer_evaluations", "268435456",
          "MonteCarloExpectation"},
         outputs_are_7,
         Error::length},
        {[&] { (void)ExactExpectation{{.max_layer_evaluations = 2}}(network, x); },
         {"ExactExpectation:", "depth 2", "3", "max_layer_evaluations is 2"},
         outputs_are_7,
         Error::length},
        {[] { (void)MonteCarloExpectation{{.samples = 0}}; },
         {"MonteCarloExpectation: samples", "got 0"}},
        {[] { (void)MonteCarloExpectation{{.samples = -3}}; },
         {"MonteCarloExpectation: samples", "got -3"}},
        {[] { (void)MonteCarloExpectation{{.threads = 0}}; },
         {"MonteCarloExpectation: threads", "got 0"}},
        {[&] { (void)MonteCarloExpectation{}(network, wrong_x); },
         {"Linear: input", "3 rows", "got 2"}},
        {[&] { (void)WeightScaling{}(network, wrong_x); }, {"Linear: input", "3 rows", "got 2"}},
        {[&] { (void)weight_scaling_gap(network, wrong_x); }, {"Linear: input", "3 rows", "got 2"}},
        {[&] { (void)weight_scaling_gap(deep, x); },
         {"ExactExpectation:", "depth 30"},
         outputs_are_7,
         Error::length},
        {[&] { (void)enumerate_masks(network, wrong_x); }, {"Linear: input", "3 rows", "got 2"}},
        {[&] { (void)enumerate_masks(deep, x); },
         {"enumerate_masks: depth", "24", "got 30", "ExactExpectation"},
         outputs_are_7,
         Error::length},

        // Training.
        {sgd({.learning_rate = 0.0}), {"Sgd: learning_rate", "got 0"}},
        {sgd({.learning_rate = -1.0}), {"Sgd: learning_rate", "got -1"}},
        {sgd({.learning_rate = nan}), {"Sgd: learning_rate", "got nan"}},
        {sgd({.learning_rate = inf}), {"Sgd: learning_rate", "got inf"}},
        {sgd({.momentum = 1.0}), {"Sgd: momentum", "[0, 1)", "got 1"}},
        {sgd({.momentum = -0.5}), {"Sgd: momentum", "got -0.5"}},
        {sgd({.momentum = nan}), {"Sgd: momentum", "got nan"}},
        {sgd({.nesterov = true}), {"Sgd: nesterov", "momentum", "got 0"}},
        {sgd({.weight_decay = -0.1}), {"Sgd: weight_decay", "got -0.1"}},
        {sgd({.weight_decay = inf}), {"Sgd: weight_decay", "got inf"}},
        {sgd({.weight_decay = nan}), {"Sgd: weight_decay", "got nan"}},
        {[&] { optimizer.set_learning_rate(-2); },
         {"Sgd: learning_rate", "got -2"},
         rate_unchanged},
        {[&] { optimizer.set_learning_rate(nan); },
         {"Sgd: learning_rate", "got nan"},
         rate_unchanged},
        {[] { (void)Trainer{{.batch_size = 0}}; }, {"Trainer: batch_size", "got 0"}},
        {[] { (void)Trainer{{.batch_size = -8}}; }, {"Trainer: batch_size", "got -8"}},
        {[] { (void)Trainer{{.epochs = -1}}; }, {"Trainer: epochs", "got -1"}},
        {fit({}, nothing, cross_entropy),
         {"Trainer: data", "at least 1 sample", "got 0"},
         trained_unchanged},
        {fit({}, data, cross_entropy),
         {"Trainer: network", "3 classes", "got 2"},
         trained_unchanged},
        {fit({}, Dataset<double, MatrixXd>(x, x), squared_error),
         {"Trainer: network", "3 outputs", "got 2"},
         trained_unchanged},
        {fit({}, Dataset<double, MatrixXd>(wrong_x, halves), squared_error),
         {"Linear: input", "3 rows", "got 2"},
         trained_unchanged},
        {fit({.optimizer = {.learning_rate = -1}}, curve, squared_error),
         {"Sgd: learning_rate", "got -1"},
         trained_unchanged},
        {fit({.optimizer = {.momentum = 2}}, curve, squared_error),
         {"Sgd: momentum", "got 2"},
         trained_unchanged},
        {fit({.learning_rate = [](double) { return 0.0; }}, curve, squared_error),
         {"Sgd: learning_rate", "got 0"},
         trained_unchanged},

        // Data sets.
        {[] {
             (void)Dataset<double>(MatrixXd(0, 2), VectorXi{{0, 0}}, 1);
         },
         {"Dataset: inputs", "got 0"}},
        {[&] {
             (void)Dataset<double>(x, VectorXi{{0, 1}}, 2);
         },
         {"Dataset: labels", "5 samples", "got 2"}},
        {[&] {
             (void)Dataset<double>(x, VectorXi{{0, 1, 2, 1, 0}}, 2);
         },
         {"Dataset: labels", "[0, 2)", "got 2 for sample 2"}},
        {[&] {
             (void)Dataset<double>(x, VectorXi{{0, 1, 0, -1, 0}}, 2);
         },
         {"Dataset: labels", "got -1 for sample 3"}},
        {[&] { (void)Dataset<double>(MatrixXd(3, 0), VectorXi(0), 0); },
         {"Dataset: classes", "got 0"}},
        {[] {
             (void)Dataset<double>(MatrixXd{{1.0, nan}}, VectorXi{{0, 0}}, 1);
         },
         {"Dataset: inputs", "got nan in row 0 of sample 1"}},
        {[] {
             (void)Dataset<double, MatrixXd>(MatrixXd{{1.0}, {-inf}}, MatrixXd(1, 1));
         },
         {"Dataset: inputs", "got -inf in row 1 of sample 0"}},
        {[&] { (void)Dataset<double, MatrixXd>(x, MatrixXd(2, 4)); },
         {"Dataset: targets", "5 samples", "got 4"}},
        {[&] { (void)Dataset<double, MatrixXd>(x, MatrixXd(0, 5)); },
         {"Dataset: targets", "got 0"}},
        {[] {
             (void)Dataset<double, MatrixXd>(MatrixXd::Zero(1, 1), MatrixXd::Constant(1, 1, nan));
         },
         {"Dataset: targets", "got nan"}},
        {[&] { (void)data.head(6); }, {"Dataset: count of head", "[0, 5]", "got 6"}},
        {[&] { (void)data.head(-1); }, {"Dataset: count of head", "got -1"}},
        {[&] {
             data.gather(std::vector<Index>{0, 1, 2, 3, 5}, y3, labels);
         },
         {"Dataset: indices of gather", "[0, 5)", "got 5"},
         labels_are_7},
        {[&] {
             data.gather(std::vector<Index>{0, 1, 2, 3, 4}, y2, labels);
         },
         {"Dataset: x of gather", "3 x 5", "got 2 x 5"},
         labels_are_7},
        {[&] {
             data.gather(std::vector<Index>{0, 1, 2, 3}, narrow3, labels);
         },
         {"Dataset: targets of gather", "4 x 1", "got 5 x 1"},
         labels_are_7},
        {[&] {
             data.gather(std::vector<Index>{0, 1, 2, 3, 4}, -1, 5, y3, labels);
         },
         {"Dataset: first of gather", "got -1"},
         labels_are_7},
        {[&] {
             data.gather(std::vector<Index>{0, 1, 2, 3, 4}, 1, 5, y3, labels);
         },
         {"Dataset: count of gather", "[0, 4]", "got 5"},
         labels_are_7},
        {[&] { data.resize_targets(labels, -1); },
         {"Dataset: count of resize_targets", "got -1"},
         labels_are_7},

        // Losses.
        {[&] { (void)squared_error.value(x, wrong_x); },
         {"MeanSquaredError: targets", "3 x 5", "got 2 x 5"}},
        {[&] { (void)squared_error.value_and_gradient(x, x, narrow3); },
         {"MeanSquaredError: gradient", "3 x 5", "got 3 x 4"},
         outputs_are_7},
        {[&] {
             (void)cross_entropy.value(x, VectorXi{{0, 1}});
         },
         {"SoftmaxCrossEntropy: labels", "5 samples", "got 2"}},
        {[&] {
             (void)cross_entropy.value(x, VectorXi{{0, 1, 3, 0, 0}});
         },
         {"SoftmaxCrossEntropy: labels", "[0, 3)", "got 3 for sample 2"}},
        {[&] {
             (void)cross_entropy.value_and_gradient(x, VectorXi{{0, 1, 0, -1, 0}}, y3);
         },
         {"SoftmaxCrossEntropy: labels", "got -1"},
         outputs_are_7},
        {[&] { (void)cross_entropy.value_and_gradient(x, classes, y2); },
         {"SoftmaxCrossEntropy: gradient", "3 x 5", "got 2 x 5"},
         outputs_are_7},

        // Metrics.
        {[] { (void)error_rate(MatrixXd(2, 0), VectorXi(0)); }, {"error_rate: scores", "got 0"}},
        {[&] { (void)error_rate(halves, VectorXi::Zero(1)); },
         {"error_rate: labels", "5 samples", "got 1"}},
        {[&] {
             (void)error_rate(halves, VectorXi{{0, 1, 2, 0, 0}});
         },
         {"error_rate: labels", "got 2"}},
        {[] {
             (void)error_rate(MatrixXd{{0.5}, {nan}}, VectorXi::Zero(1));
         },
         {"error_rate: scores", "got nan for class 1"}},
        {[&] { (void)negative_log_likelihood(MatrixXd(2, 0), VectorXi(0)); },
         {"negative_log_likelihood: probabilities", "got 0"}},
        {[] {
             (void)negative_log_likelihood(MatrixXd{{1.5}, {-0.5}}, VectorXi::Zero(1));
         },
         {"negative_log_likelihood: probabilities", "got -0.5 for class 1"}},
        {[&] { (void)negative_log_likelihood(MatrixXd(2 * halves), classes); },
         {"negative_log_likelihood: probabilities", "sum to 1", "got 2 for sample 0"}},
        {[&] {
             (void)negative_log_likelihood(halves, VectorXi{{0, 1, 0, 1, 9}});
         },
         {"negative_log_likelihood: labels", "got 9 for sample 4"}},
        {[&] { (void)expected_calibration_error(halves, classes, 0); },
         {"expected_calibration_error: bins", "got 0"}},
        {[] {
             (void)expected_calibration_error(MatrixXd{{nan}, {0.5}}, VectorXi::Zero(1));
         },
         {"expected_calibration_error: probabilities", "got nan"}},

        // Files.
        {idx(0, 1, 10),
         {"parse_idx", "some.idx", "magic", "0x01000801"},
         outputs_are_7,
         Error::runtime},
        {idx(2, 9, 10), {"parse_idx", "some.idx", "type 0x09"}, outputs_are_7, Error::runtime},
        {idx(3, 5, 10),
         {"parse_idx", "some.idx", "dimensions", "found 5"},
         outputs_are_7,
         Error::runtime},
        {idx(7, 3, 10),
         {"parse_idx", "some.idx", "expected 3 bytes", "found 2"},
         outputs_are_7,
         Error::runtime},
        {idx(0, 0, 6),
         {"parse_idx", "some.idx", "header", "found 6"},
         outputs_are_7,
         Error::runtime},
        {[] { (void)read_idx("no-such-folder/no-such-file"); },
         {"read_idx", "no-such-folder/no-such-file"},
         outputs_are_7,
         Error::runtime},
        {[] {
             (void)idx_images<float>({{4}, {1, 2, 3, 4}});
         },
         {"idx_images: array", "dimensions", "got 1"}},
        {[] {
             (void)idx_images<float>({{2, 2, 2}, {1, 2, 3}});
         },
         {"idx_images: array", "got 3 values"}},
        {[] {
             (void)idx_images<float>({{2, -2}, {1, 2, 3, 4}});
         },
         {"idx_images: array", "2 x -2"}},
        {[] {
             (void)idx_labels({{2, 2}, {1, 2, 3, 4}});
         },
         {"idx_labels: array", "got 2"}},
        {[] {
             (void)idx_labels({{5}, {1, 2, 3, 4}});
         },
         {"idx_labels: array", "5", "got 4 values"}},
    };

    REQUIRE(rows.size() >= 70);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const Row& row = rows[i];
        std::string message;
        const Error error = thrown_by(row.call, message);
        INFO("row " << i << ", wants \"" << row.fragments.front() << "\", said \"" << message
                    << '"');
        CHECK(error == row.error);
        for (const char* fragment : row.fragments) {
            if (!fragment) break;
            INFO("must name " << fragment);
            CHECK(message.find(fragment) != std::string::npos);
        }
        CHECK(row.unchanged());
    }
}

}  // namespace
