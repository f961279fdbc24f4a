// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/confidence_interval.hpp>
#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>

#include <cstdint>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>

#include "support/catch.hpp"
#include "support/plain_network.hpp"

namespace {

using namespace stochastic_depth;

const std::vector<double> decay{0.94, 0.88, 0.81, 0.75, 0.69, 0.63, 0.56, 0.5};
const std::vector<double> half(8, 0.5);
const std::vector<double> skewed{0.99, 0.01, 0.99, 0.01, 0.5, 0.5, 0.99, 0.01};

/// Shares of `replications` intervals that hold the exact mean, for both outputs of a network.
Eigen::Array2d coverage(const std::vector<double>& p, MonteCarloExpectationOptions options,
                        int replications) {
    Philox random{7};
    auto plain_network =
        plain::random_network(random, {p.size(), 4, 1, plain::Activation::tanh, true});
    for (std::size_t l = 0; l < p.size(); ++l) plain_network.blocks[l].p = p[l];
    const auto network = plain::to_library<plain::OneLinear<double, Tanh<double>>>(plain_network);
    const Eigen::MatrixXd x{{0.3}, {-0.7}, {0.5}};
    const Eigen::ArrayXXd exact = ExactExpectation{}(network, x).mean;
    Eigen::Array2d held = Eigen::Array2d::Zero();
    for (int seed = 0; seed < replications; ++seed) {
        options.seed = static_cast<std::uint64_t>(seed);
        const auto interval = confidence_interval(MonteCarloExpectation{options}(network, x), 0.95);
        for (Index i = 0; i < 2; ++i)
            held(i) +=
                interval.lower(i, 0) <= exact(i, 0) && exact(i, 0) <= interval.upper(i, 0) ? 1 : 0;
    }
    return held / replications;
}

TEST_CASE(
    "confidence_interval: 95 % intervals hold the exact mean in 94.25 to 95.75 % of 20000 replications",
    "[monte_carlo_coverage][slow]") {
    constexpr auto bits = ControlVariates::mask_bits;
    const struct {
        const char* name;
        const std::vector<double>& p;
        MonteCarloExpectationOptions options;
    } cases[] = {
        {"independent, decay, 20", decay, {.samples = 20}},
        {"independent, half, 20", half, {.samples = 20}},
        {"independent, skewed, 20", skewed, {.samples = 20}},
        {"independent and regression, decay, 100",
         decay,
         {.samples = 100, .control_variates = bits}},
        {"independent and regression, skewed, 100",
         skewed,
         {.samples = 100, .control_variates = bits}},
        {"antithetic, decay, 20", decay, {.samples = 20, .design = MaskDesign::antithetic}},
        {"antithetic and regression, half, 50",
         half,
         {.samples = 50, .design = MaskDesign::antithetic, .control_variates = bits}},
        {"stratified, half, 20", half, {.samples = 20, .design = MaskDesign::stratified}},
        {"stratified, decay, 100", decay, {.samples = 100, .design = MaskDesign::stratified}},
        {"stratified in 10 groups, decay, 50",
         decay,
         {.samples = 50, .design = MaskDesign::stratified, .groups = 10}},
        {"stratified in 10 groups, skewed, 50",
         skewed,
         {.samples = 50, .design = MaskDesign::stratified, .groups = 10}},
        {"lattice, decay, 50", decay, {.samples = 50, .design = MaskDesign::lattice}},
        {"lattice and regression, decay, 100",
         decay,
         {.samples = 100, .design = MaskDesign::lattice, .control_variates = bits}},
        {"independent with 3 layers enumerated, decay, 20",
         decay,
         {.samples = 20, .enumerated_layers = 3}},
    };
    // If the coverage is 95 %, a share of 20000 leaves this range once in 2e6; where it is off by
    // 0.3 %, once in 500.
    for (const auto& row : cases) {
        const Eigen::Array2d share = coverage(row.p, row.options, 20'000);
        INFO(row.name << ": " << 100 * share(0) << " %, " << 100 * share(1) << " %");
        CHECK((share >= 0.9425).all());
        CHECK((share <= 0.9575).all());
    }
}

TEST_CASE(
    "confidence_interval: a careful standard error holds the mean more often, a sample without the rare "
    "layers less often",
    "[monte_carlo_coverage]") {
    // A single lattice is better than its residuals tell.
    CHECK((coverage(decay, {.samples = 100, .design = MaskDesign::lattice, .groups = 1}, 2000) >=
           0.99)
              .all());
    // With p of 0.99 and 0.01 alone, 20 masks of 8 layers are all alike in 1 of 5 samples: they see
    // no variance.
    const std::vector<double> rare{0.99, 0.99, 0.99, 0.99, 0.01, 0.01, 0.99, 0.99};
    const Eigen::Array2d few = coverage(rare, {.samples = 20}, 2000);
    CHECK((few >= 0.6).all());
    CHECK((few <= 0.8).all());
}

}  // namespace
