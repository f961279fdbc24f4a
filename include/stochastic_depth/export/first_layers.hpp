// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <optional>

#include <stochastic_depth/layers/composition/shapes.hpp>
#include <stochastic_depth/pass/parts.hpp>
#include <stochastic_depth/types.hpp>

/// What the first layers of a network tell of what it takes.
namespace stochastic_depth::detail {

/// The rows that a layer names, `inputs()` or `features()`, if it does.
template <class Layer>
[[nodiscard]] std::optional<Index> named_rows(const Layer& layer) {
    if constexpr (requires { { layer.inputs() } -> std::convertible_to<Index>; })
        return layer.inputs();
    else if constexpr (requires { { layer.features() } -> std::convertible_to<Index>; })
        return layer.features();
    else
        return std::nullopt;
}

/// What came of asking: nobody has told yet, one has, or one that changes the rows hides the rest.
enum class FirstLayers { open, told, hidden };

/// Calls tells(layer) for layer after layer, a composite before its parts, until one answers true
/// or changes the number of rows.
template <class Layer, class Tells>
FirstLayers ask_first_layers(const Layer& layer, const Tells& tells) {
    if (tells(layer)) return FirstLayers::told;
    if constexpr (HasParts<Layer>) {
        FirstLayers state = FirstLayers::open;
        for_each_part(layer, [&](const auto& part) {
            if (state == FirstLayers::open) state = ask_first_layers(part, tells);
        });
        return state;
    } else {
        return keeps_shape<Layer> ? FirstLayers::open : FirstLayers::hidden;
    }
}

}  // namespace stochastic_depth::detail
