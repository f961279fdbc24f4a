// SPDX-License-Identifier: MIT
#include <stochastic_depth/core.hpp>

#include <cstdio>
#include <vector>
namespace sd = stochastic_depth;

int main() {
    sd::Philox random{2026};
    const auto p = sd::linear_decay(8, 0.5);  // survival probabilities: 0.9375 down to 0.5
    using Branch = sd::Sequential<sd::Linear<float>, sd::ReLU<float>>;
    using Layer = sd::StochasticDepth<sd::Residual<Branch>>;  // x + relu(W x + b), or x if skipped
    std::vector<Layer> layers;
    for (const double p_l : p) {
        const Branch branch{sd::Linear<float>{16, 16, random, 0.5}, sd::ReLU<float>{}};
        layers.emplace_back(sd::Residual{branch}, sd::SurvivalProbability{p_l});
    }
    const sd::Sequential network{sd::Stack{layers}, sd::Linear<float>{16, 1, random}};
    const sd::Matrix<float> x = sd::Matrix<float>::Ones(16, 1);  // [features x batch]
    const sd::SurvivalMask mask = sd::MaskSampler{p, 42}.sample(0);  // seed 42, step 0
    std::printf("mask %s: %.4g\n", to_string(mask).c_str(), network(x, mask)(0, 0));

    const auto exact = sd::ExactExpectation{}(network, x);  // over all 2^8 masks
    std::printf("exact: %.4g, variance %.4g\n", exact.mean(0, 0), exact.variance(0, 0));
    std::printf("weight scaling: %.4g\n", sd::WeightScaling{}(network, x).mean(0, 0));
    const auto sampled = sd::MonteCarloExpectation{{.samples = 1000}}(network, x);
    std::printf("Monte Carlo: %.4g +- %.4g\n", sampled.mean(0, 0), sampled.standard_error(0, 0));
}
