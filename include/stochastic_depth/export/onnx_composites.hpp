// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <stochastic_depth/export/onnx_graph.hpp>
#include <stochastic_depth/layers/composition/concatenate.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/scaled.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/sequence/per_position.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

/// What composites make of the ONNX forms of their parts. A skipped layer writes nothing.
namespace stochastic_depth::detail {

/// x times a number.
[[nodiscard]] inline OnnxValue onnx_scaled(OnnxGraph& graph, const OnnxValue& x, double factor) {
    if (factor == 1) return x;
    return x.renamed(graph.node("Mul", {x.name, graph.number(factor)}));
}

/// An operation on the entries of two values of the same columns, in one layout.
[[nodiscard]] inline OnnxValue onnx_of_entries(OnnxGraph& graph, const char* operation,
                                               const OnnxValue& a, const OnnxValue& b) {
    bool is_same = a.layout == b.layout;
    if (a.layout == OnnxLayout::images) is_same = is_same && a.shape == b.shape;
    if (a.layout == OnnxLayout::positions) is_same = is_same && a.size == b.size;
    const OnnxValue x = is_same ? a : graph.features(a), y = is_same ? b : graph.features(b);
    return x.renamed(graph.node(operation, {x.name, y.name}));
}

/// Layers one after another.
template <class Composite>
[[nodiscard]] OnnxValue onnx_nodes_in_turn(OnnxGraph& graph, const Composite& layers, OnnxValue x,
                                           OnnxMask mask) {
    Composite::visit_parts(layers, [&](const auto& name, const auto& part) {
        x = graph.part(name, part, x, mask);
        mask = mask.behind(part);
    });
    return x;
}
template <class... Layers>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const Sequential<Layers...>& layers,
                                   const OnnxValue& x, const OnnxMask& mask) {
    return onnx_nodes_in_turn(graph, layers, x, mask);
}
template <class Layer>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const Stack<Layer>& layers, const OnnxValue& x,
                                   const OnnxMask& mask) {
    return onnx_nodes_in_turn(graph, layers, x, mask);
}

/// shortcut(x) + scale branch(x).
template <class Branch, class Shortcut>
[[nodiscard]] OnnxValue onnx_nodes_of_residual(OnnxGraph& graph,
                                               const Residual<Branch, Shortcut>& layer,
                                               const OnnxValue& x, const OnnxMask& mask,
                                               double scale) {
    const OnnxValue branch =
        onnx_scaled(graph, graph.part("branch", layer.branch(), x, mask), scale);
    const OnnxValue shortcut =
        graph.part("shortcut", layer.shortcut(), x, mask.behind(layer.branch()));
    return onnx_of_entries(graph, "Add", shortcut, branch);
}
template <class Branch, class Shortcut>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const Residual<Branch, Shortcut>& layer,
                                   const OnnxValue& x, const OnnxMask& mask) {
    return onnx_nodes_of_residual(graph, layer, x, mask, 1);
}

template <class Layer>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const StochasticDepth<Layer>& node,
                                   const OnnxValue& x, const OnnxMask& mask) {
    if (!mask.keeps()) {
        if constexpr (StochasticDepth<Layer>::skips_to_identity)
            return x;
        else
            return graph.part("shortcut", node.shortcut(), x);
    }
    const double scale = mask.scale(node.survival_probability().value());
    if constexpr (is_residual<Layer>) {
        return onnx_nodes_of_residual(graph, node.layer(), x, mask.inside(), scale);
    } else {
        const OnnxValue y = graph.part(Unnamed{}, node.layer(), x, mask.inside());
        if (scale == 1) return y;
        // x + p (y - x).
        const OnnxValue change = onnx_of_entries(graph, "Sub", y, x);
        return onnx_of_entries(graph, "Add", x, onnx_scaled(graph, change, scale));
    }
}

template <class Layer>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const Scaled<Layer>& layer, const OnnxValue& x,
                                   const OnnxMask& mask) {
    return onnx_scaled(graph, graph.part(Unnamed{}, layer.layer(), x, mask),
                       static_cast<double>(layer.factor()));
}

template <class... Layers>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const Concatenate<Layers...>& layers,
                                   const OnnxValue& x, const OnnxMask& mask) {
    std::vector<std::string> names;
    OnnxValue y;
    Index rows = 0;
    bool are_known = true;
    Concatenate<Layers...>::visit_parts(layers, [&](const auto& name, const auto& part) {
        y = graph.features(graph.part(name, part, x, mask));
        names.push_back(y.name);
        rows += y.size;
        are_known = are_known && y.size > 0;
    });
    return y.renamed(graph.node("Concat", names, {{"axis", -1}}), are_known ? rows : 0);
}

/// Positions are samples to the layer.
template <class Layer>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const PerPosition<Layer>& layer,
                                   const OnnxValue& x, const OnnxMask& mask) {
    const OnnxValue sequences = graph.positions(x, layer.width());
    OnnxValue y = sequences;
    y.layout = OnnxLayout::features;
    y.is_position = true;
    y = graph.features(graph.part(Unnamed{}, layer.layer(), y, mask));
    y.layout = OnnxLayout::positions;
    y.positions = sequences.positions;
    y.is_position = false;
    return graph.without_padding(y);
}

}  // namespace stochastic_depth::detail
