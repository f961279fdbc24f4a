// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string_view>
#include <type_traits>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/export/first_layers.hpp>
#include <stochastic_depth/layers/composition/shapes.hpp>
#include <stochastic_depth/types.hpp>

/// How many rows a network takes, as its first layers tell.
namespace stochastic_depth::detail {

/// \param rows  What the caller says; 0: as the network tells.
/// \throws std::invalid_argument  if nobody does, or the network cannot take so many.
template <class Network>
[[nodiscard]] Index header_inputs(std::string_view who, const Network& network, Index rows) {
    if (rows < 0) refuse(who, ": inputs must be at least 0, got ", rows);
    if (rows == 0) {
        ask_first_layers(network, [&](const auto& layer) {
            std::optional<Index> named = named_rows(layer);
            if constexpr (HasInputShape<std::remove_cvref_t<decltype(layer)>>)
                named = layer.input_shape().size();
            if (named) rows = *named;
            return named.has_value();
        });
        if (rows == 0)
            refuse(who, ": the network's first layer doesn't tell how many rows it takes: "
                        "HeaderOptions::inputs must");
    }
    (void)network.output_size(rows);
    return rows;
}

}  // namespace stochastic_depth::detail
