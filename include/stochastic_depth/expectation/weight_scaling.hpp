// SPDX-License-Identifier: MIT
#pragma once

#include <limits>

#include <stochastic_depth/expectation/expectation_result.hpp>
#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

namespace stochastic_depth {
namespace detail {

/// Epilogue: x + p (value - x).
template <class Scalar>
struct Mix {
    const Scalar* x;
    Index x_stride;
    Scalar p;

    template <class P>
    EIGEN_ALWAYS_INLINE P operator()(P value, Index i, Index j) const {
        const P skipped = P::load(x + i + j * x_stride);
        return multiply_add(P::broadcast(p), value - skipped, skipped);
    }
};

/// Sends activations through a network in which every skippable layer is replaced by its mean.
template <class Scalar>
class ScaledPass {
public:
    explicit ScaledPass(Activations<Scalar>& activations) : activations_(activations) {}

    template <class Layer>
    void run(const Layer& layer) {
        activations_.run(layer);
    }

    template <class... Layers>
    void run(const Sequential<Layers...>& network) {
        if constexpr (has_skippable_layers<Sequential<Layers...>>)
            std::apply([&](const auto&... layer) { (run(layer), ...); }, network.layers());
        else
            activations_.run(network);
    }

    template <class Layer>
    void run(const Stack<Layer>& stack) {
        for (const Layer& layer : stack.layers()) run(layer);
    }

    template <class Branch, class Shortcut>
    void run(const Residual<Branch, Shortcut>& layer) {
        if constexpr (!has_skippable_layers<Residual<Branch, Shortcut>>)
            activations_.run(layer);
        else
            activations_.replace(layer.output_size(activations_.current().rows()),
                                 [&](const auto& from, auto to) {
                                     to = scaled(layer.shortcut(), from);
                                     to += scaled(layer.branch(), from);
                                 });
    }

    template <class Layer>
    void run(const StochasticDepth<Layer>& node) {
        const double p = node.survival_probability().value();
        if (p == 1.0) return run(node.layer());
        activations_.replace(
            node.output_size(activations_.current().rows()),
            [&](const auto& from, auto to) { mix(node, static_cast<Scalar>(p), from, to); });
    }

private:
    /// to = p layer(from) + (1 - p) shortcut(from).
    template <class Layer, class From, class To>
    void mix(const StochasticDepth<Layer>& node, Scalar p, const From& from, To& to) const {
        if constexpr (StochasticDepth<Layer>::skips_to_identity && !has_skippable_layers<Layer>) {
            if constexpr (IdentityResidual<Layer>::value)
                node.layer().forward_scaled(from, to, p, Keep{});
            else
                forward_fused(node.layer(), from, to,
                              Mix<Scalar>{from.data(), from.outerStride(), p});
        } else {
            forward_fused(node.shortcut(), from, to, Keep{});
            to = p * scaled(node.layer(), from) + (Scalar(1) - p) * to;
        }
    }

    template <class Layer, class From>
    [[nodiscard]] static Matrix<Scalar> scaled(const Layer& layer, const From& from) {
        Activations<Scalar> activations(from, widest(layer, from.rows()));
        ScaledPass(activations).run(layer);
        return activations.current();
    }

    Activations<Scalar>& activations_;
};

}  // namespace detail

/// The usual test-time rule: one pass in which each skippable layer is replaced by its mean given
/// its input, shortcut(x) + p branch(x) for a residual layer, p layer(x) + (1 - p) x for any other.
///
/// Exact only where every layer after a skippable one is affine; elsewhere its distance from f_SD
/// is the weight-scaling gap (`weight_scaling_gap`). It knows neither variance nor error: both are
/// NaN.
///
/// \source Huang et al. 2016, Deep Networks with Stochastic Depth, Eq. (5).
class WeightScaling {
public:
    /// \param network  L skippable layers.
    /// \param x        Inputs, [features x batch].
    /// \throws std::invalid_argument  if the network cannot take x.
    /// \complexity     L layer evaluations for each column.
    template <MaskedNetwork Network>
    [[nodiscard]] ExpectationResult<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) const {
        using Scalar = typename Network::Scalar;
        const Index outputs = network.output_size(x.rows());
        detail::Activations<Scalar> activations(x, detail::widest(network, x.rows()));
        detail::ScaledPass<Scalar>(activations).run(network);
        ExpectationResult<Scalar> result;
        result.method = ExpectationMethod::weight_scaling;
        result.mean.resize(outputs, x.cols());
        detail::copy_columns(activations.current(), result.mean);
        result.variance.setConstant(outputs, x.cols(), std::numeric_limits<Scalar>::quiet_NaN());
        result.standard_error = result.variance;
        result.layer_evaluations = static_cast<double>(network.depth());
        return result;
    }
};

}  // namespace stochastic_depth
