// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <stochastic_depth/text/utf8.hpp>

namespace stochastic_depth {

/// What a token of a text is.
enum class TokenUnit {
    /// A byte, whatever the text's encoding.
    byte,
    /// A character (code point) of UTF-8.
    character,
    /// What stands between white space of ASCII; by `Punctuation`, a punctuation mark.
    word,
};

/// Where a word ends.
enum class Punctuation {
    /// Each punctuation mark of ASCII is a word: "don't." has four.
    apart,
    /// Only white space ends words: for texts whose words have been set apart already.
    within_words,
};

enum class LetterCase {
    as_written,
    /// A to Z become a to z; other letters stay.
    ascii_lower,
};

namespace detail {

[[nodiscard]] constexpr bool is_ascii_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
[[nodiscard]] constexpr bool is_ascii_punctuation(char c) {
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
}

[[nodiscard]] inline std::string in_ascii_lower(std::string_view text) {
    std::string lower(text);
    for (char& c : lower)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
    return lower;
}

template <class Visit>
void for_each_word(std::string_view text, Punctuation punctuation, const Visit& visit) {
    std::size_t begin = 0;  // of the word that is open
    const auto end_word = [&](std::size_t end) {
        if (end > begin) visit(text.substr(begin, end - begin));
        begin = end;
    };
    for (std::size_t at = 0; at < text.size(); ++at) {
        const bool is_space = is_ascii_space(text[at]);
        if (!is_space && !(punctuation == Punctuation::apart && is_ascii_punctuation(text[at])))
            continue;
        end_word(at);
        if (is_space)
            begin = at + 1;
        else
            end_word(at + 1);
    }
    end_word(text.size());
}

/// Calls visit(token), a std::string_view, for each token of a text.
/// \throws std::invalid_argument  if the text is no UTF-8, unless tokens are bytes; nothing has
///                                been visited then.
template <class Visit>
void for_each_token(std::string_view who, std::string_view text, TokenUnit unit,
                    Punctuation punctuation, const Visit& visit) {
    if (unit == TokenUnit::byte) {
        for (std::size_t at = 0; at < text.size(); ++at) visit(text.substr(at, 1));
        return;
    }
    for_each_character(who, text, [](std::string_view) {});
    if (unit == TokenUnit::character)
        for_each_character(who, text, visit);
    else
        for_each_word(text, punctuation, visit);
}

}  // namespace detail
}  // namespace stochastic_depth
