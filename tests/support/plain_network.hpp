// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

/// Random residual networks as plain numbers, what they compute in plain loops of long double, and
/// the same networks as the library's types. Nothing of the library takes part in the plain
/// answers.
namespace plain {

using stochastic_depth::Index;

/// W x + b; the weights row by row.
struct Affine {
    std::size_t outputs, inputs;
    std::vector<double> weights, bias;

    std::vector<long double> operator()(const std::vector<long double>& x) const {
        std::vector<long double> y(outputs);
        for (std::size_t i = 0; i < outputs; ++i) {
            long double sum = bias[i];
            for (std::size_t k = 0; k < inputs; ++k)
                sum += static_cast<long double>(weights[i * inputs + k]) * x[k];
            y[i] = sum;
        }
        return y;
    }
};

enum class Activation { relu, tanh };

/// x + activation(W x + b), or x + V activation(W x + b) + c.
struct Block {
    double p;
    Activation activation;
    Affine first;
    std::optional<Affine> second;

    std::vector<long double> operator()(const std::vector<long double>& x) const {
        std::vector<long double> y = first(x);
        for (long double& z : y)
            z = activation == Activation::tanh ? std::tanh(z) : (z > 0 ? z : 0.0L);
        if (second) y = (*second)(y);
        for (std::size_t i = 0; i < x.size(); ++i) y[i] += x[i];
        return y;
    }
};

struct Moments {
    std::vector<long double> mean, variance;
};

/// Stem and head stand at both ends or at neither.
struct Network {
    std::optional<Affine> stem, head;
    std::vector<Block> blocks;

    /// Bit l of `mask` is s_l.
    std::vector<long double> operator()(std::vector<long double> x, std::uint64_t mask) const {
        if (stem) x = (*stem)(x);
        for (std::size_t l = 0; l < blocks.size(); ++l)
            if ((mask >> l & 1u) != 0) x = blocks[l](x);
        return head ? (*head)(x) : x;
    }

    long double probability(std::uint64_t mask) const {
        long double product = 1;
        for (std::size_t l = 0; l < blocks.size(); ++l) {
            const long double p = blocks[l].p;
            product *= (mask >> l & 1u) != 0 ? p : 1 - p;
        }
        return product;
    }

    /// Mean and variance over all masks, each evaluated from the start; `output(y)` is what is
    /// averaged.
    template <class Output>
    Moments moments(const std::vector<long double>& x, const Output& output) const {
        std::vector<std::vector<long double>> y;
        Moments result;
        for (std::uint64_t mask = 0; mask < std::uint64_t{1} << blocks.size(); ++mask) {
            y.push_back(output((*this)(x, mask)));
            result.mean.resize(y.back().size());
            for (std::size_t i = 0; i < y.back().size(); ++i)
                result.mean[i] += probability(mask) * y.back()[i];
        }
        result.variance.resize(result.mean.size());
        for (std::uint64_t mask = 0; mask < y.size(); ++mask)
            for (std::size_t i = 0; i < result.mean.size(); ++i) {
                const long double deviation = y[mask][i] - result.mean[i];
                result.variance[i] += probability(mask) * deviation * deviation;
            }
        return result;
    }
};

struct Shape {
    std::size_t depth = 0;
    std::size_t width = 1;
    /// 1 or 2 for each branch.
    int linears = 1;
    Activation activation = Activation::relu;
    /// With a stem of 3 inputs and a head of 2 outputs.
    bool ends = false;
};

inline Affine random_affine(stochastic_depth::Philox& random, std::size_t outputs,
                            std::size_t inputs, double gain) {
    using stochastic_depth::uniform;
    const double limit = gain * std::sqrt(3.0 / static_cast<double>(inputs));
    Affine affine{outputs, inputs, {}, {}};
    for (std::size_t i = 0; i < outputs * inputs; ++i)
        affine.weights.push_back(uniform<double>(random, -limit, limit));
    for (std::size_t i = 0; i < outputs; ++i)
        affine.bias.push_back(uniform<double>(random, -0.3, 0.3));
    return affine;
}

inline Network random_network(stochastic_depth::Philox& random, const Shape& shape) {
    Network network;
    if (shape.ends) network.stem = random_affine(random, shape.width, 3, 1.0);
    for (std::size_t l = 0; l < shape.depth; ++l) {
        Block block{stochastic_depth::uniform<double>(random, 0.05, 1.0), shape.activation,
                    random_affine(random, shape.width, shape.width, 1.0), std::nullopt};
        if (shape.linears == 2) block.second = random_affine(random, shape.width, shape.width, 1.0);
        network.blocks.push_back(block);
    }
    if (shape.ends) network.head = random_affine(random, 2, shape.width, 1.0);
    return network;
}

template <class Scalar>
std::vector<long double> column(const stochastic_depth::Matrix<Scalar>& x, Index j) {
    return {x.col(j).begin(), x.col(j).end()};
}

/// The same weights, rounded once if Scalar is float.
template <class Scalar>
stochastic_depth::Linear<Scalar> to_linear(const Affine& affine) {
    using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const auto outputs = static_cast<Index>(affine.outputs),
               inputs = static_cast<Index>(affine.inputs);
    const Eigen::MatrixXd weights =
        Eigen::Map<const RowMajor>(affine.weights.data(), outputs, inputs);
    const Eigen::VectorXd bias = Eigen::Map<const Eigen::VectorXd>(affine.bias.data(), outputs);
    return {stochastic_depth::Matrix<Scalar>(weights.cast<Scalar>()),
            stochastic_depth::Vector<Scalar>(bias.cast<Scalar>())};
}

template <class Scalar, class Activation_>
using OneLinear = stochastic_depth::Sequential<stochastic_depth::Linear<Scalar>, Activation_>;
template <class Scalar, class Activation_>
using TwoLinears = stochastic_depth::Sequential<stochastic_depth::Linear<Scalar>, Activation_,
                                                stochastic_depth::Linear<Scalar>>;
template <class Branch>
using Blocks =
    stochastic_depth::Stack<stochastic_depth::StochasticDepth<stochastic_depth::Residual<Branch>>>;

/// Branch is OneLinear or TwoLinears, as the network has it.
template <class Branch>
Blocks<Branch> to_blocks(const Network& network) {
    using Scalar = typename Branch::Scalar;
    using stochastic_depth::Residual;
    using stochastic_depth::SurvivalProbability;
    std::vector<stochastic_depth::StochasticDepth<Residual<Branch>>> blocks;
    for (const Block& block : network.blocks) {
        if constexpr (std::tuple_size_v<std::remove_cvref_t<decltype(std::declval<Branch>().layers())>> == 2)
            blocks.emplace_back(Residual{Branch{to_linear<Scalar>(block.first), {}}},
                                SurvivalProbability{block.p});
        else
            blocks.emplace_back(
                Residual{
                    Branch{to_linear<Scalar>(block.first), {}, to_linear<Scalar>(*block.second)}},
                SurvivalProbability{block.p});
    }
    return Blocks<Branch>{std::move(blocks)};
}

template <class Branch>
auto to_library(const Network& network) {
    using Scalar = typename Branch::Scalar;
    return stochastic_depth::Sequential{to_linear<Scalar>(*network.stem),
                                        to_blocks<Branch>(network),
                                        to_linear<Scalar>(*network.head)};
}

}  // namespace plain
