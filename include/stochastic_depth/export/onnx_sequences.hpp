// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/export/onnx_graph.hpp>
#include <stochastic_depth/export/onnx_layers.hpp>
#include <stochastic_depth/kernels/attention_rotary.hpp>
#include <stochastic_depth/layers/sequence/attention_pool.hpp>
#include <stochastic_depth/layers/sequence/embedding.hpp>
#include <stochastic_depth/layers/sequence/multi_head_attention.hpp>
#include <stochastic_depth/layers/sequence/sequence_pool.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>

/// What the layers of sequences are in ONNX, where they are [batch, positions, width], with an input
/// of their lengths.
namespace stochastic_depth::detail {

using OnnxNumbers = std::vector<std::int64_t>;

[[nodiscard]] inline std::string onnx_transposed(OnnxGraph& graph, const std::string& x,
                                                 OnnxNumbers axes) {
    return graph.node("Transpose", {x}, {{"perm", std::move(axes)}});
}
/// Rows of a table, by their numbers.
[[nodiscard]] inline std::string onnx_gathered(OnnxGraph& graph, const std::string& table,
                                               const std::string& rows, Index axis = 0) {
    return graph.node("Gather", {table, rows}, {{"axis", axis}});
}

/// Behind a sequence's end any id will do.
template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const Embedding<Scalar>& layer,
                                   const OnnxValue& x, const OnnxMask&) {
    if (x.layout != OnnxLayout::tokens)
        graph.refuse("an Embedding must be the network's first layer");
    const auto table = [&](const char* name, const Matrix<Scalar>& entries) {
        return graph.parameter(tensor_form(layer, name, entries), entries.data());
    };
    OnnxValue y = x;
    y.layout = OnnxLayout::positions;
    y.size = layer.width();
    graph.set_most_positions(layer.max_positions());
    const std::string ids =
        graph.node("Where", {graph.real_positions(x), x.name, graph.whole_number(0)});
    y.name = onnx_gathered(graph, table("tokens", layer.tokens()), ids);
    if (layer.encoding() != PositionEncoding::none) {
        const std::string positions =
            onnx_gathered(graph, table("positions", layer.positions()), graph.places(x));
        y.name = graph.node("Add", {y.name, positions});
    }
    return graph.without_padding(y);
}

/// Which positions each one sees, truth values that go with [batch, heads, positions, positions];
/// empty: all.
[[nodiscard]] inline std::string onnx_seen_positions(OnnxGraph& graph, const OnnxValue& x,
                                                     bool causal) {
    std::string seen;
    if (x.has_lengths)
        seen = graph.node("Unsqueeze", {graph.real_positions(x), graph.whole_numbers({1, 2})});
    if (!causal) return seen;
    const std::string places = graph.places(x);
    const std::string of_each = graph.node("Unsqueeze", {places, graph.whole_numbers({1})});
    const std::string before = graph.node("LessOrEqual", {places, of_each});
    return seen.empty() ? before : graph.node("And", {before, seen});
}

/// Queries or keys, [batch, heads, positions, width of a head], turned by their positions.
[[nodiscard]] inline std::string onnx_turned(OnnxGraph& graph, const OnnxValue& x,
                                             const std::string& heads, const std::string& cosines,
                                             const std::string& sines, Index half) {
    const auto part = [&](Index first) {
        return graph.node("Slice", {heads, graph.whole_numbers({first}),
                                    graph.whole_numbers({first + half}), graph.whole_numbers({3})});
    };
    const std::string places = graph.places(x);
    const std::string cosine = onnx_gathered(graph, cosines, places),
                      sine = onnx_gathered(graph, sines, places), a = part(0), b = part(half);
    const auto times = [&](const std::string& numbers, const std::string& factor) {
        return graph.node("Mul", {numbers, factor});
    };
    const std::string first = graph.node("Sub", {times(a, cosine), times(b, sine)});
    const std::string second = graph.node("Add", {times(b, cosine), times(a, sine)});
    return graph.node("Concat", {first, second}, {{"axis", 3}});
}

template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const MultiHeadAttention<Scalar>& layer,
                                   const OnnxValue& input, const OnnxMask&) {
    const MultiHeadAttentionOptions& options = layer.options();
    const Index width = layer.head_width(), heads = layer.heads();
    const OnnxValue x = graph.positions(input, layer.width());
    const std::string projected =
        onnx_product(graph, x.name, "in_proj_weight", layer.in_weights(), "in_proj_bias",
                     options.bias ? &layer.in_bias() : nullptr);
    // Of queries, keys and values, [batch, heads, positions, width of a head].
    const std::string all = onnx_transposed(
        graph, graph.node("Reshape", {projected, graph.whole_numbers({0, 0, 3, heads, width})}),
        {2, 0, 3, 1, 4});
    const auto part = [&](Index i) { return onnx_gathered(graph, all, graph.whole_number(i)); };
    std::string queries = part(0), keys = part(1);
    if (options.rotary) {
        const Index count = graph.most_positions(x), half = width / 2;
        if (count == 0)
            graph.refuse("rotary positions need OnnxOptions::inputs, the number of rows");
        std::vector<double> cosines, sines;
        for (Index t = 0; t < count; ++t)
            for (Index i = 0; i < half; ++i) {
                const double angle =
                    static_cast<double>(t) *
                    std::pow(RotaryAngles<Scalar>::base,
                             -2.0 * static_cast<double>(i) / static_cast<double>(width));
                cosines.push_back(std::cos(angle));
                sines.push_back(std::sin(angle));
            }
        const std::string cosine = graph.numbers("rotary_cosines", {count, half}, cosines),
                          sine = graph.numbers("rotary_sines", {count, half}, sines);
        queries = onnx_turned(graph, x, queries, cosine, sine, half);
        keys = onnx_turned(graph, x, keys, cosine, sine, half);
    }
    const std::string products =
        graph.node("MatMul", {queries, onnx_transposed(graph, keys, {0, 1, 3, 2})});
    std::string scores =
        graph.node("Mul", {products, graph.number(1 / std::sqrt(static_cast<double>(width)))});
    const std::string seen = onnx_seen_positions(graph, x, options.causal);
    if (!seen.empty())
        scores = graph.node("Where",
                            {seen, scores, graph.number(-std::numeric_limits<double>::infinity())});
    const std::string context =
        graph.node("MatMul", {graph.node("Softmax", {scores}, {{"axis", -1}}), part(2)});
    const std::string joined = graph.node("Reshape", {onnx_transposed(graph, context, {0, 2, 1, 3}),
                                                      graph.whole_numbers({0, 0, layer.width()})});
    return graph.without_padding(
        x.renamed(onnx_product(graph, joined, "out_proj.weight", layer.out_weights(),
                               "out_proj.bias", options.bias ? &layer.out_bias() : nullptr)));
}

/// A sequence's features, when it has become one position.
[[nodiscard]] inline OnnxValue onnx_pooled(const OnnxValue& x, std::string name) {
    OnnxValue y = x.renamed(std::move(name));
    y.layout = OnnxLayout::features;
    y.positions = 0;
    y.has_lengths = false;
    return y;
}

template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const SequencePool<Scalar>& layer,
                                   const OnnxValue& input, const OnnxMask&) {
    const OnnxValue x = graph.positions(input, layer.width());
    if (layer.pooling() == SequencePooling::first)
        return onnx_pooled(x, onnx_gathered(graph, x.name, graph.whole_number(0), 1));
    if (layer.pooling() == SequencePooling::last) {
        if (!x.has_lengths)
            return onnx_pooled(x, onnx_gathered(graph, x.name, graph.whole_number(-1), 1));
        const std::string last = graph.node("Sub", {graph.lengths(), graph.whole_number(1)});
        const std::string places = graph.node("Unsqueeze", {last, graph.whole_numbers({1})});
        return onnx_pooled(x, graph.node("GatherND", {x.name, places}, {{"batch_dims", 1}}));
    }
    if (!x.has_lengths)
        return onnx_pooled(
            x, graph.node("ReduceMean", {x.name}, {{"axes", OnnxNumbers{1}}, {"keepdims", 0}}));
    const std::string sum = graph.node(
        "ReduceSum", {graph.without_padding(x).name, graph.whole_numbers({1})}, {{"keepdims", 0}});
    const std::string counts = graph.node("Unsqueeze", {graph.lengths(), graph.whole_numbers({1})});
    return onnx_pooled(x, graph.node("Div", {sum, graph.as_numbers(counts)}));
}

template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const AttentionPool<Scalar>& layer,
                                   const OnnxValue& input, const OnnxMask&) {
    const OnnxValue x = graph.positions(input, layer.width());
    const TensorForm form{"query", {layer.width(), 1}, {1, 1}};
    const std::string products =
        graph.node("MatMul", {x.name, graph.parameter(form, layer.query().data())});
    std::string scores = graph.node(
        "Mul", {products, graph.number(1 / std::sqrt(static_cast<double>(layer.width())))});
    if (x.has_lengths) {
        const std::string real =
            graph.node("Unsqueeze", {graph.real_positions(x), graph.whole_numbers({2})});
        scores = graph.node("Where",
                            {real, scores, graph.number(-std::numeric_limits<double>::infinity())});
    }
    const std::string weights = graph.node("Softmax", {scores}, {{"axis", 1}});
    const std::string parts = graph.node("Mul", {graph.without_padding(x).name, weights});
    return onnx_pooled(
        x, graph.node("ReduceSum", {parts, graph.whole_numbers({1})}, {{"keepdims", 0}}));
}

}  // namespace stochastic_depth::detail
