// EXPECT: error: .*inverted scaling multiplies the branch of a residual layer, and this skippable layer has none
// SPDX-License-Identifier: MIT
#include <stochastic_depth/inverted_scaling.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>

namespace sd = stochastic_depth;

auto convert(const sd::Sequential<sd::StochasticDepth<sd::Linear<double>>>& network) {
    return sd::without_inverted_scaling(network);
}
