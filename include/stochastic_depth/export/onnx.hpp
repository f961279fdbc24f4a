// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/export/onnx_composites.hpp>
#include <stochastic_depth/export/onnx_graph.hpp>
#include <stochastic_depth/export/onnx_images.hpp>
#include <stochastic_depth/export/onnx_input.hpp>
#include <stochastic_depth/export/onnx_layers.hpp>
#include <stochastic_depth/export/onnx_model.hpp>
#include <stochastic_depth/export/onnx_sequences.hpp>
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/structure.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>

/// Networks as ONNX models, for the runtimes that read these. Needs POSIX, for which reason it is not
/// part of all.hpp.
namespace stochastic_depth {
namespace detail {

template <class Layer>
inline constexpr bool has_no_onnx_form = false;

/// A layer's own form, or the library's for it.
template <class Layer>
[[nodiscard]] OnnxValue onnx_nodes_of(OnnxGraph& graph, const Layer& layer, const OnnxValue& x,
                                      const OnnxMask& mask) {
    if constexpr (requires { layer.write_onnx(graph, x, mask); }) {
        return layer.write_onnx(graph, x, mask);
    } else if constexpr (requires { layer.write_onnx(graph, x); }) {
        static_assert(!has_skippable_layers<Layer>,
                      "write_onnx of a composite with skippable layers inside must take the mask: "
                      "OnnxValue write_onnx(OnnxGraph& graph, const OnnxValue& x, const OnnxMask& "
                      "mask) const (docs/extending.md)");
        return layer.write_onnx(graph, x);
    } else if constexpr (requires { onnx_nodes(graph, layer, x, mask); }) {
        return onnx_nodes(graph, layer, x, mask);
    } else if constexpr (AffineInUse<Layer>) {
        return onnx_nodes_of_affine(graph, layer, x);
    } else {
        static_assert(
            has_no_onnx_form<Layer>,
            "export_onnx: a layer of this type has no form in ONNX. One of your own gets "
            "it by a member OnnxValue write_onnx(OnnxGraph& graph, const OnnxValue& x) "
            "const (docs/extending.md); a lambda can't, and an AnyLayer hides what it is");
    }
}

/// "[0.5,1]".
template <class Numbers>
[[nodiscard]] std::string onnx_list(const Numbers& numbers, Index size) {
    std::string text = "[";
    for (Index i = 0; i < size; ++i) text += message(i > 0 ? "," : "", numbers[i]);
    return text += "]";
}

}  // namespace detail

struct OnnxOptions {
    /// S, which is baked in: skipped layers are not in the model. None: every layer is kept.
    std::optional<SurvivalMask> mask = {};
    /// Whether each skippable layer is its mean in place of that, the test-time rule that
    /// WeightScaling is.
    bool weight_scaling = false;
    /// Rows of x. 0: as the network's first layer has them; of sequences, any number.
    Index inputs = 0;
    /// Whether the model's numbers are floats, of a network of doubles too: runtimes compute few
    /// operations in double.
    bool single_precision = false;
};

/// Writes a network as an ONNX model of operator set 17, with its parameters and with one survival
/// mask baked in.
///
///     export_onnx("network.onnx", network);
///     export_onnx("small.onnx", network, {.mask = SurvivalMask{1, 0, 1}});
///
/// The batch comes first, and is of any size. Inputs are, and so are outputs,
///
///     "input"    [batch, rows], or of a network that begins with a layer of images
///                [batch, channels, height, width], or of one of sequences
///                [batch, positions, width],
///     "tokens"   [batch, positions] and "lengths" [batch], int64, of a network that begins with an
///                Embedding: of sequence j the first lengths[j] tokens, at least 1, count.
///     "output"   [batch, rows], [batch, channels, height, width] or [batch, positions, width].
///
/// Behind a sequence's end outputs are zeros. Dropout is not there; batch normalisation is by running
/// statistics. Metadata hold the survival probabilities and the mask, "[1,0,1]".
///
/// A layer of one's own has a member `write_onnx` (OnnxGraph, docs/extending.md). A layer without a
/// form in ONNX is refused at compile time. The file is replaced in one step.
///
/// \param path  A std::filesystem::path does as well.
/// \throws std::invalid_argument  if the mask is of another depth, or is given with weight scaling;
///                                if a layer can't be exported where it stands; if the file would
///                                have more than 2^31 - 1 bytes.
/// \throws std::runtime_error     naming the file and the reason, if it cannot be written; the old
///                                file is untouched then.
/// \complexity  Memory for three times the parameters.
/// \source ONNX, Open Neural Network Exchange, IR version 8.
template <ForwardLayer Network>
void export_onnx(const std::string& path, const Network& network, const OnnxOptions& options = {}) {
    const Index depth = detail::depth(network);
    if (options.mask && options.weight_scaling)
        detail::refuse("export_onnx: mask must not be given with weight_scaling");
    if (options.mask && options.mask->size() != depth)
        detail::refuse("export_onnx: mask must have ", depth, " layers, got ",
                       options.mask->size());
    const bool is_single =
        options.single_precision || std::is_same_v<typename Network::Scalar, float>;
    detail::OnnxModel model(is_single ? detail::OnnxType::float32 : detail::OnnxType::float64);
    OnnxGraph graph(model);
    const OnnxValue x = detail::add_onnx_input(network, options.inputs, model, graph);
    OnnxMask mask;
    if (options.mask) mask = OnnxMask(*options.mask);
    if (options.weight_scaling) mask = OnnxMask::of_means();
    const OnnxValue y = graph.part(detail::Unnamed{}, network, x, mask);
    std::vector<std::pair<std::string, std::string>> metadata;
    if (depth > 0) {
        const Eigen::VectorXd p = detail::survival_probabilities(network);
        metadata.emplace_back("survival_probabilities", detail::onnx_list(p, depth));
        if (options.weight_scaling)
            metadata.emplace_back("weight_scaling", "true");
        else
            metadata.emplace_back(
                "survival_mask",
                detail::onnx_list(options.mask.value_or(SurvivalMask::all(depth)), depth));
    }
    detail::replace_file("export_onnx", path,
                         model.finish(y.name, detail::onnx_axes(y), describe(network), metadata));
}

}  // namespace stochastic_depth
