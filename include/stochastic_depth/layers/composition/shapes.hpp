// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <optional>
#include <string>
#include <string_view>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/image/image_shape.hpp>
#include <stochastic_depth/pass/affine_in_use.hpp>
#include <stochastic_depth/pass/structure.hpp>

/// Neighbours' shapes, compared where both have one: a layer says what it takes by `input_shape()`
/// and what it gives by `output_shape()`.
namespace stochastic_depth::detail {

template <class Layer>
concept HasInputShape = requires(const Layer& layer) {
    { layer.input_shape() } -> std::convertible_to<ImageShape>;
};
template <class Layer>
concept HasOutputShape = requires(const Layer& layer) {
    { layer.output_shape() } -> std::convertible_to<ImageShape>;
};

/// Whether a layer without a shape hands its input's on.
template <class Layer>
inline constexpr bool keeps_shape = ElementwiseLayer<Layer> || AffineInUse<Layer> || requires {
    requires Layer::keeps_shape;
};

/// A shape, and the layer that it is of. Refers to that; lives for one call.
struct ShapeOfLayer {
    ImageShape shape;
    const void* layer;
    std::string (*text)(const void*);

    template <class Layer>
    static ShapeOfLayer of(const Layer& layer, const ImageShape& shape) {
        return {shape, &layer,
                [](const void* one) { return description(*static_cast<const Layer*>(one)); }};
    }
    [[nodiscard]] std::string description_of_layer() const { return text(layer); }
};

/// What is known of images on their way through layers: their shape now, and the one that they must
/// have come with.
struct ShapesOnTheWay {
    std::optional<ShapeOfLayer> now;
    std::optional<ShapeOfLayer> first;
    /// Whether they still have the shape that they came with.
    bool is_first = true;

    void become(std::optional<ShapeOfLayer> shape) {
        now = shape;
        is_first = false;
    }

    /// \param who  The composite that checks.
    /// \throws std::invalid_argument  unless `shape` is the one now, as far as that is known.
    void meet(std::string_view who, const ShapeOfLayer& other) {
        if (now && now->shape != other.shape)
            refuse(who, ": ", other.description_of_layer(), " must have shape ",
                   text_of(now->shape), " as ", now->description_of_layer(), " has, got ",
                   text_of(other.shape));
        if (!now) now = other;
        if (is_first && !first) first = other;
    }
};

/// Sends shapes through a layer; composites have a member that sends them through their parts.
/// \throws std::invalid_argument  if a layer's input has another shape than its neighbour's output.
template <class Layer>
void send_shapes(std::string_view who, const Layer& layer, ShapesOnTheWay& shapes) {
    if constexpr (HasInputShape<Layer>)
        shapes.meet(who, ShapeOfLayer::of(layer, layer.input_shape()));
    if constexpr (HasOutputShape<Layer>)
        shapes.become(ShapeOfLayer::of(layer, layer.output_shape()));
    else if constexpr (is_skippable<Layer>)
        send_shapes(who, layer.layer(), shapes);
    else if constexpr (requires { layer.send_shapes(who, shapes); })
        layer.send_shapes(who, shapes);
    else if constexpr (!keeps_shape<Layer>)
        shapes.become(std::nullopt);
}

/// What a composite's constructor does when its parts are there.
template <class Composite>
void check_shapes(std::string_view who, const Composite& composite) {
    ShapesOnTheWay shapes;
    composite.send_shapes(who, shapes);
}

}  // namespace stochastic_depth::detail
