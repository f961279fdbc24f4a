// SPDX-License-Identifier: MIT
//
// Do 95 % intervals of sampled expectations hold the exact mean in 95 % of all cases? For each
// estimator, four sets of survival probabilities and several numbers of masks, prints over many
// replications
//     the share of intervals that hold the exact mean, for each of two outputs,
//     (vr: variance of as many plain samples / variance of the estimator).
// The network has 8 layers of width 4 and tanh, so that the exact mean costs nothing.
//
// usage: coverage_table [replications 20000]
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <stochastic_depth/expectation/confidence_interval.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

namespace {

using namespace stochastic_depth;

auto network_with(const std::vector<double>& p) {
    Philox random{7};
    const Linear<double> stem{3, 4, random, 1.0};
    std::vector<StochasticDepth<Residual<Sequential<Linear<double>, Tanh<double>>>>> blocks;
    for (const double p_l : p)
        blocks.emplace_back(Residual{Sequential{Linear<double>{4, 4, random, 1.0}, Tanh<double>{}}},
                            SurvivalProbability{p_l});
    return Sequential{stem, Stack{blocks}, Linear<double>{4, 2, random, 1.0}};
}

struct Estimator {
    const char* name;
    MonteCarloExpectationOptions options;
};

std::vector<Estimator> estimators() {
    using Design = MaskDesign;
    constexpr auto bits = ControlVariates::mask_bits;
    return {
        {"independent", {}},
        {"independent, regression", {.control_variates = bits}},
        {"antithetic", {.design = Design::antithetic}},
        {"antithetic, regression", {.design = Design::antithetic, .control_variates = bits}},
        {"stratified", {.design = Design::stratified}},
        {"stratified, regression", {.design = Design::stratified, .control_variates = bits}},
        {"stratified, 5 groups", {.design = Design::stratified, .groups = 5}},
        {"stratified, 10 groups", {.design = Design::stratified, .groups = 10}},
        {"lattice, 1 group", {.design = Design::lattice, .groups = 1}},
        {"lattice, 5 groups", {.design = Design::lattice}},
        {"lattice, 5 groups, regression", {.design = Design::lattice, .control_variates = bits}},
        {"lattice, 10 groups, regression",
         {.design = Design::lattice, .groups = 10, .control_variates = bits}},
        {"independent, 3 enumerated", {.enumerated_layers = 3}}};
}

}  // namespace

int main(int argc, char** argv) {
    const int replications = argc > 1 ? std::stoi(argv[1]) : 20'000;
    const struct {
        const char* name;
        std::vector<double> p;
    } sets[] = {
        {"decay: p = 0.94 ... 0.5", {0.94, 0.88, 0.81, 0.75, 0.69, 0.63, 0.56, 0.5}},
        {"half: p = 0.5", std::vector<double>(8, 0.5)},
        {"skewed: 3 x 0.99, 3 x 0.01, 2 x 0.5", {0.99, 0.01, 0.99, 0.01, 0.5, 0.5, 0.99, 0.01}},
        {"rare: 6 x 0.99, 2 x 0.01", {0.99, 0.99, 0.99, 0.99, 0.01, 0.01, 0.99, 0.99}}};
    const Eigen::MatrixXd x{{0.3}, {-0.7}, {0.5}};
    for (const auto& set : sets) {
        const auto network = network_with(set.p);
        const auto exact = ExactExpectation{}(network, x);
        std::printf("\n%s; %d replications\n%-32s", set.name, replications, "masks");
        for (const int samples : {20, 50, 100, 400}) std::printf("%25d", samples);
        for (Estimator row : estimators()) {
            std::printf("\n%-32s", row.name);
            for (const Index samples : {20, 50, 100, 400}) {
                row.options.samples = samples;
                double held[2] = {0, 0}, square = 0;
                for (int seed = 0; seed < replications; ++seed) {
                    row.options.seed = static_cast<std::uint64_t>(seed);
                    const auto sampled = MonteCarloExpectation{row.options}(network, x);
                    const auto interval = confidence_interval(sampled, 0.95);
                    for (Index i = 0; i < 2; ++i)
                        if (interval.lower(i, 0) <= exact.mean(i, 0) &&
                            exact.mean(i, 0) <= interval.upper(i, 0))
                            held[i] += 100.0 / replications;
                    square += (sampled.mean - exact.mean).squaredNorm() / replications;
                }
                std::printf("  %6.2f %6.2f (%7.2f)", held[0], held[1],
                            exact.variance.sum() / static_cast<double>(samples) / square);
                std::fflush(stdout);
            }
        }
        std::printf("\n");
    }
}
