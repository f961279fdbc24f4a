// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/schedules.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

/// The network of the benchmarks: h = h + s_l relu(W_l h + b_l) for each layer l, linear decay to
/// 0.5. Width is known at compile time, or Eigen::Dynamic.
template <class Scalar, int Width = Eigen::Dynamic>
using Dense = stochastic_depth::Linear<Scalar, Width, Width>;

template <class Scalar, int Width = Eigen::Dynamic>
using ResidualBlock = stochastic_depth::Residual<
    stochastic_depth::Sequential<Dense<Scalar, Width>, stochastic_depth::ReLU<Scalar>>>;

template <class Scalar, int Width = Eigen::Dynamic>
using ResidualNetwork =
    stochastic_depth::Stack<stochastic_depth::StochasticDepth<ResidualBlock<Scalar, Width>>>;

/// A layer that keeps activations in range through as many blocks as a benchmark has.
template <class Scalar, int Width = Eigen::Dynamic>
[[nodiscard]] Dense<Scalar, Width> dense_layer(Eigen::Index width,
                                               stochastic_depth::Philox& random) {
    using Vector = stochastic_depth::Vector<Scalar>;
    const Dense<Scalar, Width> unbiased{width, width, random, 0.5};
    return {unbiased.weights(), Vector::LinSpaced(width, Scalar(-0.1F), Scalar(0.1F))};
}

template <class Scalar, int Width = Eigen::Dynamic>
[[nodiscard]] std::vector<Dense<Scalar, Width>> dense_layers(Eigen::Index depth,
                                                             Eigen::Index width) {
    stochastic_depth::Philox random{2026};
    std::vector<Dense<Scalar, Width>> layers;
    for (Eigen::Index l = 0; l < depth; ++l)
        layers.push_back(dense_layer<Scalar, Width>(width, random));
    return layers;
}

template <class Scalar, int Width = Eigen::Dynamic>
[[nodiscard]] ResidualBlock<Scalar, Width> residual_block(const Dense<Scalar, Width>& layer) {
    return ResidualBlock<Scalar, Width>{
        stochastic_depth::Sequential{layer, stochastic_depth::ReLU<Scalar>{}}};
}

template <class Scalar, int Width>
[[nodiscard]] ResidualNetwork<Scalar, Width> residual_network(
    const std::vector<Dense<Scalar, Width>>& layers) {
    const auto depth = static_cast<Eigen::Index>(layers.size());
    const Eigen::VectorXd p = stochastic_depth::linear_decay(depth, 0.5);
    std::vector<stochastic_depth::StochasticDepth<ResidualBlock<Scalar, Width>>> blocks;
    for (Eigen::Index l = 0; l < depth; ++l)
        blocks.emplace_back(residual_block(layers[static_cast<std::size_t>(l)]),
                            stochastic_depth::SurvivalProbability{p(l)});
    return ResidualNetwork<Scalar, Width>{std::move(blocks)};
}

/// y = x + scale relu(W x + b), column by column in plain loops; scale(j) is asked for each column
/// j. y may be x itself.
template <class Layer, class Matrix, class Scale>
void plain_block(const Layer& layer, const Matrix& x, Matrix& y, const Scale& scale) {
    using Scalar = typename Layer::Scalar;
    const Eigen::Index inputs = layer.inputs(), outputs = layer.outputs();
    std::vector<Scalar> sum(static_cast<std::size_t>(outputs));
    for (Eigen::Index j = 0; j < x.cols(); ++j) {
        const Scalar* const input = x.data() + j * inputs;
        Scalar* const output = y.data() + j * outputs;
        std::copy_n(layer.bias().data(), outputs, sum.data());
        for (Eigen::Index k = 0; k < inputs; ++k) {
            const Scalar* const weights = layer.weights().data() + k * outputs;
            const Scalar entry = input[k];
            for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += weights[i] * entry;
        }
        const Scalar s = scale(j);
        for (std::size_t i = 0; i < sum.size(); ++i)
            output[i] = input[i] + s * std::max(sum[i], Scalar(0));
    }
}
