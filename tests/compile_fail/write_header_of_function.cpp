// EXPECT: a header cannot hold this layer
// SPDX-License-Identifier: MIT
// A lambda doesn't say how it is written.
#include <stochastic_depth/export/header.hpp>

#include <stochastic_depth/layers/function.hpp>

namespace sd = stochastic_depth;

std::string run() {
    const sd::Sequential network{sd::function<float>([](const auto& x) { return 2 * x; })};
    return sd::header_text(network, sd::SurvivalMask::all(0), {.inputs = 3});
}
