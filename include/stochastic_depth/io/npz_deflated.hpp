// SPDX-License-Identifier: MIT
#pragma once

#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <stochastic_depth/io/npz.hpp>
#include <stochastic_depth/io/sealed_file.hpp>

/// NumPy's files of several arrays, deflated. Needs zlib (link with -lz), for which reason it is not
/// part of all.hpp.
namespace stochastic_depth {
namespace detail {

/// zlib takes as much at once.
inline constexpr std::size_t most_at_once = std::size_t{1} << 30;

/// A stream of zlib's, ended by its destructor.
struct ZlibStream {
    explicit ZlibStream(int (*end_)(z_stream*)) : end(end_) {}
    ZlibStream(const ZlibStream&) = delete;
    ZlibStream& operator=(const ZlibStream&) = delete;
    ~ZlibStream() { end(&stream); }

    z_stream stream{};
    int (*end)(z_stream*);
};

/// What a size claims is not believed: memory grows with what is there.
[[nodiscard]] inline std::vector<std::uint8_t> inflate_raw(std::span<const std::uint8_t> from,
                                                           std::size_t size) {
    ZlibStream holder{inflateEnd};
    z_stream& stream = holder.stream;
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
    std::vector<std::uint8_t> bytes(std::min(size, std::size_t{1} << 20));
    std::size_t end = 0;
    // zlib wants some place to write to, even for nothing; one byte more tells of too many.
    std::uint8_t past_the_end = 0;
    for (;;) {
        if (end == bytes.size() && end < size) bytes.resize(std::min(size, 2 * end));
        const auto in = static_cast<unsigned>(std::min(from.size(), most_at_once));
        const auto out = static_cast<unsigned>(std::min(bytes.size() - end, most_at_once));
        stream.next_in = const_cast<std::uint8_t*>(from.data());
        stream.avail_in = in;
        stream.next_out = out > 0 ? bytes.data() + end : &past_the_end;
        stream.avail_out = out > 0 ? out : 1;
        const int code = inflate(&stream, Z_NO_FLUSH);
        if (out == 0 && stream.avail_out == 0)
            throw std::runtime_error("it inflates to more bytes than it should have");
        if (out > 0) end += out - stream.avail_out;
        from = from.subspan(in - stream.avail_in);
        if (code == Z_STREAM_END) break;
        if (code == Z_MEM_ERROR) throw std::bad_alloc();
        if (code == Z_BUF_ERROR || (code == Z_OK && from.empty() && stream.avail_out > 0))
            throw std::runtime_error("its deflated data are cut short");
        if (code != Z_OK)
            throw std::runtime_error(message(
                "its deflated data are damaged: ",
                stream.msg ? std::string_view(stream.msg) : std::string_view("bad data")));
    }
    if (end < size) throw std::runtime_error("it inflates to fewer bytes than it should have");
    if (!from.empty()) throw std::runtime_error("its deflated data end before their place does");
    return bytes;
}

[[nodiscard]] inline std::vector<std::uint8_t> deflate_raw(std::span<const std::uint8_t> from) {
    ZlibStream holder{deflateEnd};
    z_stream& stream = holder.stream;
    constexpr int memory_level = 8;
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -MAX_WBITS, memory_level,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        throw std::bad_alloc();
    std::vector<std::uint8_t> bytes;
    std::vector<std::uint8_t> block(std::size_t{1} << 16);
    for (int code = Z_OK; code != Z_STREAM_END;) {
        const auto in = static_cast<unsigned>(std::min(from.size(), most_at_once));
        stream.next_in = const_cast<std::uint8_t*>(from.data());
        stream.avail_in = in;
        stream.next_out = block.data();
        stream.avail_out = static_cast<unsigned>(block.size());
        code = deflate(&stream, in == from.size() ? Z_FINISH : Z_NO_FLUSH);
        from = from.subspan(in - stream.avail_in);
        bytes.insert(bytes.end(), block.begin(),
                     block.end() - static_cast<std::ptrdiff_t>(stream.avail_out));
    }
    return bytes;
}

}  // namespace detail

/// A file that numpy.savez_compressed or numpy.savez wrote.
/// \param path  A std::filesystem::path does as well.
/// \throws std::runtime_error  as NpzFile does.
[[nodiscard]] inline NpzFile open_npz(const std::string& path) {
    return {path, detail::inflate_raw};
}

/// As save_npz, deflated.
inline void save_npz_deflated(const std::string& path, const std::vector<NpzArray>& arrays) {
    detail::replace_file("save_npz_deflated", path, detail::npz_bytes(arrays, detail::deflate_raw));
}

}  // namespace stochastic_depth
