// SPDX-License-Identifier: MIT
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>

#include "support/catch.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using test::Outputs;
using test::refuses;

using Block = StochasticDepth<Residual<Linear<double>>>;

TEST_CASE("bad input: Sequential refuses layers and matrices that do not fit, and writes nothing",
          "[bad_input_composites]") {
    Philox random{1};
    const auto linear = [&](Index inputs, Index outputs_of) {
        return Linear<double>{inputs, outputs_of, random};
    };
    const Linear<double> layer = linear(3, 4);
    const Sequential sequential{linear(3, 4), ReLU<double>{}, linear(4, 2)};
    auto sequential_gradient = sequential.zero_gradient();
    decltype(sequential)::Cache sequential_cache;
    Outputs outputs;
    const MatrixXd &x = outputs.x, &wrong_x = outputs.wrong_x;
    MatrixXd &y2 = outputs.y2, &y3 = outputs.y3, &narrow3 = outputs.narrow3;
    const auto outputs_are_7 = [&] { return outputs.are_7(); };
    {
        MatrixXd y(2, 5);
        sequential.forward(x, y, sequential_cache);
    }

    refuses([&] { sequential.forward(wrong_x, y2); }, {"Linear: input", "3 rows", "got 2"},
            outputs_are_7);
    refuses([&] { sequential.forward(x, y3); }, {"Sequential: output", "2 rows", "got 3"},
            outputs_are_7);
    refuses([&] { sequential.forward(x, y3, sequential_cache); },
            {"Sequential: output", "2 rows", "got 3"}, outputs_are_7);
    refuses([&] { sequential.backward(x, x, sequential_cache, sequential_gradient, y3); },
            {"Sequential:", "2 rows", "got 3"}, outputs_are_7);
    refuses([&] { sequential.backward(x, y2, sequential_cache, sequential_gradient, narrow3); },
            {"Sequential: dx", "[3 x 5]", "got [3 x 4]"}, outputs_are_7);
    refuses([&] { (void)Sequential(layer, layer).output_size(3); },
            {"Linear: input", "3 rows", "got 4"});
}

TEST_CASE("bad input: Stack refuses matrices of other shapes, and writes nothing",
          "[bad_input_composites]") {
    Philox random{1};
    const auto linear = [&](Index inputs, Index outputs_of) {
        return Linear<double>{inputs, outputs_of, random};
    };
    const Stack<Linear<double>> stack{{linear(3, 3), linear(3, 3)}};
    auto stack_gradient = stack.zero_gradient();
    Stack<Linear<double>>::Cache stack_cache;
    Outputs outputs;
    const MatrixXd &x = outputs.x, &wrong_x = outputs.wrong_x;
    MatrixXd &y2 = outputs.y2, &y3 = outputs.y3, &narrow3 = outputs.narrow3;
    const auto outputs_are_7 = [&] { return outputs.are_7(); };
    {
        MatrixXd y(3, 5);
        stack.forward(x, y, stack_cache);
    }

    refuses([&] { stack.forward(wrong_x, y3); }, {"Linear: input", "3 rows", "got 2"},
            outputs_are_7);
    refuses([&] { stack.forward(x, narrow3); }, {"Stack: output", "5 columns", "got 4"},
            outputs_are_7);
    refuses([&] { stack.forward(x, y2, stack_cache); }, {"Stack: output", "3 rows", "got 2"},
            outputs_are_7);
    refuses([&] { stack.backward(x, y2, stack_cache, stack_gradient, y3); },
            {"Stack:", "3 rows", "got 2"}, outputs_are_7);
}

TEST_CASE("bad input: Residual refuses branches and matrices that do not fit, and writes nothing",
          "[bad_input_composites]") {
    Philox random{1};
    const auto linear = [&](Index inputs, Index outputs_of) {
        return Linear<double>{inputs, outputs_of, random};
    };
    const Linear<double> layer = linear(3, 4);
    const Residual residual{linear(3, 3)};
    auto residual_gradient = residual.zero_gradient();
    decltype(residual)::Cache residual_cache;
    Outputs outputs;
    const MatrixXd &x = outputs.x, &wrong_x = outputs.wrong_x;
    MatrixXd &y2 = outputs.y2, &y3 = outputs.y3, &y4 = outputs.y4;
    const auto outputs_are_7 = [&] { return outputs.are_7(); };
    {
        MatrixXd y(3, 5);
        residual.forward(x, y, residual_cache);
    }

    refuses([&] { (void)Residual(layer).output_size(3); },
            {"Residual: branch", "3 outputs", "got 4"});
    refuses([&] { residual.forward(wrong_x, y3); }, {"Linear: input", "3 rows", "got 2"},
            outputs_are_7);
    refuses([&] { residual.forward(x, y2); }, {"Residual: output", "3 rows", "got 2"},
            outputs_are_7);
    refuses([&] { residual.forward(x, y2, residual_cache); },
            {"Residual: output", "3 rows", "got 2"}, outputs_are_7);
    refuses([&] { residual.backward(x, x, residual_cache, residual_gradient, y4); },
            {"Residual: dx", "[3 x 5]", "got [4 x 5]"}, outputs_are_7);
}

TEST_CASE(
    "bad input: StochasticDepth refuses layers and matrices that do not fit, and writes nothing",
    "[bad_input_composites]") {
    Philox random{1};
    const auto linear = [&](Index inputs, Index outputs_of) {
        return Linear<double>{inputs, outputs_of, random};
    };
    const Linear<double> layer = linear(3, 4);
    const Block block{Residual{linear(3, 3)}, SurvivalProbability{0.5}};
    auto block_gradient = block.zero_gradient();
    Block::Cache block_cache;
    Outputs outputs;
    const MatrixXd& x = outputs.x;
    MatrixXd &y2 = outputs.y2, &narrow3 = outputs.narrow3;
    const auto outputs_are_7 = [&] { return outputs.are_7(); };
    {
        MatrixXd y(3, 5);
        block.forward(x, y, block_cache);
    }

    refuses([&] { (void)StochasticDepth(layer, SurvivalProbability{0.5}).output_size(3); },
            {"StochasticDepth: layer", "3 outputs", "got 4"});
    refuses([&] { block.forward(x, y2); }, {"StochasticDepth: output", "3 rows", "got 2"},
            outputs_are_7);
    refuses([&] { block.forward(x, narrow3, block_cache); },
            {"StochasticDepth: output", "5 columns", "got 4"}, outputs_are_7);
    refuses([&] { block.backward(x, x, block_cache, block_gradient, y2); },
            {"StochasticDepth: dx", "[3 x 5]", "got [2 x 5]"}, outputs_are_7);
}

TEST_CASE("bad input: a masked pass refuses masks and matrices that do not fit, and writes nothing",
          "[bad_input_composites]") {
    Philox random{1};
    const auto linear = [&](Index inputs, Index outputs_of) {
        return Linear<double>{inputs, outputs_of, random};
    };
    const Residual residual{linear(3, 3)};
    const Block block{residual, SurvivalProbability{0.5}};
    const Sequential network{block, block, linear(3, 2)};
    const Stack<Block> deep{std::vector<Block>(30, block)};
    const SurvivalMask mask{1, 0, 1};
    Outputs outputs;
    const MatrixXd &x = outputs.x, &wrong_x = outputs.wrong_x;
    MatrixXd &y2 = outputs.y2, &y3 = outputs.y3;
    const auto outputs_are_7 = [&] { return outputs.are_7(); };

    refuses([&] { (void)network(x, SurvivalMask{1}); },
            {"masked_forward: mask", "2 layers", "got 1"});
    refuses([&] { (void)network(x, mask); }, {"masked_forward: mask", "2 layers", "got 3"});
    refuses(
        [&] {
            (void)network(wrong_x, SurvivalMask{1, 1});
        },
        {"Linear: input", "3 rows", "got 2"});
    refuses([&] { (void)network(x, SurvivalMasks::all(2, 4)); },
            {"masked_forward: masks", "5 samples", "got 4"});
    refuses([&] { (void)network(x, SurvivalMasks::all(3, 5)); },
            {"masked_forward: masks", "2 layers", "got 3"});
    refuses([&] { (void)block(x, SurvivalMask{}); }, {"masked_forward: mask", "1 layers", "got 0"});
    refuses([&] { (void)deep(x, SurvivalMask::all(29)); },
            {"masked_forward: mask", "30 layers", "got 29"});
    refuses([&] { (void)residual(x, SurvivalMask::all(1)); },
            {"masked_forward: mask", "0 layers", "got 1"});
    refuses(
        [&] {
            masked_forward(network, x, SurvivalMask{1, 1}, y3);
        },
        {"masked_forward: output", "2 rows", "got 3"}, outputs_are_7);
    refuses([&] { masked_forward(network, x, SurvivalMask{1}, y2); },
            {"masked_forward: mask", "2 layers", "got 1"}, outputs_are_7);
    refuses([&] { masked_forward(network, x, SurvivalMasks::all(2, 6), y2); },
            {"masked_forward: masks", "5 samples", "got 6"}, outputs_are_7);
}

}  // namespace
