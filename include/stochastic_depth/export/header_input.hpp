// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/composition/shapes.hpp>
#include <stochastic_depth/pass/parts.hpp>

/// How many rows a network takes, as its first layers tell.
namespace stochastic_depth::detail {

/// Asks layer after layer, as long as those before keep the number of rows.
class HeaderInput {
public:
    /// 0: the network doesn't tell.
    [[nodiscard]] Index rows() const { return rows_; }

    template <class Layer>
    void ask(const Layer& layer) {
        if (rows_ > 0 || is_hidden_) return;
        if constexpr (HasInputShape<Layer>)
            rows_ = layer.input_shape().size();
        else if constexpr (requires { { layer.inputs() } -> std::convertible_to<Index>; })
            rows_ = layer.inputs();
        else if constexpr (requires { { layer.features() } -> std::convertible_to<Index>; })
            rows_ = layer.features();
        else if constexpr (HasParts<Layer>)
            for_each_part(layer, [&](const auto& part) { ask(part); });
        else
            is_hidden_ = !keeps_shape<Layer>;
    }

private:
    Index rows_ = 0;
    bool is_hidden_ = false;
};

/// \param rows  What the caller says; 0: as the network tells.
/// \throws std::invalid_argument  if nobody does, or the network cannot take so many.
template <class Network>
[[nodiscard]] Index header_inputs(std::string_view who, const Network& network, Index rows) {
    if (rows < 0) refuse(who, ": inputs must be at least 0, got ", rows);
    if (rows == 0) {
        HeaderInput input;
        input.ask(network);
        rows = input.rows();
        if (rows == 0)
            refuse(who, ": the network's first layer doesn't tell how many rows it takes: "
                        "HeaderOptions::inputs must");
    }
    (void)network.output_size(rows);
    return rows;
}

}  // namespace stochastic_depth::detail
