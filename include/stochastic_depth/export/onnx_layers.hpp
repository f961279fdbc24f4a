// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <numbers>
#include <string>
#include <vector>

#include <stochastic_depth/export/onnx_graph.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/dropout.hpp>
#include <stochastic_depth/layers/elementwise/elementwise.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/gelu_tanh.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/silu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/normalisation/layer_norm.hpp>
#include <stochastic_depth/layers/normalisation/rms_norm.hpp>
#include <stochastic_depth/layers/probability/entropy.hpp>
#include <stochastic_depth/layers/probability/log_softmax.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/pass/affine_in_use.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>
#include <stochastic_depth/types.hpp>

/// What the layers of columns are in ONNX.
namespace stochastic_depth::detail {

/// y = W x + b. W as it lies in memory is the matrix that rows are multiplied by.
/// \param b  Null: none.
template <class Weights, class Bias>
[[nodiscard]] std::string onnx_product(OnnxGraph& graph, const std::string& x, const char* weights,
                                       const Weights& w, const char* bias, const Bias* b) {
    const TensorForm form{weights, {w.cols(), w.rows()}, {w.rows(), 1}};
    const std::string product = graph.node("MatMul", {x, graph.parameter(form, w.data())});
    return b ? graph.node("Add", {product, graph.parameter(bias, *b)}) : product;
}

template <class Scalar, int Inputs, int Outputs>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const Linear<Scalar, Inputs, Outputs>& layer,
                                   const OnnxValue& x, const OnnxMask&) {
    const OnnxValue rows = graph.features(x);
    return rows.renamed(
        onnx_product(graph, rows.name, "weight", layer.weights(), "bias", &layer.bias()),
        layer.outputs());
}

// Functions of each entry.

template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph&, const Identity<Scalar>&, const OnnxValue& x,
                                   const OnnxMask&) {
    return x;
}
template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph&, const Dropout<Scalar>&, const OnnxValue& x,
                                   const OnnxMask&) {
    return x;
}
template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const ReLU<Scalar>&, const OnnxValue& x,
                                   const OnnxMask&) {
    return x.renamed(graph.node("Relu", {x.name}));
}
template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const Tanh<Scalar>&, const OnnxValue& x,
                                   const OnnxMask&) {
    return x.renamed(graph.node("Tanh", {x.name}));
}
/// z / (1 + exp(-z)).
template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const SiLU<Scalar>&, const OnnxValue& x,
                                   const OnnxMask&) {
    const std::string power = graph.node("Exp", {graph.node("Neg", {x.name})});
    return x.renamed(graph.node("Div", {x.name, graph.node("Add", {power, graph.number(1)})}));
}

/// z (1 + odd) / 2, in the order of operations that runtimes know GELU by.
[[nodiscard]] inline OnnxValue onnx_gated(OnnxGraph& graph, const OnnxValue& z,
                                          const std::string& odd) {
    const std::string gate = graph.node("Add", {odd, graph.number(1)});
    const std::string twice = graph.node("Mul", {z.name, gate});
    return z.renamed(graph.node("Mul", {twice, graph.number(0.5)}));
}
template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const GELU<Scalar>&, const OnnxValue& x,
                                   const OnnxMask&) {
    const std::string scaled = graph.node("Div", {x.name, graph.number(std::numbers::sqrt2)});
    return onnx_gated(graph, x, graph.node("Erf", {scaled}));
}
/// sqrt(2 / pi) (z + 0.044715 z^3) = z (sqrt(2 / pi) + sqrt(2 / pi) 0.044715 z^2).
template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const GELUTanh<Scalar>&, const OnnxValue& x,
                                   const OnnxMask&) {
    const double linear = std::numbers::sqrt2 * std::numbers::inv_sqrtpi;
    const std::string square = graph.node("Mul", {x.name, x.name});
    const std::string cubic = graph.node("Mul", {square, graph.number(0.044715 * linear)});
    const std::string factor = graph.node("Add", {cubic, graph.number(linear)});
    return onnx_gated(graph, x, graph.node("Tanh", {graph.node("Mul", {x.name, factor})}));
}

/// A function of one's own, by its member `write_onnx`.
template <class Function>
    requires requires(OnnxGraph& graph, const Function& function, const OnnxValue& x) {
        function.write_onnx(graph, x);
    }
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const Elementwise<Function>& layer,
                                   const OnnxValue& x, const OnnxMask&) {
    return layer.function().write_onnx(graph, x);
}

// Normalisations.

template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const LayerNorm<Scalar>& layer,
                                   const OnnxValue& x, const OnnxMask&) {
    const OnnxValue rows = graph.features(x);
    return rows.renamed(graph.node(
        "LayerNormalization",
        {rows.name, graph.parameter("weight", layer.gain()), graph.parameter("bias", layer.bias())},
        {{"axis", -1}, {"epsilon", static_cast<float>(layer.epsilon())}}));
}
template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const RmsNorm<Scalar>& layer,
                                   const OnnxValue& x, const OnnxMask&) {
    const OnnxValue rows = graph.features(x);
    const std::string square = graph.node("Mul", {rows.name, rows.name});
    const std::string mean = graph.node("ReduceMean", {square},
                                        {{"axes", std::vector<std::int64_t>{-1}}, {"keepdims", 1}});
    const std::string size =
        graph.node("Sqrt", {graph.node("Add", {mean, graph.number(layer.epsilon())})});
    return rows.renamed(graph.node(
        "Mul", {graph.node("Div", {rows.name, size}), graph.parameter("weight", layer.gain())}));
}

/// Scale and shift of each channel, as BatchNorm in use and layers of one's own have them.
template <AffineInUse Layer>
[[nodiscard]] OnnxValue onnx_nodes_of_affine(OnnxGraph& graph, const Layer& layer,
                                             const OnnxValue& x) {
    using Scalar = typename Layer::Scalar;
    const Index channels = layer.affine_channels();
    Vector<Scalar> scale(channels), shift(channels);
    layer.write_affine(scale.data(), shift.data());
    OnnxValue y = x;
    if (x.layout == OnnxLayout::images ? x.shape.channels != channels : x.size != channels)
        y = graph.features(x);
    TensorForm form{"scale", {channels}, {1}};
    if (y.layout == OnnxLayout::images) {
        form = {"scale", {channels, 1, 1}, {1, 1, 1}};
    } else if (y.size > channels) {
        // Each channel again and again.
        if (y.size % channels != 0)
            graph.refuse("input must have a multiple of ", channels, " rows, got ", y.size);
        form = {"scale", {y.size}, {1}};
        scale = scale.replicate(y.size / channels, 1).eval();
        shift = shift.replicate(y.size / channels, 1).eval();
    }
    const std::string scaled = graph.node("Mul", {y.name, graph.parameter(form, scale.data())});
    form.name = "shift";
    return y.renamed(graph.node("Add", {scaled, graph.parameter(form, shift.data())}));
}

// Probabilities.

template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const Softmax<Scalar>&, const OnnxValue& x,
                                   const OnnxMask&) {
    const OnnxValue rows = graph.features(x);
    return rows.renamed(graph.node("Softmax", {rows.name}, {{"axis", -1}}));
}
template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const LogSoftmax<Scalar>&, const OnnxValue& x,
                                   const OnnxMask&) {
    const OnnxValue rows = graph.features(x);
    return rows.renamed(graph.node("LogSoftmax", {rows.name}, {{"axis", -1}}));
}
/// The sum of -p log p, where 0 log 0 = 0.
template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const Entropy<Scalar>&, const OnnxValue& x,
                                   const OnnxMask&) {
    const OnnxValue rows = graph.features(x);
    const std::string is_zero = graph.node("Equal", {rows.name, graph.number(0)});
    const std::string log =
        graph.node("Log", {graph.node("Where", {is_zero, graph.number(1), rows.name})});
    const std::string sum =
        graph.node("ReduceSum", {graph.node("Mul", {rows.name, log}), graph.whole_numbers({-1})},
                   {{"keepdims", 1}});
    return rows.renamed(graph.node("Neg", {sum}), 1);
}

}  // namespace stochastic_depth::detail
