// SPDX-License-Identifier: MIT
// What two programs agree on: the network's type and sizes. The file holds its numbers, and checks
// the rest.
#pragma once

#include <stochastic_depth/all.hpp>
#include <stochastic_depth/training/checkpoint.hpp>

#include <vector>

[[nodiscard]] inline auto make_network(std::uint32_t seed) {
    namespace sd = stochastic_depth;
    sd::Philox random{seed};
    using Branch = sd::Sequential<sd::Linear<float>, sd::Tanh<float>>;
    using Layer = sd::StochasticDepth<sd::Residual<Branch>>;
    std::vector<Layer> layers;
    for (const double p : sd::linear_decay(6, 0.5))
        layers.emplace_back(sd::Residual{Branch{sd::Linear<float>{8, 8, random}, {}}},
                            sd::SurvivalProbability{p});
    return sd::Sequential{sd::Linear<float>{3, 8, random}, sd::Stack{layers},
                          sd::Linear<float>{8, 1, random}};
}
