// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/monte_carlo_plan.hpp>

#include <vector>

#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using test::same_bits;

using Block = StochasticDepth<Residual<Linear<float>>>;

Stack<Block> network_of(Index depth, double p = 0.7, std::uint32_t seed = 1) {
    Philox random{seed};
    std::vector<Block> blocks;
    for (Index l = 0; l < depth; ++l)
        blocks.emplace_back(Residual{Linear<float>{3, 3, random, 0.5}}, SurvivalProbability{p});
    return Stack{blocks};
}

void check_same(const ExpectationResult<float>& a, const ExpectationResult<float>& b) {
    CHECK(a.method == b.method);
    CHECK(same_bits(a.mean, b.mean));
    CHECK(same_bits(a.variance, b.variance));
    CHECK(same_bits(a.standard_error, b.standard_error));
    CHECK(same_bits(Eigen::VectorXd::Constant(1, a.degrees_of_freedom),
                    Eigen::VectorXd::Constant(1, b.degrees_of_freedom)));
    CHECK(a.layer_evaluations == b.layer_evaluations);
    CHECK(a.samples == b.samples);
}

TEST_CASE("MonteCarloPlan: answers with the bits of the rule, whatever its design",
          "[monte_carlo_plan]") {
    Philox random{2};
    const auto network = network_of(6);
    std::vector<MonteCarloExpectationOptions> rules;
    for (const auto design : {MaskDesign::independent, MaskDesign::antithetic,
                              MaskDesign::stratified, MaskDesign::lattice})
        for (const auto control : {ControlVariates::none, ControlVariates::mask_bits})
            rules.push_back({.samples = 60, .seed = 3, .design = design,
                             .control_variates = control});
    rules.push_back({.samples = 20, .enumerated_layers = 2});
    rules.push_back({.samples = 1});
    rules.push_back({.samples = 500, .max_layer_evaluations = 30});
    rules.push_back({.samples = 50, .threads = 3});
    ExpectationResult<float> result;
    for (const auto& options : rules) {
        const MonteCarloExpectation rule{options};
        const MonteCarloPlan plan = rule.plan(network);
        for (const Index batch : {Index{0}, Index{1}, Index{150}}) {
            CAPTURE(static_cast<int>(options.design), options.samples, batch);
            const Matrix<float> x = test::random_matrix<float>(random, 3, batch);
            plan(network, x, result);
            check_same(result, rule(network, x));
            check_same(plan(network, x), result);
        }
    }
    // Other parameters are no other masks.
    const auto other = network_of(6, 0.7, 9);
    const MonteCarloExpectation rule;
    const Matrix<float> x = test::random_matrix<float>(random, 3, 4);
    check_same(rule.plan(network)(other, x), rule(other, x));
}

TEST_CASE("MonteCarloPlan: of a network without skippable layers", "[monte_carlo_plan]") {
    const auto network = network_of(0);
    const Matrix<float> x = Matrix<float>::Ones(3, 2);
    CHECK(same_bits(MonteCarloExpectation{}.plan(network)(network, x).mean, x));
}

TEST_CASE("MonteCarloPlan: refuses networks of other masks, and rules without a number",
          "[monte_carlo_plan]") {
    const auto network = network_of(4);
    const Matrix<float> x = Matrix<float>::Ones(3, 2);
    const MonteCarloPlan plan = MonteCarloExpectation{}.plan(network);
    ExpectationResult<float> result = plan(network, x);
    const auto before = result;
    CHECK(test::refusal([&] { plan(network_of(5), x, result); }) ==
          "MonteCarloPlan: network must have 4 skippable layers as the plan's, got 5");
    CHECK(test::refusal([&] { plan(network_of(4, 0.75), x, result); }) ==
          "MonteCarloPlan: survival probability of layer 0 must be 0.7 as in the plan, got 0.75");
    CHECK(test::refusal([&] { plan(network, Matrix<float>(2, 1), result); }) ==
          "Linear: input must have 3 rows, got 2");
    check_same(result, before);
    const std::string message =
        "MonteCarloExpectation: plan needs a number of masks that is known: neither "
        "target_standard_error nor progress";
    CHECK(test::refusal([&] {
              (void)MonteCarloExpectation{{.target_standard_error = 0.1}}.plan(network);
          }) == message);
    CHECK(test::refusal([&] {
              (void)MonteCarloExpectation{{.progress = [](double) { return true; }}}.plan(network);
          }) == message);
}

}  // namespace
