// SPDX-License-Identifier: MIT
#include <stochastic_depth/text/utf8.hpp>

#include <cstdint>
#include <string>
#include <string_view>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using test::refusal;

/// UTF-8 of a number, whether or not that is a character.
std::string encoded(std::uint32_t code, int size) {
    if (size == 1) return {static_cast<char>(code)};
    std::string text;
    for (int i = 0; i < size; ++i, code >>= 6)
        text.insert(text.begin(), static_cast<char>(0x80 | (code & 0x3F)));
    const unsigned mark[] = {0, 0, 0xC0, 0xE0, 0xF0};
    text[0] = static_cast<char>(static_cast<unsigned char>(text[0] & 0x3F) | mark[size]);
    return text;
}

int shortest(std::uint32_t code) {
    return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
}

TEST_CASE("UTF-8: every code point in its shortest form is a character, surrogates are none",
          "[utf8]") {
    for (std::uint32_t code = 0; code < 0x110000; code += code < 0x11000 ? 1 : 97) {
        const int size = shortest(code);
        const bool is_surrogate = code >= 0xD800 && code <= 0xDFFF;
        const std::size_t found = detail::character_size(encoded(code, size), 0);
        if (found != (is_surrogate ? 0 : static_cast<std::size_t>(size))) {
            CAPTURE(code);
            REQUIRE(found == (is_surrogate ? 0 : static_cast<std::size_t>(size)));
        }
    }
    CHECK(detail::character_size(encoded(0x10FFFF, 4), 0) == 4);
    CHECK(detail::character_size(encoded(0x110000, 4), 0) == 0);
    CHECK(detail::character_size("\xF5\x80\x80\x80", 0) == 0);
}

TEST_CASE("UTF-8: longer forms than needed are no characters", "[utf8]") {
    for (std::uint32_t code = 0; code < 0x10000; code += code < 0x900 ? 1 : 61)
        for (int size = shortest(code) + 1; size <= 4; ++size) {
            const std::size_t found = detail::character_size(encoded(code, size), 0);
            if (found != 0) {
                CAPTURE(code, size);
                REQUIRE(found == 0);
            }
        }
}

TEST_CASE("UTF-8: what is cut short or goes on wrongly is no character", "[utf8]") {
    const std::string whole = "\xF0\x9F\x98\x80";
    for (std::size_t size = 1; size < 4; ++size)
        CHECK(detail::character_size(whole.substr(0, size), 0) == 0);
    for (std::size_t i = 1; i < 4; ++i)
        for (const char wrong : {'a', '\xC3', '\0', '\xFF'}) {
            std::string text = whole;
            text[i] = wrong;
            CHECK(detail::character_size(text, 0) == 0);
        }
    for (int lone = 0x80; lone < 0xC0; ++lone)
        CHECK(detail::character_size(std::string(1, static_cast<char>(lone)) + "aaa", 0) == 0);
}

TEST_CASE("UTF-8: characters are visited in order, up to the byte that begins none", "[utf8]") {
    std::string seen;
    const auto visit = [&](std::string_view character) {
        seen += character;
        seen += '|';
    };
    detail::for_each_character("Who", "na\xC3\xAFve \xE2\x82\xAC", visit);
    CHECK(seen == "n|a|\xC3\xAF|v|e| |\xE2\x82\xAC|");
    seen.clear();
    CHECK(refusal([&] { detail::for_each_character("Who", "ab\xC3\xAF\xC3", visit); }) ==
          "Who: text must be UTF-8, got byte 0xc3 at byte 4");
    CHECK(seen == "a|b|\xC3\xAF|");
}

}  // namespace
