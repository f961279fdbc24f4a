// EXPECT: error: .*what stands in for a skipped layer cannot be skipped itself
// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

namespace sd = stochastic_depth;
using Skippable = sd::StochasticDepth<sd::Linear<double>>;

auto make(const sd::Linear<double>& branch, const Skippable& shortcut) {
    return sd::StochasticDepth{sd::Residual{branch, shortcut}, sd::SurvivalProbability{0.5}};
}
