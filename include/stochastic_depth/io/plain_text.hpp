// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/file.hpp>

namespace stochastic_depth {
namespace detail {

/// Calls visit(line, number) for each line of a text, numbers from 1. A line ends at \n or \r\n or
/// at the end of the file; behind a last \n there is no further line. A byte order mark of UTF-8 at
/// the beginning is left out.
/// \throws std::runtime_error  if there is no line.
template <class Visit>
void for_each_line(std::string_view who, std::span<const std::uint8_t> bytes, std::string_view name,
                   const Visit& visit) {
    std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    if (text.empty())
        throw std::runtime_error(
            message(who, ": ", name, ": expected at least 1 line, found none"));
    for (std::size_t number = 1; !text.empty(); ++number) {
        const std::size_t end = text.find('\n');
        std::string_view line = text.substr(0, end);
        text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
        if (line.ends_with('\r')) line.remove_suffix(1);
        visit(line, number);
    }
}

}  // namespace detail

/// The lines of a plain text in memory, without their ends: \n or \r\n, which the last line need
/// not have. A byte order mark of UTF-8 at the beginning is left out. Bytes are what they are: a
/// tokenizer says whether they must be UTF-8.
///
/// \param bytes  A whole file.
/// \param name   What to call it in error messages: the file's name.
/// \throws std::runtime_error  naming the file, if there is no line.
[[nodiscard]] inline std::vector<std::string> parse_lines(std::span<const std::uint8_t> bytes,
                                                          std::string_view name) {
    std::vector<std::string> lines;
    detail::for_each_line("parse_lines", bytes, name,
                          [&](std::string_view line, std::size_t) { lines.emplace_back(line); });
    return lines;
}

/// Reads a file of plain text by lines: parse_lines of its bytes.
/// \throws std::runtime_error  if the file cannot be read, or as parse_lines does.
[[nodiscard]] inline std::vector<std::string> read_lines(const std::string& path) {
    return parse_lines(detail::read_file("read_lines", path), path);
}

}  // namespace stochastic_depth
