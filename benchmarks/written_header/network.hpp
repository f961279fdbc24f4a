// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/silu.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

/// Eight skippable blocks x + W' silu(W x + b) + b' of a width, always the same.
[[nodiscard]] inline auto network_of_width(stochastic_depth::Index width) {
    namespace sd = stochastic_depth;
    sd::Philox random{1};
    using Branch = sd::Sequential<sd::Linear<float>, sd::SiLU<float>, sd::Linear<float>>;
    std::vector<sd::StochasticDepth<sd::Residual<Branch>>> blocks;
    for (int l = 0; l < 8; ++l)
        blocks.emplace_back(sd::Residual{Branch{sd::Linear<float>{width, width, random},
                                                {},
                                                sd::Linear<float>{width, width, random, 0.1}}},
                            sd::SurvivalProbability{0.5});
    return sd::Stack{std::move(blocks)};
}
