// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/export/onnx_graph.hpp>
#include <stochastic_depth/layers/image/average_pool2d.hpp>
#include <stochastic_depth/layers/image/conv2d.hpp>
#include <stochastic_depth/layers/image/global_average_pool2d.hpp>
#include <stochastic_depth/layers/image/max_pool2d.hpp>
#include <stochastic_depth/layers/image/pad_channels.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>

/// What the layers of images are in ONNX, where they are [batch, channels, height, width].
namespace stochastic_depth::detail {

/// Images of another shape.
[[nodiscard]] inline OnnxValue onnx_images(const OnnxValue& x, std::string name,
                                           const ImageShape& shape) {
    OnnxValue y = x.renamed(std::move(name));
    y.shape = shape;
    return y;
}

/// What ONNX is told of a square window.
[[nodiscard]] inline std::vector<OnnxAttribute> onnx_window(Index kernel, Index stride,
                                                            Index padding) {
    using Numbers = std::vector<std::int64_t>;
    return {{"kernel_shape", Numbers{kernel, kernel}},
            {"strides", Numbers{stride, stride}},
            {"pads", Numbers{padding, padding, padding, padding}}};
}

template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const Conv2d<Scalar>& layer,
                                   const OnnxValue& x, const OnnxMask&) {
    const Conv2dOptions& options = layer.options();
    const OnnxValue images = graph.images(x, layer.input_shape());
    std::vector<std::string> inputs{
        images.name,
        graph.parameter(tensor_form(layer, "weights", layer.weights()), layer.weights().data())};
    if (options.bias) inputs.push_back(graph.parameter("bias", layer.bias()));
    return onnx_images(
        images,
        graph.node("Conv", inputs, onnx_window(options.kernel, options.stride, options.padding)),
        layer.output_shape());
}

template <class Layer>
[[nodiscard]] OnnxValue onnx_nodes_of_pool(OnnxGraph& graph, const char* operation,
                                           const Layer& layer, const OnnxValue& x) {
    const Pool2dOptions options = layer.options();
    const OnnxValue images = graph.images(x, layer.input_shape());
    return onnx_images(images,
                       graph.node(operation, {images.name},
                                  onnx_window(options.kernel, options.stride, options.padding)),
                       layer.output_shape());
}
template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const MaxPool2d<Scalar>& layer,
                                   const OnnxValue& x, const OnnxMask&) {
    return onnx_nodes_of_pool(graph, "MaxPool", layer, x);
}
/// Of what is in the image, as ONNX takes it too.
template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const AveragePool2d<Scalar>& layer,
                                   const OnnxValue& x, const OnnxMask&) {
    return onnx_nodes_of_pool(graph, "AveragePool", layer, x);
}
template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const GlobalAveragePool2d<Scalar>& layer,
                                   const OnnxValue& x, const OnnxMask&) {
    const OnnxValue images = graph.images(x, layer.input_shape());
    return onnx_images(images, graph.node("GlobalAveragePool", {images.name}),
                       layer.output_shape());
}
template <class Scalar>
[[nodiscard]] OnnxValue onnx_nodes(OnnxGraph& graph, const PadChannels<Scalar>& layer,
                                   const OnnxValue& x, const OnnxMask&) {
    const OnnxValue images = graph.images(x, layer.input_shape());
    const Index more = layer.output_shape().channels - layer.input_shape().channels;
    if (more == 0) return images;
    return onnx_images(
        images, graph.node("Pad", {images.name, graph.whole_numbers({0, 0, 0, 0, 0, more, 0, 0})}),
        layer.output_shape());
}

}  // namespace stochastic_depth::detail
