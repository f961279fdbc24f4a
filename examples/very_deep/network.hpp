// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/schedules.hpp>

#include "../common/data.hpp"

namespace very_deep {

namespace sd = stochastic_depth;

/// F(x) = W_2 relu(W_1 x + b_1) + b_2.
using Branch = sd::Sequential<sd::Linear<float>, sd::ReLU<float>, sd::Linear<float>>;

/// x + F(x), skipped at random.
using Block = sd::StochasticDepth<sd::Residual<Branch>>;

/// Logits, [10 x batch], from images, [pixels x batch].
using Network =
    sd::Sequential<sd::Linear<float>, sd::Stack<Block>, sd::ReLU<float>, sd::Linear<float>>;

/// Where the blocks stand in a Network.
inline constexpr std::size_t blocks_at = 1;

/// A network that begins as the identity behind its first layer: W_2 and the output layer are 0, so
/// that no depth makes activations or gradients grow, and no normalisation is needed. W_1 has
/// standard deviation sqrt(2 / width) blocks^(-1/4): a block's first updates are scaled down with
/// the depth.
///
/// \param final_survival  p_L of the linear decay; 1: no stochastic depth.
/// \source Zhang et al. 2019, Fixup Initialization, with the exponent of three layers for two
///         (that of two, -1/2, trained 1,000 blocks more slowly here).
[[nodiscard]] inline Network make_network(sd::Index pixels, sd::Index blocks, sd::Index width,
                                          double final_survival, std::uint64_t seed) {
    sd::Philox random{seed};
    const sd::Linear<float> stem{pixels, width, random, 1.0};
    const Eigen::VectorXd p = sd::linear_decay(blocks, final_survival);
    const double gain = std::numbers::sqrt2 * std::pow(static_cast<double>(blocks), -0.25);
    std::vector<Block> stack;
    for (sd::Index l = 0; l < blocks; ++l) {
        const sd::Linear<float> first{width, width, random, gain};
        const sd::Linear<float> second{width, width, random, 0.0};
        stack.emplace_back(sd::Residual{Branch{first, sd::ReLU<float>{}, second}},
                           sd::SurvivalProbability{p(l)});
    }
    const sd::Linear<float> head{width, common::classes, random, 0.0};
    return Network{stem, sd::Stack<Block>{stack}, sd::ReLU<float>{}, head};
}

}  // namespace very_deep
