// SPDX-License-Identifier: MIT
#include <stdexcept>
#include <vector>

#include <stochastic_depth/expectation/enumerate_masks.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/expectation/weight_scaling_gap.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using test::Outputs;
using test::refuses;

using Block = StochasticDepth<Residual<Linear<double>>>;

TEST_CASE("bad input: ExactExpectation refuses threads, inputs and more work than it may do",
          "[bad_input_expectation]") {
    Philox random{1};
    const Block block{Residual{Linear<double>{3, 3, random}}, SurvivalProbability{0.5}};
    const Sequential network{block, block, Linear<double>{3, 2, random}};
    const Stack<Block> deep{std::vector<Block>(30, block)};
    Outputs outputs;
    const MatrixXd &x = outputs.x, &wrong_x = outputs.wrong_x;
    const auto outputs_are_7 = [&] { return outputs.are_7(); };

    refuses([] { (void)ExactExpectation{{.threads = 0}}; }, {"ExactExpectation: threads", "got 0"});
    refuses([&] { (void)ExactExpectation{}(network, wrong_x); },
            {"Linear: input", "3 rows", "got 2"});
    refuses<std::length_error>([&] { (void)ExactExpectation{}(deep, x); },
                               {"ExactExpectation:", "depth 30", "1073741823",
                                "max_layer_evaluations", "268435456", "MonteCarloExpectation"},
                               outputs_are_7);
    refuses<std::length_error>(
        [&] { (void)ExactExpectation{{.max_layer_evaluations = 2}}(network, x); },
        {"ExactExpectation:", "depth 2", "3", "max_layer_evaluations is 2"}, outputs_are_7);
}

TEST_CASE("bad input: MonteCarloExpectation refuses samples, threads and inputs",
          "[bad_input_expectation]") {
    Philox random{1};
    const Block block{Residual{Linear<double>{3, 3, random}}, SurvivalProbability{0.5}};
    const Sequential network{block, block, Linear<double>{3, 2, random}};
    const Outputs outputs;
    const MatrixXd& wrong_x = outputs.wrong_x;

    refuses([] { (void)MonteCarloExpectation{{.samples = 0}}; },
            {"MonteCarloExpectation: samples", "got 0"});
    refuses([] { (void)MonteCarloExpectation{{.samples = -3}}; },
            {"MonteCarloExpectation: samples", "got -3"});
    refuses([] { (void)MonteCarloExpectation{{.threads = 0}}; },
            {"MonteCarloExpectation: threads", "got 0"});
    refuses([&] { (void)MonteCarloExpectation{}(network, wrong_x); },
            {"Linear: input", "3 rows", "got 2"});
}

TEST_CASE(
    "bad input: WeightScaling and weight_scaling_gap refuse inputs and more work than they may do",
    "[bad_input_expectation]") {
    Philox random{1};
    const Block block{Residual{Linear<double>{3, 3, random}}, SurvivalProbability{0.5}};
    const Sequential network{block, block, Linear<double>{3, 2, random}};
    const Stack<Block> deep{std::vector<Block>(30, block)};
    Outputs outputs;
    const MatrixXd &x = outputs.x, &wrong_x = outputs.wrong_x;
    const auto outputs_are_7 = [&] { return outputs.are_7(); };

    refuses([&] { (void)WeightScaling{}(network, wrong_x); }, {"Linear: input", "3 rows", "got 2"});
    refuses([&] { (void)weight_scaling_gap(network, wrong_x); },
            {"Linear: input", "3 rows", "got 2"});
    refuses<std::length_error>([&] { (void)weight_scaling_gap(deep, x); },
                               {"ExactExpectation:", "depth 30"}, outputs_are_7);
}

TEST_CASE("bad input: enumerate_masks refuses inputs and more masks than can be listed",
          "[bad_input_expectation]") {
    Philox random{1};
    const Block block{Residual{Linear<double>{3, 3, random}}, SurvivalProbability{0.5}};
    const Sequential network{block, block, Linear<double>{3, 2, random}};
    const Stack<Block> deep{std::vector<Block>(30, block)};
    Outputs outputs;
    const MatrixXd &x = outputs.x, &wrong_x = outputs.wrong_x;
    const auto outputs_are_7 = [&] { return outputs.are_7(); };

    refuses([&] { (void)enumerate_masks(network, wrong_x); }, {"Linear: input", "3 rows", "got 2"});
    refuses<std::length_error>([&] { (void)enumerate_masks(deep, x); },
                               {"enumerate_masks: depth", "24", "got 30", "ExactExpectation"},
                               outputs_are_7);
}

}  // namespace
