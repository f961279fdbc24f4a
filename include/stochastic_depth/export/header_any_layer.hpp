// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>
#include <typeinfo>
#include <vector>

#include <stochastic_depth/export/header.hpp>
#include <stochastic_depth/layers/composition/any_layer.hpp>

/// Networks whose layers are chosen at run time as C++ headers.
namespace stochastic_depth {

/// The types that an AnyLayer may hold in a network that is to be written, for HeaderOptions::held:
///
///     write_header("network.hpp", network, mask, {.held = held_layers<Block, Linear<float>>()});
template <class... Layers>
[[nodiscard]] std::vector<HeaderHeldLayer> held_layers() {
    const auto of = []<class Layer>(std::type_identity<Layer>) {
        const auto write = [](HeaderWriter& writer, const void* any, const std::type_info& scalar) {
            using Scalar = typename Layer::Scalar;
            if (scalar != typeid(Scalar)) return false;
            const Layer* const layer =
                static_cast<const AnyLayer<Scalar>*>(any)->template held<Layer>();
            if (layer) writer.run(*layer);
            return layer != nullptr;
        };
        return HeaderHeldLayer{write};
    };
    return {of(std::type_identity<Layers>())...};
}

namespace detail {

template <class Scalar>
struct HeaderForm<AnyLayer<Scalar>> {
    static void write(HeaderWriter& writer, const AnyLayer<Scalar>& layer) {
        for (const HeaderHeldLayer& held : writer.held())
            if (held.write(writer, &layer, typeid(Scalar))) return;
        writer.refuse("the type of what it holds must be among HeaderOptions::held");
    }
};

}  // namespace detail
}  // namespace stochastic_depth
