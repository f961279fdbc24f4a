// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <string_view>

namespace stochastic_depth::detail {

/// The name of a type as messages call it: "Sequential", without namespaces and arguments.
template <class Type>
[[nodiscard]] constexpr std::string_view name_of() {
    constexpr std::string_view function = __PRETTY_FUNCTION__;
    constexpr std::size_t begin = function.find("Type = ") + 7;
    std::string_view name = function.substr(begin);
    name = name.substr(0, name.find_first_of("<;]"));
    const std::size_t colon = name.rfind(':');
    return colon == std::string_view::npos ? name : name.substr(colon + 1);
}

}  // namespace stochastic_depth::detail
