// SPDX-License-Identifier: MIT
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/text/utf8.hpp>

namespace stochastic_depth::detail {

/// Reads JSON whose form is known, token by token, and refuses every other. Memory: none; strings
/// are decoded where they stand, for none is longer decoded than written.
/// \source RFC 8259.
class JsonReader {
public:
    /// \param text  Changed in reading; outlives this and what it returns.
    explicit JsonReader(std::span<char> text) : text_(text.data()), size_(text.size()) {}

    [[nodiscard]] std::size_t position() const { return at_; }
    [[nodiscard]] std::string_view text_from(std::size_t begin) const {
        return {text_ + begin, at_ - begin};
    }

    /// Whether the next token begins so.
    [[nodiscard]] bool is_next(char c) {
        skip_space();
        return at_ < size_ && text_[at_] == c;
    }
    void expect(char c) {
        if (!is_next(c)) fail("expected ", std::string_view(&c, 1), ", found ", found());
        ++at_;
    }
    void expect_end() {
        skip_space();
        if (at_ < size_) fail("expected the end, found ", found());
    }

    /// Calls read() for each item of a list between two brackets.
    template <class Read>
    void list(char open, char close, const Read& read) {
        expect(open);
        if (!is_next(close)) {
            read();
            while (is_next(',')) {
                ++at_;
                read();
            }
        }
        expect(close);
    }
    /// Calls read(key), before the value, for each pair of an object.
    template <class Read>
    void object(const Read& read) {
        list('{', '}', [&] {
            const std::string_view key = string();
            expect(':');
            read(key);
        });
    }
    /// Calls read() for each entry of an array.
    template <class Read>
    void array(const Read& read) {
        list('[', ']', read);
    }

    /// A string, decoded.
    [[nodiscard]] std::string_view string() {
        expect('"');
        const std::size_t begin = at_;
        std::size_t end = at_;
        for (;;) {
            if (at_ == size_) fail("a string has no end");
            const char c = text_[at_];
            if (c == '"') break;
            if (c == '\\') {
                ++at_;
                end = decode_escape(end);
                continue;
            }
            if (static_cast<unsigned char>(c) < 0x20)
                fail("a string holds the control character ", hex_byte(c));
            const std::size_t bytes = character_size({text_, size_}, at_);
            if (bytes == 0) fail("a string must be UTF-8, found byte ", hex_byte(c));
            for (std::size_t i = 0; i < bytes; ++i) text_[end++] = text_[at_++];
        }
        ++at_;
        return {text_ + begin, end - begin};
    }

    /// A whole number without sign, fraction or exponent.
    [[nodiscard]] std::uint64_t natural() {
        skip_space();
        const std::size_t begin = at_;
        std::uint64_t number = 0;
        for (; at_ < size_ && is_digit(text_[at_]); ++at_) {
            const auto digit = static_cast<std::uint64_t>(text_[at_] - '0');
            if (number > (std::numeric_limits<std::uint64_t>::max() - digit) / 10)
                fail("a number is out of range");
            number = 10 * number + digit;
        }
        if (at_ == begin) fail("expected a number without sign, found ", found());
        if (text_[begin] == '0' && at_ > begin + 1) fail("a number begins with 0");
        if (at_ < size_ && (text_[at_] == '.' || text_[at_] == 'e' || text_[at_] == 'E'))
            fail("a number must be whole");
        return number;
    }

    /// Any number.
    [[nodiscard]] double real() {
        skip_space();
        const std::size_t begin = at_;
        const auto digits = [&] {
            const std::size_t first = at_;
            while (at_ < size_ && is_digit(text_[at_])) ++at_;
            if (at_ == first) fail("expected a digit, found ", found());
            return at_ - first;
        };
        const auto pass = [&](char a, char b) {
            const bool is_there = at_ < size_ && (text_[at_] == a || text_[at_] == b);
            at_ += is_there;
            return is_there;
        };
        (void)pass('-', '-');
        const std::size_t first = at_;
        if (digits() > 1 && text_[first] == '0') fail("a number begins with 0");
        if (pass('.', '.')) (void)digits();
        if (pass('e', 'E')) {
            (void)pass('+', '-');
            (void)digits();
        }
        double number = 0;
        const auto [end, error] = std::from_chars(text_ + begin, text_ + at_, number);
        if (error != std::errc() || end != text_ + at_) fail("a number is out of range");
        return number;
    }

    template <class... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        throw std::runtime_error(message(parts..., " (at byte ", at_, ")"));
    }

private:
    [[nodiscard]] static bool is_digit(char c) { return c >= '0' && c <= '9'; }

    void skip_space() {
        while (at_ < size_ && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' ||
                               text_[at_] == '\r'))
            ++at_;
    }
    [[nodiscard]] std::string found() const {
        if (at_ == size_) return "the end";
        const char c = text_[at_];
        return c > ' ' && c < 0x7f ? std::string(1, c) : hex_byte(c);
    }

    /// Decodes what stands behind a backslash.
    /// \returns  The end of what was written, from `to` on.
    std::size_t decode_escape(std::size_t to) {
        if (at_ == size_) fail("a string has no end");
        constexpr std::string_view letters = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
        const char c = text_[at_];
        if (const std::size_t i = letters.find(c); i != std::string_view::npos) {
            ++at_;
            text_[to++] = meant[i];
            return to;
        }
        if (c != 'u') fail("a string holds an unknown escape, \\", found());
        ++at_;
        std::uint32_t code = four_digits();
        if (code >= 0xD800 && code < 0xDC00) {
            if (!(size_ - at_ >= 2 && text_[at_] == '\\' && text_[at_ + 1] == 'u'))
                fail("a string holds half of a surrogate pair");
            at_ += 2;
            const std::uint32_t low = four_digits();
            if (low < 0xDC00 || low > 0xDFFF) fail("a string holds half of a surrogate pair");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        } else if (code >= 0xDC00 && code < 0xE000) {
            fail("a string holds half of a surrogate pair");
        }
        const auto put = [&](std::uint32_t byte) { text_[to++] = static_cast<char>(byte); };
        if (code < 0x80) {
            put(code);
        } else if (code < 0x800) {
            put(0xC0 | code >> 6);
            put(0x80 | (code & 0x3F));
        } else {
            if (code < 0x10000) {
                put(0xE0 | code >> 12);
            } else {
                put(0xF0 | code >> 18);
                put(0x80 | (code >> 12 & 0x3F));
            }
            put(0x80 | (code >> 6 & 0x3F));
            put(0x80 | (code & 0x3F));
        }
        return to;
    }
    [[nodiscard]] std::uint32_t four_digits() {
        std::uint32_t code = 0;
        for (int i = 0; i < 4; ++i, ++at_) {
            const char c = at_ < size_ ? text_[at_] : '"';
            const int digit = is_digit(c)              ? c - '0'
                              : (c >= 'a' && c <= 'f') ? c - 'a' + 10
                              : (c >= 'A' && c <= 'F') ? c - 'A' + 10
                                                       : -1;
            if (digit < 0) fail("a string holds \\u without four hexadecimal digits");
            code = code << 4 | static_cast<std::uint32_t>(digit);
        }
        return code;
    }

    char* text_;
    std::size_t size_;
    std::size_t at_ = 0;
};

/// A text as a JSON string, with its quotes.
[[nodiscard]] inline std::string json_string(std::string_view text) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string json = "\"";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            json += '\\';
            json += c;
        } else if (byte < 0x20) {
            json += "\\u00";
            json += digits[byte / 16];
            json += digits[byte % 16];
        } else {
            json += c;
        }
    }
    json += '"';
    return json;
}

}  // namespace stochastic_depth::detail
