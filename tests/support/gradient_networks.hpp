// SPDX-License-Identifier: MIT
#pragma once

#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/layers.hpp"

/// A small network whose stochastic gradients can be enumerated.
namespace stochastic_depth::test {

using Block = StochasticDepth<Residual<Sequential<Linear<double>, Tanh<double>>>>;
using Network = Sequential<Linear<double>, Stack<Block>, Linear<double>>;

/// 3 inputs, layers of width 4 with the given p, 2 outputs.
[[nodiscard]] inline Network network(Philox& random, const Eigen::VectorXd& p) {
    std::vector<Block> blocks;
    for (Index l = 0; l < p.size(); ++l)
        blocks.emplace_back(Residual{Sequential{linear<double>(random, 4, 4), Tanh<double>{}}},
                            SurvivalProbability{p(l)});
    return Network{linear<double>(random, 3, 4), Stack<Block>{std::move(blocks)},
                   linear<double>(random, 4, 2)};
}

[[nodiscard]] inline Eigen::VectorXi random_labels(Philox& random, Index count, int classes) {
    Eigen::VectorXi labels(count);
    for (Index j = 0; j < count; ++j)
        labels(j) = static_cast<int>(random() % static_cast<unsigned>(classes));
    return labels;
}

}  // namespace stochastic_depth::test
