// SPDX-License-Identifier: MIT
#pragma once

#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/file.hpp>

namespace stochastic_depth {
namespace detail {

/// gzip data in memory, uncompressed piece by piece.
class GzipData {
public:
    /// \param bytes  Outlive this.
    explicit GzipData(const std::vector<std::uint8_t>& bytes)
        : next_(bytes.data()), left_(bytes.size()) {
        constexpr int gzip_alone = 16;
        if (inflateInit2(&stream_, MAX_WBITS + gzip_alone) != Z_OK) throw std::bad_alloc();
    }
    GzipData(const GzipData&) = delete;
    GzipData& operator=(const GzipData&) = delete;
    ~GzipData() { inflateEnd(&stream_); }

    /// Whether what is left starts as gzip data does, as far as it goes.
    [[nodiscard]] bool at_member() const {
        return left_ > 0 && next_[0] == 0x1f && (left_ == 1 || next_[1] == 0x8b);
    }
    [[nodiscard]] std::size_t left() const { return left_; }

    /// Writes up to `size` bytes, and lessens size by their number.
    /// \returns  zlib's code.
    [[nodiscard]] int read(std::uint8_t* to, unsigned& size) {
        const auto available = static_cast<unsigned>(std::min(left_, std::size_t{1} << 30));
        stream_.next_in = const_cast<std::uint8_t*>(next_);
        stream_.avail_in = available;
        stream_.next_out = to;
        stream_.avail_out = size;
        const int code = inflate(&stream_, Z_NO_FLUSH);
        next_ += available - stream_.avail_in;
        left_ -= available - stream_.avail_in;
        size = stream_.avail_out;
        return code;
    }
    void begin_member() { inflateReset(&stream_); }
    [[nodiscard]] std::string_view error() const { return stream_.msg ? stream_.msg : "bad data"; }

private:
    z_stream stream_{};
    const std::uint8_t* next_;
    std::size_t left_;
};

}  // namespace detail

/// Reads a whole file, gzip-compressed or plain. Needs zlib (link with -lz), and is for that reason
/// not part of all.hpp.
///
///     const auto images = parse_idx(read_gzip(path), path);
///
/// \param path  A std::filesystem::path does as well.
/// \returns     The uncompressed bytes. A file that does not start with 1f 8b is returned as it is.
/// \throws std::runtime_error  naming the file, if it cannot be read, is cut short or damaged (its
///                             length and CRC-32 are checked), or goes on with something else.
[[nodiscard]] inline std::vector<std::uint8_t> read_gzip(const std::string& path) {
    const auto fail = [&path](std::string_view what) {
        throw std::runtime_error(detail::message("read_gzip: ", path, ": ", what));
    };
    std::vector<std::uint8_t> file = detail::read_file("read_gzip", path);
    detail::GzipData data(file);
    if (data.left() < 2 || !data.at_member()) return file;
    constexpr unsigned block = 1U << 17;
    std::vector<std::uint8_t> bytes;
    for (std::size_t end = 0;;) {
        bytes.resize(end + block);
        unsigned unused = block;
        const int code = data.read(bytes.data() + end, unused);
        end += block - unused;
        if (code == Z_OK) continue;
        if (code == Z_MEM_ERROR) throw std::bad_alloc();
        // There was room for output.
        if (code == Z_BUF_ERROR) fail("the gzip data is cut short");
        if (code != Z_STREAM_END) fail(detail::message("cannot read the file: ", data.error()));
        if (data.left() == 0) {
            bytes.resize(end);
            return bytes;
        }
        if (!data.at_member())
            fail(detail::message("the gzip data is followed by ", data.left(),
                                 " bytes of something else"));
        data.begin_member();
    }
}

}  // namespace stochastic_depth
