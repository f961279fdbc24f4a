// SPDX-License-Identifier: MIT
#pragma once

#include <zlib.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <vector>

#include <stochastic_depth/detail/check.hpp>

namespace stochastic_depth {

/// Reads a whole file, gzip-compressed or plain; the only header that needs zlib (link with -lz),
/// and for that reason not part of all.hpp.
///
///     const auto images = parse_idx(read_gzip(path), path);
///
/// \param path  A std::filesystem::path does as well.
/// \returns     The uncompressed bytes. A file that does not start with 1f 8b is returned as it is.
/// \throws std::runtime_error  naming the file, if it cannot be read, is cut short or damaged (its
///                             length and CRC-32 are checked).
[[nodiscard]] inline std::vector<std::uint8_t> read_gzip(const std::string& path) {
    const auto fail = [&path](std::string_view what) {
        throw std::runtime_error(detail::message("read_gzip: ", path, ": ", what));
    };
    struct Close {
        void operator()(gzFile file) const { gzclose_r(file); }
    };
    errno = 0;
    const std::unique_ptr<std::remove_pointer_t<gzFile>, Close> file(gzopen(path.c_str(), "rb"));
    if (!file) {
        const int error = errno == 0 ? ENOMEM : errno;  // zlib: errno is 0 if memory ran out
        fail("cannot open the file: " + std::generic_category().message(error));
    }
    constexpr unsigned block = 1U << 17;
    gzbuffer(file.get(), block);
    std::vector<std::uint8_t> bytes;
    for (std::size_t end = 0;;) {
        bytes.resize(end + block);
        const int count = gzread(file.get(), bytes.data() + end, block);
        if (count > 0) end += static_cast<std::size_t>(count);
        if (count == static_cast<int>(block)) continue;
        int code = Z_OK;
        std::string_view text = gzerror(file.get(), &code);
        if (code == Z_BUF_ERROR) fail("the gzip data is cut short");
        if (code != Z_OK) {
            // zlib writes "path: " in front.
            if (text.starts_with(path)) text.remove_prefix(path.size() + 2);
            fail("cannot read the file: " + std::string(text));
        }
        bytes.resize(end);
        return bytes;
    }
}

}  // namespace stochastic_depth
