// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/sgd.hpp>

#include <cmath>
#include <tuple>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/pass/run.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/one_weight.hpp"
#include "support/parameters.hpp"
#include "support/recorded_pass.hpp"

namespace {

using namespace stochastic_depth;
using test::check_weights;
using test::parameters;
using test::trajectory;

using Network = Sequential<Linear<double>>;

TEST_CASE("Sgd: plain steps, momentum, Nesterov and weight decay, by hand", "[sgd]") {
    const std::vector<double> slopes{1, 2, -1};
    check_weights(trajectory<Sgd>(SgdOptions{.learning_rate = 0.1}, 1, slopes), {0.9, 0.7, 0.8},
                  1e-15);
    // v = 1, 2.9, 1.61.
    check_weights(trajectory<Sgd>(SgdOptions{.learning_rate = 0.1, .momentum = 0.9}, 1, slopes),
                  {0.9, 0.61, 0.449}, 1e-15);
    // g + 0.9 v = 1.9, 4.61, 0.449.
    check_weights(
        trajectory<Sgd>(SgdOptions{.learning_rate = 0.1, .momentum = 0.9, .nesterov = true}, 1,
                        slopes),
        {0.81, 0.349, 0.3041}, 1e-15);
    // g + 0.5 w = 1.5, 2.425, -0.69625.
    check_weights(trajectory<Sgd>(SgdOptions{.learning_rate = 0.1, .weight_decay = 0.5}, 1, slopes),
                  {0.85, 0.6075, 0.677125}, 1e-15);
    // g + 0.5 w = 1.5, 2.425, -0.73375; v = 1.5, 3.175, 0.85375.
    check_weights(
        trajectory<Sgd>(SgdOptions{.learning_rate = 0.1, .momentum = 0.5, .weight_decay = 0.5}, 1,
                        slopes),
        {0.85, 0.5325, 0.447125}, 1e-15);
}

TEST_CASE("Sgd: follows PyTorch's published formulas over many random steps", "[sgd]") {
    // g = slope + lambda w;  buffer = mu buffer + g (at first: g);  g = nesterov ? g + mu buffer :
    // buffer; w = w - eta g.
    const SgdOptions all[] = {
        {.learning_rate = 0.05},
        {.learning_rate = 0.05, .weight_decay = 0.1},
        {.learning_rate = 0.05, .momentum = 0.9},
        {.learning_rate = 0.05, .momentum = 0.99, .weight_decay = 0.01},
        {.learning_rate = 0.05, .momentum = 0.9, .nesterov = true},
        {.learning_rate = 0.05, .momentum = 0.7, .nesterov = true, .weight_decay = 0.2}};
    Philox random{1};
    for (const SgdOptions& options : all) {
        Sequential network{Linear<double>{3, 4, random}, Tanh<double>{},
                           Linear<double>{4, 2, random}};
        Sgd optimizer{network, options};
        auto gradient = network.zero_gradient();
        Eigen::VectorXd w = parameters(network), buffer;
        for (int step = 0; step < 60; ++step) {
            // Schedules change the rate between steps; the buffer is not rescaled.
            const double rate = step < 30 ? options.learning_rate : options.learning_rate / 4;
            if (step == 30) optimizer.set_learning_rate(rate);
            Eigen::VectorXd slope(w.size());
            Index next = 0;
            detail::visit_parameters(
                network,
                [&](const char*, auto&, auto& part) {
                    for (Index i = 0; i < part.size(); ++i)
                        slope(next++) = part.data()[i] = uniform<double>(random, -1, 1);
                },
                gradient);
            REQUIRE(next == w.size());
            optimizer.step(network, gradient);
            const Eigen::VectorXd g = slope + options.weight_decay * w;
            buffer = step == 0 ? g : Eigen::VectorXd(options.momentum * buffer + g);
            w -=
                rate * (options.nesterov ? Eigen::VectorXd(g + options.momentum * buffer) : buffer);
            REQUIRE(test::largest_difference(parameters(network), w) <= 1e-13);
        }
        CHECK(optimizer.options().learning_rate == options.learning_rate / 4);
    }
}

TEST_CASE("Sgd: float parameters follow the same formulas in float", "[sgd]") {
    Philox random{2};
    Sequential network{Linear<float>{3, 2, random}};
    Sgd optimizer{network, {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.01}};
    auto gradient = network.zero_gradient();
    Eigen::VectorXd w = parameters(network), v = Eigen::VectorXd::Zero(w.size());
    for (int step = 0; step < 20; ++step) {
        std::get<0>(gradient.layers).weights.setConstant(0.5f);
        std::get<0>(gradient.layers).bias.setConstant(0.5f);
        optimizer.step(network, gradient);
        v = 0.9 * v + Eigen::VectorXd::Constant(w.size(), 0.5) + 0.01 * w;
        w -= 0.1 * v;
        // 20 steps of a few roundings, weights up to 10.
        REQUIRE(test::largest_difference(parameters(network), w) <= 2e-5);
    }
}

template <class Network>
void step_under(Network& network, Sgd<Network>& optimizer, typename Network::Gradient& gradient,
                test::RecordedPass<Network>& pass, const SurvivalMask& mask,
                const Eigen::MatrixXd& x) {
    Matrix<double> h = x;
    pass.forward(network, h, detail::MaskView{mask});
    h.setOnes();  // the gradient of the sum of the outputs
    pass.backward(network, h, gradient);
    optimizer.step(network, gradient);
    gradient.set_zero();
}

using Block = StochasticDepth<Residual<Linear<double>>>;

Stack<Block> three_blocks(std::uint32_t seed) {
    Philox random{seed};
    std::vector<Block> blocks;
    for (int l = 0; l < 3; ++l)
        blocks.emplace_back(Residual{Linear<double>{2, 2, random}}, SurvivalProbability{0.5});
    return Stack{blocks};
}

TEST_CASE("Sgd: a skipped layer is left alone, neither momentum nor weight decay move it",
          "[sgd]") {
    for (const bool nesterov : {false, true}) {
        const SgdOptions options{
            .learning_rate = 0.01, .momentum = 0.9, .nesterov = nesterov, .weight_decay = 0.1};
        Stack<Block> network = three_blocks(3);
        Sgd optimizer{network, options};
        auto gradient = network.zero_gradient();
        test::RecordedPass<Stack<Block>> pass;
        const Eigen::MatrixXd x = Eigen::MatrixXd::Constant(2, 4, 0.5);
        // Everybody gets momentum.
        step_under(network, optimizer, gradient, pass, {1, 1, 1}, x);
        for (const SurvivalMask& mask : {SurvivalMask{1, 0, 1}, SurvivalMask{0, 0, 1},
                                         SurvivalMask{0, 0, 0}, SurvivalMask{1, 1, 0}}) {
            const Stack<Block> before = network;
            step_under(network, optimizer, gradient, pass, mask, x);
            for (std::size_t l = 0; l < 3; ++l) {
                INFO("mask " << to_string(mask) << ", layer " << l);
                const bool same = test::same_bits(parameters(network.layers()[l]),
                                                  parameters(before.layers()[l]));
                CHECK(same != mask[static_cast<Index>(l)]);
            }
        }
    }
}

TEST_CASE("Sgd: a layer's momentum waits while the layer is skipped", "[sgd]") {
    // The last of three layers sees the same gradient whenever it is kept, since its own input is
    // all that it depends on and the layers before it are skipped: with pauses or without, the same
    // path.
    const SgdOptions options{.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 0.1};
    const Eigen::MatrixXd x = Eigen::MatrixXd::Constant(2, 4, 0.5);
    const auto run = [&](const std::vector<SurvivalMask>& masks) {
        Stack<Block> network = three_blocks(4);
        Sgd optimizer{network, options};
        auto gradient = network.zero_gradient();
        test::RecordedPass<Stack<Block>> pass;
        for (const SurvivalMask& mask : masks)
            step_under(network, optimizer, gradient, pass, mask, x);
        return parameters(network.layers()[2]);
    };
    const SurvivalMask only_last{0, 0, 1}, others{1, 1, 0}, nobody{0, 0, 0};
    CHECK(test::same_bits(run({only_last, only_last, only_last}),
                          run({only_last, nobody, only_last, others, others, nobody, only_last})));
}

TEST_CASE("Sgd: with one mask for each sample, one survivor suffices to move a layer", "[sgd]") {
    Stack<Block> network = three_blocks(5);
    const Stack<Block> before = network;
    Sgd optimizer{network, {.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 0.1}};
    auto gradient = network.zero_gradient();
    test::RecordedPass<Stack<Block>> pass;
    const auto masks = SurvivalMasks::from_masks({{1, 0, 0}, {1, 0, 0}, {0, 0, 1}});
    Matrix<double> h = Eigen::MatrixXd::Constant(2, 3, 0.5);
    pass.forward(network, h, detail::MaskView{masks});
    h.setOnes();
    pass.backward(network, h, gradient);
    optimizer.step(network, gradient);
    const auto same = [&](std::size_t l) {
        return test::same_bits(parameters(network.layers()[l]), parameters(before.layers()[l]));
    };
    CHECK_FALSE(same(0));
    CHECK(same(1));
    CHECK_FALSE(same(2));
}

TEST_CASE("Sgd: inside a kept layer, a skipped one is left alone", "[sgd]") {
    Philox random{6};
    using Outer = StochasticDepth<Sequential<Linear<double>, Block>>;
    Sequential<Outer> network{
        Outer{Sequential{Linear<double>{2, 2, random},
                         Block{Residual{Linear<double>{2, 2, random}}, SurvivalProbability{0.5}}},
              SurvivalProbability{0.5}}};
    Sgd optimizer{network, {.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 0.1}};
    auto gradient = network.zero_gradient();
    test::RecordedPass<Sequential<Outer>> pass;
    const Eigen::MatrixXd x = Eigen::MatrixXd::Constant(2, 4, 0.5);
    const auto linear = [&] {
        return parameters(std::get<0>(std::get<0>(network.layers()).layer().layers()));
    };
    const auto inner = [&] {
        return parameters(std::get<1>(std::get<0>(network.layers()).layer().layers()));
    };
    const struct {
        SurvivalMask mask;
        bool linear_moves, inner_moves;
    } steps[] = {
        {{1, 1}, true, true}, {{1, 0}, true, false}, {{0, 1}, false, false}, {{1, 1}, true, true}};
    for (const auto& step : steps) {
        const Eigen::VectorXd linear_before = linear(), inner_before = inner();
        step_under(network, optimizer, gradient, pass, step.mask, x);
        INFO("mask " << to_string(step.mask));
        CHECK(test::same_bits(linear(), linear_before) != step.linear_moves);
        CHECK(test::same_bits(inner(), inner_before) != step.inner_moves);
    }
}

TEST_CASE(
    "Sgd: of a skipped layer with a shortcut of its own, the shortcut moves and the branch does not",
    "[sgd]") {
    Philox random{7};
    using Layer = StochasticDepth<Residual<Linear<double>, Linear<double>>>;
    Sequential<Layer> network{
        Layer{Residual{Linear<double>{2, 3, random}, Linear<double>{2, 3, random}},
              SurvivalProbability{0.5}}};
    Sgd optimizer{network, {.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 0.1}};
    auto gradient = network.zero_gradient();
    test::RecordedPass<Sequential<Layer>> pass;
    const Eigen::MatrixXd x = Eigen::MatrixXd::Constant(2, 4, 0.5);
    const auto branch = [&] { return parameters(std::get<0>(network.layers()).layer().branch()); };
    const auto shortcut = [&] {
        return parameters(std::get<0>(network.layers()).layer().shortcut());
    };
    for (const SurvivalMask& mask :
         {SurvivalMask{1}, SurvivalMask{0}, SurvivalMask{0}, SurvivalMask{1}}) {
        const Eigen::VectorXd branch_before = branch(), shortcut_before = shortcut();
        step_under(network, optimizer, gradient, pass, mask, x);
        INFO("mask " << to_string(mask));
        CHECK(test::same_bits(branch(), branch_before) != mask[0]);
        CHECK_FALSE(test::same_bits(shortcut(), shortcut_before));
    }
}

}  // namespace
