// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <string_view>

namespace stochastic_depth::detail {

/// The name of a type as messages call it: "Sequential", without namespaces and arguments, the same
/// with g++ and clang++; of a type without a name, such as a lambda's, "unnamed".
template <class Type>
[[nodiscard]] constexpr std::string_view name_of() {
    constexpr std::string_view function = __PRETTY_FUNCTION__;
    std::size_t begin = function.find("Type = ") + 7, length = 0;
    // The last piece between colons; brackets and what they hold are in no name.
    int inside = 0;
    for (std::size_t i = begin; i < function.size(); ++i) {
        const char c = function[i];
        if (inside == 0 && (c == ';' || c == ']')) break;
        const bool opens = c == '<' || c == '(' || c == '[' || c == '{';
        const bool closes = c == '>' || c == ')' || c == ']' || c == '}';
        inside += opens - closes;
        if (inside > 0 || closes) continue;
        if (c == ':' || c == ' ')
            begin = i + 1, length = 0;
        else
            ++length;
    }
    // Between begin and the name stands nothing: arguments come after it.
    return length == 0 ? "unnamed" : function.substr(begin, length);
}

}  // namespace stochastic_depth::detail
