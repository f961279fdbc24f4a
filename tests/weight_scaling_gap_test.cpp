// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/weight_scaling_gap.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>

#include <stdexcept>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/skippable_layers.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;

TEST_CASE("weight_scaling_gap: by hand for two layers", "[weight_scaling_gap]") {
    // From 1: x + relu(2 x + 1) is 4, or 1 without; then x + relu(3 - x) is 4 from 4 and 3 from 1.
    const Sequential network{test::relu_layer(2, 1, 0.5), test::relu_layer(-1, 3, 0.25)};
    // f_SD = (4 + 0.25 * 3 + 0.75 * 1) / 2 = 2.75; the rule: 2.5, then 2.5 + 0.25 * 0.5 = 2.625.
    const Eigen::MatrixXd x = Eigen::MatrixXd::Constant(1, 1, 1.0);
    CHECK(weight_scaling_gap(network, x)(0, 0) == 2.625 - 2.75);
}

TEST_CASE("weight_scaling_gap: is the rule minus the truth", "[weight_scaling_gap]") {
    Philox random{1};
    const auto network = plain::to_library<plain::OneLinear<double, ReLU<double>>>(
        plain::random_network(random, {6, 8, 1, plain::Activation::relu, true}));
    const auto x = test::random_matrix<double>(random, 3, 11);
    const Eigen::MatrixXd gap = weight_scaling_gap(network, x);
    CHECK(test::same_bits(gap, Eigen::MatrixXd(WeightScaling{}(network, x).mean -
                                               ExactExpectation{}(network, x).mean)));
    CHECK(gap.cwiseAbs().maxCoeff() > 1e-3);
    CHECK(test::same_bits(gap, weight_scaling_gap(network, x, ExactExpectation{{.threads = 3}})));
}

TEST_CASE("weight_scaling_gap: 0 where p = 1, and for one residual layer at the end",
          "[weight_scaling_gap]") {
    Philox random{2};
    auto sure = plain::random_network(random, {5, 8, 1, plain::Activation::relu, true});
    for (plain::Block& block : sure.blocks) block.p = 1;
    using Branch = plain::OneLinear<double, ReLU<double>>;
    const auto x = test::random_matrix<double>(random, 3, 4);
    CHECK((weight_scaling_gap(plain::to_library<Branch>(sure), x).array() == 0.0).all());
    const auto single = plain::random_network(random, {1, 3, 1, plain::Activation::relu, false});
    CHECK((weight_scaling_gap(plain::to_blocks<Branch>(single), x).array() == 0.0).all());
}

TEST_CASE("weight_scaling_gap: keeps to the budget it is given", "[weight_scaling_gap]") {
    const Sequential network{test::relu_layer(2, 1, 0.5), test::relu_layer(-1, 3, 0.25)};
    const std::string message = thrown<std::length_error>([&] {
        (void)weight_scaling_gap(network, Eigen::MatrixXd::Ones(1, 1),
                                 ExactExpectation{{.max_layer_evaluations = 2}});
    });
    CHECK(holds(message, "ExactExpectation", "3", "2"));
}

}  // namespace
