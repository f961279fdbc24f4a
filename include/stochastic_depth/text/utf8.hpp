// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>

namespace stochastic_depth::detail {

/// U+FFFD, which stands for what cannot be shown.
inline constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

/// "0xff".
[[nodiscard]] inline std::string hex_byte(char byte) {
    constexpr std::string_view digits = "0123456789abcdef";
    const auto value = static_cast<unsigned char>(byte);
    return {'0', 'x', digits[value / 16], digits[value % 16]};
}

/// Bytes of the character that begins at `at`; 0 if none does. Neither overlong forms nor
/// surrogates are characters, nor is what lies past U+10FFFF.
/// \param at  Below text.size().
/// \source    The Unicode Standard, table 3-7, well-formed UTF-8 byte sequences.
[[nodiscard]] inline std::size_t character_size(std::string_view text, std::size_t at) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    const std::size_t size = first < 0xC2   ? 0
                             : first < 0xE0 ? 2
                             : first < 0xF0 ? 3
                             : first < 0xF5 ? 4
                                            : 0;
    if (size == 0 || size > text.size() - at) return 0;
    // The second byte tells what the first one leaves open.
    const unsigned lowest = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    const unsigned highest = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (byte(1) < lowest || byte(1) > highest) return 0;
    for (std::size_t i = 2; i < size; ++i)
        if (byte(i) < 0x80 || byte(i) > 0xBF) return 0;
    return size;
}

/// Calls visit(character) for each character of a text.
/// \param who  Named in messages.
/// \throws std::invalid_argument  naming the byte and its place, at the first one that begins no
///                                character; those before it have been visited.
template <class Visit>
void for_each_character(std::string_view who, std::string_view text, const Visit& visit) {
    for (std::size_t at = 0, size = 0; at < text.size(); at += size) {
        size = character_size(text, at);
        if (size == 0)
            refuse(who, ": text must be UTF-8, got byte ", hex_byte(text[at]), " at byte ", at);
        visit(text.substr(at, size));
    }
}

}  // namespace stochastic_depth::detail
