// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>

/// Names that a user chooses for what is written as C++.
namespace stochastic_depth::detail {

/// Words of C++20, and names that a written header has of its own.
inline constexpr std::string_view taken_names[] = {
    "alignas", "alignof", "and", "and_eq", "asm", "auto", "bitand", "bitor", "bool", "break", "case",
    "catch", "char", "char16_t", "char32_t", "char8_t", "class", "co_await", "co_return", "co_yield",
    "compl", "concept", "const", "const_cast", "consteval", "constexpr", "constinit", "continue",
    "decltype", "default", "delete", "detail", "do", "double", "dynamic_cast", "else", "enum",
    "explicit", "export", "extern", "false", "float", "for", "friend", "goto", "if", "inline",
    "inputs", "int", "long", "mutable", "namespace", "new", "noexcept", "not", "not_eq", "nullptr",
    "operator", "or", "or_eq", "outputs", "private", "protected", "public", "register",
    "reinterpret_cast", "requires", "return", "short", "signed", "sizeof", "static",
    "static_assert", "static_cast", "std", "struct", "switch", "template", "this", "thread_local",
    "throw", "true", "try", "typedef", "typeid", "typename", "union", "unsigned", "using", "virtual",
    "void", "volatile", "wchar_t", "while", "working_memory", "xor", "xor_eq"};
static_assert(std::is_sorted(std::begin(taken_names), std::end(taken_names)));

/// Whether a name is one that a program may give: no word of the language, none that is reserved.
[[nodiscard]] constexpr bool is_free_identifier(std::string_view name) {
    const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
    if (name.empty() || !is_letter(name.front()) || name.find("__") != std::string_view::npos)
        return false;
    for (const char c : name)
        if (!is_letter(c) && !(c >= '0' && c <= '9') && c != '_') return false;
    return !std::binary_search(std::begin(taken_names), std::end(taken_names), name);
}

/// \throws std::invalid_argument  unless a namespace, "a::b", and a function may have these names.
inline void check_header_names(std::string_view who, std::string_view name_space,
                               std::string_view function) {
    for (std::string_view rest = name_space;;) {
        const std::size_t end = std::min(rest.find("::"), rest.size());
        if (!is_free_identifier(rest.substr(0, end)))
            refuse(who, ": name_space must be an identifier, or several as in a::b, got ",
                   name_space);
        if (end == rest.size()) break;
        rest.remove_prefix(end + 2);
    }
    if (!is_free_identifier(function))
        refuse(who, ": function must be an identifier, got ", function);
}

}  // namespace stochastic_depth::detail
