// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/function.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/random/philox.hpp>

#include "support/catch.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using test::inf;
using test::nan;
using test::Outputs;
using test::refuses;

TEST_CASE(
    "bad input: Linear refuses widths, gains and matrices of other shapes, and writes nothing",
    "[bad_input_layers]") {
    Philox random{1};
    const Linear<double> layer{3, 4, random};
    auto layer_gradient = layer.zero_gradient();
    Outputs outputs;
    const MatrixXd &x = outputs.x, &wrong_x = outputs.wrong_x;
    MatrixXd &y2 = outputs.y2, &y3 = outputs.y3, &y4 = outputs.y4, &narrow3 = outputs.narrow3,
             &narrow4 = outputs.narrow4;
    const auto outputs_are_7 = [&] { return outputs.are_7(); };
    const auto gradients_are_0 = [&] {
        return layer_gradient.weights.isZero(0) && layer_gradient.bias.isZero(0) && outputs_are_7();
    };
    const Philox random_before = random;
    const auto random_unchanged = [&] { return random == random_before; };

    refuses([] { (void)Linear<double>(MatrixXd(3, 2), VectorXd(2)); },
            {"Linear: bias", "3 entries", "got 2"});
    refuses([] { (void)Linear<double>(MatrixXd(0, 2), VectorXd(0)); },
            {"Linear: outputs", "got 0"});
    refuses([] { (void)Linear<double>(MatrixXd(2, 0), VectorXd(2)); }, {"Linear: inputs", "got 0"});
    refuses([] { (void)Linear<double, 3, 2>(MatrixXd(2, 4), VectorXd(2)); },
            {"Linear: inputs", "3", "got 4"});
    refuses([] { (void)Linear<double, 3, 2>(MatrixXd(5, 3), VectorXd(5)); },
            {"Linear: outputs", "2", "got 5"});
    refuses([] { (void)Linear<double, 3, 2>(MatrixXd(2, 3), VectorXd(3)); },
            {"Linear: bias", "2 entries", "got 3"});
    refuses([&] { (void)Linear<double>(0, 3, random); }, {"Linear: inputs", "got 0"},
            random_unchanged);
    refuses([&] { (void)Linear<double>(3, -1, random); }, {"Linear: outputs", "got -1"},
            random_unchanged);
    refuses([&] { (void)Linear<double>(3, 3, random, -1.0); }, {"Linear: gain", "got -1"},
            random_unchanged);
    refuses([&] { (void)Linear<double>(3, 3, random, nan); }, {"Linear: gain", "got nan"},
            random_unchanged);
    refuses([&] { (void)Linear<double>(3, 3, random, inf); }, {"Linear: gain", "got inf"},
            random_unchanged);
    refuses([&] { (void)Linear<double, 3, 2>(4, 2, random); }, {"Linear: inputs", "3", "got 4"},
            random_unchanged);
    refuses([&] { (void)Linear<double, 3, 2>(random, nan); }, {"Linear: gain", "got nan"},
            random_unchanged);
    refuses([&] { (void)layer.output_size(2); }, {"Linear: input", "3 rows", "got 2"});
    refuses([&] { layer.forward(wrong_x, y4); }, {"Linear: input", "3 rows", "got 2"},
            outputs_are_7);
    refuses([&] { layer.forward(x, y3); }, {"Linear: output", "4 rows", "got 3"}, outputs_are_7);
    refuses([&] { layer.forward(x, narrow4); }, {"Linear: output", "5 columns", "got 4"},
            outputs_are_7);
    refuses([&] { layer.backward(wrong_x, y4, {}, layer_gradient, y3); },
            {"Linear: input", "3 rows", "got 2"}, gradients_are_0);
    refuses([&] { layer.backward(x, x, {}, layer_gradient, y3); }, {"Linear:", "4 rows", "got 3"},
            gradients_are_0);
    refuses([&] { layer.backward(x, y4, {}, layer_gradient, y2); },
            {"Linear: dx", "[3 x 5]", "got [2 x 5]"}, gradients_are_0);
    refuses([&] { layer.backward(x, y4, {}, layer_gradient, narrow3); },
            {"Linear: dx", "[3 x 5]", "got [3 x 4]"}, gradients_are_0);
}

TEST_CASE("bad input: ReLU, Tanh and GELU refuse matrices of other shapes, and write nothing",
          "[bad_input_layers]") {
    detail::NoGradient no_gradient;
    Outputs outputs;
    const MatrixXd &x = outputs.x, &wrong_x = outputs.wrong_x;
    MatrixXd &y2 = outputs.y2, &y3 = outputs.y3, &y4 = outputs.y4, &narrow3 = outputs.narrow3;
    const auto outputs_are_7 = [&] { return outputs.are_7(); };

    refuses([&] { ReLU<double>{}.forward(x, y2); }, {"Elementwise: output", "3 rows", "got 2"},
            outputs_are_7);
    refuses([&] { Tanh<double>{}.forward(x, narrow3); },
            {"Elementwise: output", "5 columns", "got 4"}, outputs_are_7);
    refuses([&] { GELU<double>{}.forward(x, y4); }, {"Elementwise: output", "3 rows", "got 4"},
            outputs_are_7);
    refuses([&] { ReLU<double>{}.backward(x, x, {}, no_gradient, y2); },
            {"Elementwise: dx", "[3 x 5]", "got [2 x 5]"}, outputs_are_7);
    refuses([&] { Tanh<double>{}.backward(x, wrong_x, {}, no_gradient, y3); },
            {"Elementwise:", "3 rows", "got 2"}, outputs_are_7);
}

TEST_CASE("bad input: Softmax and Identity refuse matrices of other shapes, and write nothing",
          "[bad_input_layers]") {
    detail::NoGradient no_gradient;
    Outputs outputs;
    const MatrixXd& x = outputs.x;
    MatrixXd &y2 = outputs.y2, &narrow3 = outputs.narrow3;
    const auto outputs_are_7 = [&] { return outputs.are_7(); };

    refuses([&] { Softmax<double>{}.forward(x, y2); }, {"Softmax: output", "3 rows", "got 2"},
            outputs_are_7);
    refuses([&] { Softmax<double>{}.backward(x, x, {}, no_gradient, narrow3); },
            {"Softmax: dx", "[3 x 5]", "got [3 x 4]"}, outputs_are_7);
    refuses([&] { Identity<double>{}.forward(x, y2); }, {"Identity: output", "3 rows", "got 2"},
            outputs_are_7);
    refuses([&] { Identity<double>{}.backward(x, x, {}, no_gradient, y2); },
            {"Identity: dx", "[3 x 5]", "got [2 x 5]"}, outputs_are_7);
}

TEST_CASE("bad input: function refuses widths and results of other shapes, and writes nothing",
          "[bad_input_layers]") {
    const auto doubling = function<double>([](const auto& z) { return 2.0 * z; });
    const auto no_matter = [](const auto& z) { return z; };
    Outputs outputs;
    const MatrixXd& x = outputs.x;
    MatrixXd& y2 = outputs.y2;
    const auto outputs_are_7 = [&] { return outputs.are_7(); };

    refuses([&] { (void)function<double>(no_matter, 0); }, {"Function: outputs", "got 0"});
    refuses([&] { (void)function<double>(no_matter, -5); }, {"Function: outputs", "got -5"});
    refuses([&] { doubling.forward(x, y2); }, {"Function: output", "3 rows", "got 2"},
            outputs_are_7);
    refuses([&] { function<double>(no_matter, 2).forward(x, y2); },
            {"Function: result", "[2 x 5]", "got [3 x 5]"}, outputs_are_7);
}

}  // namespace
