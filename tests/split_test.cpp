// SPDX-License-Identifier: MIT
#include <stochastic_depth/text/split.hpp>

#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using Words = std::vector<std::string>;

Words split(std::string_view text, TokenUnit unit, Punctuation punctuation = Punctuation::apart) {
    Words tokens;
    detail::for_each_token("Who", text, unit, punctuation,
                           [&](std::string_view token) { tokens.emplace_back(token); });
    return tokens;
}

TEST_CASE("split: white space ends words, and punctuation marks are words where asked for",
          "[split]") {
    const std::string text = " Don't\tpanic:\r\n  K-19 (1961)...  ";
    CHECK(split(text, TokenUnit::word) ==
          Words{"Don", "'", "t", "panic", ":", "K", "-", "19", "(", "1961", ")", ".", ".", "."});
    CHECK(split(text, TokenUnit::word, Punctuation::within_words) ==
          Words{"Don't", "panic:", "K-19", "(1961)..."});
    for (const std::string nothing : {"", " ", " \t\r\n\v\f "})
        for (const Punctuation punctuation : {Punctuation::apart, Punctuation::within_words})
            CHECK(split(nothing, TokenUnit::word, punctuation).empty());
}

TEST_CASE("split: words are the same as a loop over characters finds them", "[split]") {
    std::string text;
    unsigned state = 1;
    for (int i = 0; i < 4000; ++i) {
        state = state * 1664525u + 1013904223u;
        const unsigned kind = state >> 16 & 7;
        text += kind < 4 ? static_cast<char>('a' + kind) : std::string("., \n")[kind - 4];
    }
    Words expected;
    bool open = false;
    for (const char c : text) {
        if (c == ' ' || c == '\n')
            open = false;
        else if (c == '.' || c == ',')
            expected.emplace_back(1, c), open = false;
        else if (open)
            expected.back() += c;
        else
            expected.emplace_back(1, c), open = true;
    }
    CHECK(split(text, TokenUnit::word) == expected);
}

TEST_CASE("split: marks and letters beyond ASCII are parts of words", "[split]") {
    CHECK(split("caf\xC3\xA9\xE2\x80\x94\xC2\xA0x y", TokenUnit::word) ==
          Words{"caf\xC3\xA9\xE2\x80\x94\xC2\xA0x", "y"});
    for (int c = 0; c < 128; ++c) {
        const bool is_mark =
            std::string_view("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~").find(static_cast<char>(c)) !=
            std::string_view::npos;
        CHECK(detail::is_ascii_punctuation(static_cast<char>(c)) == is_mark);
        CHECK(
            detail::is_ascii_space(static_cast<char>(c)) ==
            (std::string_view(" \t\n\v\f\r").find(static_cast<char>(c)) != std::string_view::npos));
    }
}

TEST_CASE("split: bytes and characters leave nothing out", "[split]") {
    const std::string text = "a \xE2\x82\xAC\n";
    CHECK(split(text, TokenUnit::character) == Words{"a", " ", "\xE2\x82\xAC", "\n"});
    CHECK(split(text, TokenUnit::byte) == Words{"a", " ", "\xE2", "\x82", "\xAC", "\n"});
    CHECK(split("\xFF", TokenUnit::byte) == Words{"\xFF"});
    CHECK(split("", TokenUnit::character).empty());
}

TEST_CASE("split: a text that is no UTF-8 is refused before any token", "[split]") {
    for (const TokenUnit unit : {TokenUnit::character, TokenUnit::word}) {
        int visited = 0;
        CHECK(test::refusal([&] {
                  detail::for_each_token("Who", "one two \x80", unit, Punctuation::apart,
                                         [&](std::string_view) { ++visited; });
              }) == "Who: text must be UTF-8, got byte 0x80 at byte 8");
        CHECK(visited == 0);
    }
}

TEST_CASE("split: lower case is that of ASCII alone", "[split]") {
    CHECK(detail::in_ascii_lower("AZ az @[ \xC3\x84") == "az az @[ \xC3\x84");
}

}  // namespace
