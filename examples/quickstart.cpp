// SPDX-License-Identifier: MIT
#include <stochastic_depth/all.hpp>

#include <iostream>
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
    std::cout.precision(4);
    const sd::SurvivalMask mask = sd::MaskSampler{p, 42}.sample(0);  // seed 42, step 0
    std::cout << "mask " << to_string(mask) << ": " << network(x, mask) << '\n';

    const auto exact = sd::ExactExpectation{}(network, x);  // over all 2^8 masks
    std::cout << "exact: " << exact.mean << ", deviation " << exact.variance.cwiseSqrt() << '\n';
    std::cout << "weight scaling: " << sd::WeightScaling{}(network, x).mean << '\n';
    const auto sampled = sd::MonteCarloExpectation{{.samples = 1000}}(network, x);
    std::cout << "Monte Carlo: " << sampled.mean << " +- " << sampled.standard_error << '\n';
}
