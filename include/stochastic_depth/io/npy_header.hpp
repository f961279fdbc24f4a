// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/little_endian.hpp>

namespace stochastic_depth::detail {

/// What the header of an array says.
struct NpyHeader {
    char order = '<';  // '<', '>' or '|'
    char kind = 'f';   // 'f', 'i', 'u' or 'b'
    std::size_t bytes = 4;
    bool is_fortran = false;
    std::vector<std::uint64_t> shape;

    [[nodiscard]] std::endian byte_order() const {
        return order == '>' ? std::endian::big : std::endian::little;
    }
};

/// Reads the Python dictionary that a header is.
class NpyHeaderReader {
public:
    explicit NpyHeaderReader(std::string_view text) : text_(text) {}

    /// \throws std::runtime_error  if it is anything else.
    [[nodiscard]] NpyHeader read() {
        NpyHeader header;
        bool has_type = false, has_order = false, has_shape = false;
        const auto once = [&](bool& has, std::string_view key) {
            if (std::exchange(has, true)) fail(key, " is there twice");
        };
        expect('{');
        while (!skip('}')) {
            const std::string_view key = string();
            expect(':');
            if (key == "descr") {
                once(has_type, key);
                read_type(header);
            } else if (key == "fortran_order") {
                once(has_order, key);
                header.is_fortran = read_bool();
            } else if (key == "shape") {
                once(has_shape, key);
                read_shape(header.shape);
            } else {
                fail("unknown key ", beginning(key));
            }
            if (!skip(',')) {
                expect('}');
                break;
            }
        }
        skip_space();
        if (at_ != text_.size()) fail("something stands behind the dictionary");
        if (!has_type || !has_order || !has_shape)
            fail("it must have descr, fortran_order and shape");
        return header;
    }

private:
    template <class... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        throw std::runtime_error(message("header: ", parts..., " (at byte ", at_, ")"));
    }
    void skip_space() {
        while (at_ < text_.size() &&
               (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t'))
            ++at_;
    }
    [[nodiscard]] bool skip(char c) {
        skip_space();
        const bool is_there = at_ < text_.size() && text_[at_] == c;
        at_ += is_there;
        return is_there;
    }
    void expect(char c) {
        if (!skip(c)) fail("expected ", std::string_view(&c, 1));
    }
    [[nodiscard]] std::string_view string() {
        skip_space();
        const char quote = at_ < text_.size() ? text_[at_] : '\0';
        if (quote != '\'' && quote != '"') fail("expected a string");
        const std::size_t begin = ++at_;
        while (at_ < text_.size() && text_[at_] != quote) {
            if (text_[at_] == '\\') fail("a string holds a backslash");
            ++at_;
        }
        if (at_ == text_.size()) fail("a string has no end");
        return text_.substr(begin, at_++ - begin);
    }
    [[nodiscard]] bool read_bool() {
        skip_space();
        for (const bool value : {true, false}) {
            const std::string_view word = value ? "True" : "False";
            if (!text_.substr(at_).starts_with(word)) continue;
            at_ += word.size();
            return value;
        }
        fail("fortran_order must be True or False");
    }
    void read_type(NpyHeader& header) {
        const std::string_view type = string();
        const auto is_one_of = [](char c, std::string_view letters) {
            return letters.find(c) != std::string_view::npos;
        };
        bool is_known = type.size() == 3 && is_one_of(type[0], "<>|=") &&
                        is_one_of(type[1], "fiub") && is_one_of(type[2], "1248");
        if (is_known) {
            header = {type[0], type[1], static_cast<std::size_t>(type[2] - '0'),
                      header.is_fortran, std::move(header.shape)};
            const bool is_float = header.kind == 'f';
            is_known = !(is_float && header.bytes == 1) &&
                       !(header.kind == 'b' && header.bytes != 1) &&
                       // Without an order there is one byte alone.
                       !(header.order == '|' && header.bytes != 1) && header.order != '=';
        }
        if (!is_known)
            fail("descr must be of plain numbers, '<f4' for one, found ", beginning(type));
    }
    void read_shape(std::vector<std::uint64_t>& shape) {
        expect('(');
        while (!skip(')')) {
            if (shape.size() == 32) fail("there must be at most 32 dimensions");
            shape.push_back(natural());
            if (skip(',')) continue;
            if (shape.size() == 1) fail("expected , behind the only dimension");
            expect(')');
            break;
        }
    }
    [[nodiscard]] std::uint64_t natural() {
        skip_space();
        const std::size_t begin = at_;
        std::uint64_t number = 0;
        for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
            const auto digit = static_cast<std::uint64_t>(text_[at_] - '0');
            if (number > (std::numeric_limits<std::uint64_t>::max() - digit) / 10)
                fail("a dimension is out of range");
            number = 10 * number + digit;
        }
        if (at_ == begin) fail("expected a dimension without sign");
        if (text_[begin] == '0' && at_ > begin + 1) fail("a dimension begins with 0");
        return number;
    }

    std::string_view text_;
    std::size_t at_ = 0;
};

/// A header and the numbers behind it, as many as it says, in the file's memory.
struct NpyArray {
    NpyHeader header;
    std::span<const std::uint8_t> data;
};

/// \throws std::runtime_error  saying what is wrong.
[[nodiscard]] inline NpyArray parse_npy(std::span<const std::uint8_t> bytes) {
    const auto fail = [](const auto&... parts) { throw std::runtime_error(message(parts...)); };
    constexpr std::string_view magic = "\x93NUMPY";
    for (std::size_t i = 0; i < std::min(magic.size(), bytes.size()); ++i)
        if (bytes[i] != static_cast<std::uint8_t>(magic[i]))
            fail("the file is of another kind: it doesn't begin with 93 NUMPY");
    if (bytes.size() < 8) fail("the file is cut short: it has ", bytes.size(), " bytes");
    const unsigned major = bytes[6], minor = bytes[7];
    if (major < 1 || major > 3 || minor != 0)
        fail("the file has format version ", major, ".", minor, ", and 1.0 to 3.0 are read");
    const std::size_t begin = major == 1 ? 10 : 12;
    if (bytes.size() < begin) fail("the file is cut short: it has ", bytes.size(), " bytes");
    const std::size_t length = major == 1 ? load_little<std::uint16_t>(bytes.data() + 8)
                                          : load_little<std::uint32_t>(bytes.data() + 8);
    if (length > bytes.size() - begin)
        fail("the file is cut short: its header has ", length, " bytes, and ",
             bytes.size() - begin, " are there");
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + begin, length);
    if (text.empty() || text.back() != '\n') fail("header: it must end with a line break");
    NpyArray array{NpyHeaderReader(text).read(), bytes.subspan(begin + length)};
    std::uint64_t size = array.header.bytes;
    bool is_empty = false;
    for (const std::uint64_t dimension : array.header.shape) {
        is_empty = is_empty || dimension == 0;
        if (dimension > 0 && size > (std::uint64_t{1} << 62) / dimension)
            fail("header: there are more numbers than can be counted");
        if (dimension > 0) size *= dimension;
    }
    if (is_empty) size = 0;
    if (array.data.size() != size)
        fail("the file is cut short or too long: its numbers take ", size, " bytes, and ",
             array.data.size(), " are there");
    return array;
}

}  // namespace stochastic_depth::detail
