// SPDX-License-Identifier: MIT
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <stochastic_depth/detail/check.hpp>

namespace stochastic_depth::detail {

/// All bytes of a file.
/// \param who  Named in messages.
/// \throws std::runtime_error  naming the file and the system's reason.
[[nodiscard]] inline std::vector<std::uint8_t> read_file(std::string_view who,
                                                         const std::string& path) {
    const auto fail = [&](std::string_view what) {
        const int error = errno;
        throw std::runtime_error(
            message(who, ": ", path, ": ", what, ": ", std::generic_category().message(error)));
    };
    struct Close {
        void operator()(std::FILE* file) const { std::fclose(file); }
    };
    const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
    if (!file) fail("cannot open the file");
    std::vector<std::uint8_t> bytes;
    constexpr std::size_t block = std::size_t{1} << 16;
    // Growing would take up to three times as much memory. What has no size grows.
    std::error_code has_no_size;
    const std::uintmax_t size = std::filesystem::file_size(path, has_no_size);
    if (!has_no_size) bytes.reserve(static_cast<std::size_t>(size) + block);
    for (std::size_t end = 0;;) {
        bytes.resize(end + block);
        const std::size_t count = std::fread(bytes.data() + end, 1, block, file.get());
        end += count;
        if (count == block) continue;
        if (std::ferror(file.get())) fail("cannot read the file");
        bytes.resize(end);
        return bytes;
    }
}

}  // namespace stochastic_depth::detail
