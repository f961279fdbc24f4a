// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include <stochastic_depth/export/header_writer.hpp>
#include <stochastic_depth/layers/image/average_pool2d.hpp>
#include <stochastic_depth/layers/image/conv2d.hpp>
#include <stochastic_depth/layers/image/global_average_pool2d.hpp>
#include <stochastic_depth/layers/image/max_pool2d.hpp>
#include <stochastic_depth/layers/image/pad_channels.hpp>

/// How layers of images are written. (BatchNorm2d is affine in use.)
namespace stochastic_depth::detail {

template <class Scalar>
struct HeaderForm<Conv2d<Scalar>> {
    static void write(HeaderWriter& writer, const Conv2d<Scalar>& layer) {
        writer.script().need("convolve");
        const ImageShape input = layer.input_shape();
        const Conv2dOptions& options = layer.options();
        const std::string weights =
            writer.constant("weights", layer.weights().data(), layer.weights().size());
        const std::string bias =
            options.bias ? writer.constant("bias", layer.bias().data(), options.channels)
                         : "nullptr";
        writer.apply(message("convolve<", input.channels, ", ", input.height, ", ", input.width,
                             ", ", options.channels, ", ", options.kernel, ", ", options.stride,
                             ", ", options.padding, ">"),
                     message(weights, ", ", bias), layer.output_shape().size());
    }
};

template <class Pool>
inline constexpr const char* header_pool = nullptr;
template <>
inline constexpr const char* header_pool<MeanOfTaps> = "average_pool";
template <>
inline constexpr const char* header_pool<LargestTap> = "max_pool";

template <class Pool, class Scalar>
struct HeaderForm<PoolLayer<Pool, Scalar>> {
    static void write(HeaderWriter& writer, const PoolLayer<Pool, Scalar>& layer) {
        writer.script().need(header_pool<Pool>);
        const ImageShape input = layer.input_shape();
        const Pool2dOptions options = layer.options();
        writer.apply(
            message(header_pool<Pool>, "<", input.channels, ", ", input.height, ", ", input.width,
                    ", ", options.kernel, ", ", options.stride, ", ", options.padding, ">"),
            "", layer.output_shape().size());
    }
};

template <class Scalar>
struct HeaderForm<GlobalAveragePool2d<Scalar>> {
    static void write(HeaderWriter& writer, const GlobalAveragePool2d<Scalar>& layer) {
        writer.script().need("global_average_pool");
        const ImageShape input = layer.input_shape();
        writer.apply(message("global_average_pool<", input.channels, ", ", input.positions(), ">"),
                     "", input.channels);
    }
};

template <class Scalar>
struct HeaderForm<PadChannels<Scalar>> {
    static void write(HeaderWriter& writer, const PadChannels<Scalar>& layer) {
        writer.script().need("pad_channels");
        const ImageShape input = layer.input_shape(), output = layer.output_shape();
        writer.apply(message("pad_channels<", input.channels, ", ", output.channels, ", ",
                             input.positions(), ">"),
                     "", output.size());
    }
};

}  // namespace stochastic_depth::detail
