// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/export/first_layers.hpp>
#include <stochastic_depth/export/onnx_graph.hpp>
#include <stochastic_depth/export/onnx_model.hpp>
#include <stochastic_depth/layers/composition/shapes.hpp>
#include <stochastic_depth/layers/sequence/attention_pool.hpp>
#include <stochastic_depth/layers/sequence/multi_head_attention.hpp>
#include <stochastic_depth/layers/sequence/per_position.hpp>
#include <stochastic_depth/layers/sequence/sequence_pool.hpp>
#include <stochastic_depth/pass/folds.hpp>

/// What a network takes, as its first layers tell.
namespace stochastic_depth::detail {

template <class Layer>
inline constexpr bool takes_positions = false;
template <class Scalar>
inline constexpr bool takes_positions<MultiHeadAttention<Scalar>> = true;
template <class Scalar>
inline constexpr bool takes_positions<SequencePool<Scalar>> = true;
template <class Scalar>
inline constexpr bool takes_positions<AttentionPool<Scalar>> = true;
template <class Layer>
inline constexpr bool takes_positions<PerPosition<Layer>> = true;

/// What a layer takes, without a name, if it tells.
template <class Layer>
[[nodiscard]] std::optional<OnnxValue> onnx_value_taken_by(const Layer& layer) {
    OnnxValue value;
    if constexpr (requires { requires Layer::takes_tokens; }) {
        value.layout = OnnxLayout::tokens;
    } else if constexpr (HasInputShape<Layer>) {
        value.layout = OnnxLayout::images;
        value.shape = layer.input_shape();
    } else if constexpr (takes_positions<Layer>) {
        value.layout = OnnxLayout::positions;
        value.size = layer.width();
    } else if (const auto rows = named_rows(layer)) {
        value.size = *rows;
    } else {
        return std::nullopt;
    }
    return value;
}

/// Axes as the model declares them.
[[nodiscard]] inline std::vector<OnnxAxis> onnx_axes(const OnnxValue& value) {
    std::vector<OnnxAxis> axes{{0, "batch"}};
    if (value.layout == OnnxLayout::images)
        return {{0, "batch"}, {value.shape.channels}, {value.shape.height}, {value.shape.width}};
    if (value.layout != OnnxLayout::features) axes.push_back({value.positions, "positions"});
    if (value.layout != OnnxLayout::tokens) axes.push_back({value.size});
    return axes;
}

/// What a network takes, an input of the model; sequences of tokens have their lengths beside them.
/// \param rows  Of x; 0: as the network tells.
/// \throws std::invalid_argument  if the network can't take so many, or doesn't tell.
template <class Network>
[[nodiscard]] OnnxValue add_onnx_input(const Network& network, Index rows, OnnxModel& model,
                                       OnnxGraph& graph) {
    OnnxValue x;
    const FirstLayers state = ask_first_layers(network, [&](const auto& layer) {
        const std::optional<OnnxValue> taken = onnx_value_taken_by(layer);
        if (taken) x = *taken;
        return taken.has_value();
    });
    if (rows < 0) refuse("export_onnx: inputs must be at least 0, got ", rows);
    if (rows > 0) {
        (void)network.output_size(rows);
        if (x.layout == OnnxLayout::tokens) x.positions = rows;
        if (x.layout == OnnxLayout::positions) x.positions = rows / x.size;
        if (x.layout == OnnxLayout::features) x.size = rows;
    } else if (state != FirstLayers::told) {
        refuse(
            "export_onnx: the network's first layer doesn't tell how many rows it takes: "
            "OnnxOptions::inputs must");
    }
    if (x.layout == OnnxLayout::tokens) {
        x.has_lengths = true;
        x.name = model.add_input("tokens", OnnxType::int64, onnx_axes(x));
        graph.set_sequences(x.name, model.add_input("lengths", OnnxType::int64, {{0, "batch"}}));
    } else {
        x.name = model.add_input("input", model.number(), onnx_axes(x));
        graph.set_sequences(x.name, {});
    }
    return x;
}

}  // namespace stochastic_depth::detail
