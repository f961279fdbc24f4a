// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <utility>

#include <stochastic_depth/pass/parts.hpp>
#include <stochastic_depth/types.hpp>

/// What a type must have to be a layer, a trainable layer, a network: docs/extending.md has an
/// example of each.
namespace stochastic_depth {

/// A map of columns: y = layer(x).
///
/// Beyond the syntax: `forward` is pure and may run in many threads at once; column j of y depends
/// on column j of x alone; `forward` accepts 0 columns; `output_size` throws std::invalid_argument
/// for an input size that the layer cannot take.
///
/// Models: every layer of the library; a user's type that has the three members. The smallest one:
///
///     struct Doubling {
///         using Scalar = double;
///         Index output_size(Index input_size) const { return input_size; }
///         void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const { y = 2.0 * x; }
///     };
template <class Layer>
concept ForwardLayer = std::copy_constructible<Layer> &&
    requires(const Layer& layer, Index input_size, const ConstMatrixRef<typename Layer::Scalar>& x,
             MatrixRef<typename Layer::Scalar> y) {
        { layer.output_size(input_size) } -> std::convertible_to<Index>;
        layer.forward(x, y);
    };

/// A layer that maps each entry by itself: y(i, j) = value(x(i, j)).
///
/// Such a layer is fused into the matrix product that precedes it. It may also offer
/// `template <class Packet> Packet packet(const Packet& z) const`, the same function on an Eigen
/// packet; without it, `value` is applied lane by lane.
///
/// Models: ReLU, Tanh, GELU, ElementwiseFunction.
template <class Layer>
concept ElementwiseLayer =
    ForwardLayer<Layer> && requires(const Layer& layer, typename Layer::Scalar z) {
        { layer.value(z) } -> std::convertible_to<typename Layer::Scalar>;
    };

/// A layer that gradients pass through.
///
/// Beyond the syntax: `forward(x, y, cache)` computes what `forward(x, y)` computes and leaves in
/// the cache what `backward` needs; `backward(x, dy, cache, gradient, dx)` gets the same x, adds
/// the parameters' gradient into `gradient`, and overwrites dx [inputs x batch]. It reads the cache
/// only: calling it twice gives the same dx. `zero_gradient` is a gradient of the right shape, all
/// zero.
///
/// A layer whose Gradient holds something names its parameters, so that they are trained and saved:
///
///     template <class Self, class Visit, class... Gradients>
///     static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
///         visit("gain", self.gain_, gradients.gain...);
///     }
///
/// Each is a matrix, or a vector, of Scalar.
///
/// Models: every layer of the library.
template <class Layer>
concept DifferentiableLayer = ForwardLayer<Layer> && detail::parts_are_differentiable<Layer> &&
    requires(const Layer& layer, const ConstMatrixRef<typename Layer::Scalar>& x,
             MatrixRef<typename Layer::Scalar> y, typename Layer::Cache& cache,
             typename Layer::Gradient& gradient) {
        requires std::default_initializable<typename Layer::Cache>;
        requires std::default_initializable<typename Layer::Gradient>;
        { layer.zero_gradient() } -> std::same_as<typename Layer::Gradient>;
        layer.forward(x, y, cache);
        layer.backward(x, x, std::as_const(cache), gradient, y);
    } && detail::gradient_is_empty_or_visit_parameters_names_it<Layer>;

/// A network with skippable layers.
///
/// Beyond the syntax: `depth()` is the number L of skippable layers and the length of a mask;
/// `survival_probabilities()` lists p_l in order of depth; `network(x, mask)` is NN(x, S).
///
/// Models: Sequential, Stack, Residual and StochasticDepth, nested in any way, and composites of
/// the user's own, which derive from LayerBase and take part in passes themselves. A type that only
/// says how deep it is is none: it could not be run under a mask.
template <class Network>
concept MaskedNetwork =
    ForwardLayer<Network> && detail::RunsItself<Network> && requires(const Network& network) {
    { network.depth() } -> std::same_as<Index>;
    { network.survival_probabilities() } -> std::same_as<Eigen::VectorXd>;
};

namespace detail {

template <class Layer>
struct IsDifferentiable {
    static constexpr bool value = DifferentiableLayer<Layer>;
};

}  // namespace detail
}  // namespace stochastic_depth
