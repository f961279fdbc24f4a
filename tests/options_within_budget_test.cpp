// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/options_within_budget.hpp>

#include <cmath>
#include <limits>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/survival/schedules.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;

auto network_of(Index depth) {
    Philox random{41};
    auto network = plain::random_network(
        random, {static_cast<std::size_t>(depth), 4, 1, plain::Activation::tanh, true});
    const Eigen::VectorXd p = linear_decay(depth, 0.5);
    for (Index l = 0; l < depth; ++l) network.blocks[static_cast<std::size_t>(l)].p = p(l);
    return plain::to_library<plain::OneLinear<double, Tanh<double>>>(network);
}

TEST_CASE("options_within_budget: it spends the evaluations that it has, no more", "[options_within_budget]") {
    for (const Index depth : {8, 12, 24}) {
        const auto network = network_of(depth);
        const Eigen::VectorXd p = network.survival_probabilities();
        const Eigen::MatrixXd x{{0.3}, {-0.7}, {0.5}};
        for (const double plain_samples : {3.0, 10.0, 50.0, 100.0}) {
            const double budget = plain_samples * p.sum();
            if (budget > std::ldexp(0.5, static_cast<int>(depth))) continue;
            const auto estimate = MonteCarloExpectation{options_within_budget(budget, p, 9)}(network, x);
            INFO("depth " << depth << ", budget " << budget << ": " << estimate.layer_evaluations);
            CHECK(estimate.layer_evaluations <= budget);
            CHECK(estimate.layer_evaluations >= 0.85 * budget);
            CHECK(static_cast<double>(estimate.samples) >= plain_samples);
            CHECK(estimate.standard_error.allFinite());
        }
    }
}

TEST_CASE("options_within_budget: ten times less variance than plain sampling of the same evaluations",
          "[options_within_budget]") {
    const auto network = network_of(12);
    const Eigen::VectorXd p = network.survival_probabilities();
    const Eigen::MatrixXd x{{0.3}, {-0.7}, {0.5}};
    const auto exact = ExactExpectation{}(network, x);
    double square = 0;
    constexpr int seeds = 200;
    for (int seed = 0; seed < seeds; ++seed) {
        const auto options = options_within_budget(100 * p.sum(), p, static_cast<std::uint64_t>(seed));
        const auto estimate = MonteCarloExpectation{options}(network, x);
        square += (estimate.mean - exact.mean).squaredNorm() / seeds;
    }
    INFO("relative variance " << square / (exact.variance.sum() / 100));
    // 200 replications know it to 10 % or so.
    CHECK(10 * square <= exact.variance.sum() / 100);
}

TEST_CASE("options_within_budget: arguments out of range are refused", "[options_within_budget]") {
    const auto refused = [](double budget, const Eigen::VectorXd& p) {
        return test::refusal([&] { (void)options_within_budget(budget, p); });
    };
    const Eigen::VectorXd p = linear_decay(4, 0.5);
    CHECK(refused(0, p) == "options_within_budget: max_layer_evaluations must be above 0, got 0");
    CHECK(refused(std::numeric_limits<double>::quiet_NaN(), p) ==
          "options_within_budget: max_layer_evaluations must be above 0, got nan");
    CHECK(refused(10, Eigen::VectorXd{{0.5, 1.5}}) ==
          "options_within_budget: survival probability p(1) must lie in (0, 1], got 1.5");
}

}  // namespace
