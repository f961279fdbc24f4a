// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/pass/affine_in_use.hpp>
#include <stochastic_depth/pass/leaf_record.hpp>
#include <stochastic_depth/pass/parts.hpp>

/// Which layers of a sequence run as one step, found at compile time.
namespace stochastic_depth::detail {

/// The end of the step that begins at layer `begin` of a sequence of layers: the element-wise layers
/// after one that takes an epilogue go with it; in a recorded pass as long as they need nothing but
/// their input, or output, on the way back. In one that does not record, layers that are affine in
/// use go with a product whose rows are channels.
template <bool records, class... Layers>
[[nodiscard]] constexpr std::size_t end_of_step(std::size_t begin, std::size_t end) {
    constexpr bool may_follow[] = {
        (ElementwiseLayer<Layers> && (!records || needs_input_alone<Layers>))...};
    constexpr bool takes_epilogue[] = {
        (!ElementwiseLayer<Layers> && (!has_skippable_layers<Layers> || is_skippable<Layers>))...};
    constexpr bool is_affine[] = {(!records && AffineInUse<Layers>)...};
    constexpr bool takes_affine[] = {rows_are_channels<Layers>...};
    std::size_t next = begin + 1;
    while (takes_epilogue[begin] && next < end &&
           (may_follow[next] || (takes_affine[begin] && is_affine[next])))
        ++next;
    return next;
}

/// The first layer of the step back that begins at the end of a sequence of layers: the element-wise
/// layers before one that takes an epilogue go with it.
template <class... Layers>
[[nodiscard]] constexpr std::size_t begin_of_way_back(std::size_t begin, std::size_t end) {
    constexpr bool may_follow[] = {has_derivative<Layers>...};
    constexpr bool takes_epilogue[] = {
        (!ElementwiseLayer<Layers> && !has_skippable_layers<Layers>)...};
    std::size_t first = end - 1;
    while (takes_epilogue[end - 1] && first > begin && may_follow[first - 1]) --first;
    return first;
}

}  // namespace stochastic_depth::detail
