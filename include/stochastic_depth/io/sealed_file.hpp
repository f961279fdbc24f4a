// SPDX-License-Identifier: MIT
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/file.hpp>
#include <stochastic_depth/io/little_endian.hpp>

/// Files that are whole or not there: written beside the old one and renamed over it, sealed with
/// their length and a hash. Needs POSIX, for which reason it is not part of all.hpp.
namespace stochastic_depth::detail {

/// FNV-1a, 64 bits. Each of its steps is a bijection of the hash and, for a given hash, of the
/// byte, so every change within one byte changes the hash for certain; others escape with a chance
/// of about 2^-64.
/// \source Fowler, Noll, Vo: draft-eastlake-fnv.
[[nodiscard]] constexpr std::uint64_t fnv1a(std::span<const std::uint8_t> bytes) {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (const std::uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3;
    return hash;
}

/// Appends numbers to bytes, little-endian on every machine.
class ByteWriter {
public:
    explicit ByteWriter(std::vector<std::uint8_t>& bytes) : bytes_(&bytes) {}
    template <class Unsigned>
    void number(Unsigned value) {
        std::array<std::uint8_t, sizeof value> bytes;
        store_little(bytes.data(), value);
        bytes_->insert(bytes_->end(), bytes.begin(), bytes.end());
    }
    void text(std::string_view text) {
        number(static_cast<std::uint32_t>(text.size()));
        bytes_->insert(bytes_->end(), text.begin(), text.end());
    }

private:
    std::vector<std::uint8_t>* bytes_;
};

/// Takes numbers from bytes in the order in which ByteWriter appended them.
/// \throws std::runtime_error  past the end.
class ByteReader {
public:
    explicit ByteReader(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
    [[nodiscard]] std::size_t left() const { return bytes_.size(); }
    template <class Unsigned>
    [[nodiscard]] Unsigned number() {
        return load_little<Unsigned>(take(sizeof(Unsigned)).data());
    }
    /// In the bytes' memory: it may be as long as the file.
    [[nodiscard]] std::string_view text() {
        const auto letters = take(number<std::uint32_t>());
        return {reinterpret_cast<const char*>(letters.data()), letters.size()};
    }
    void skip(std::size_t count) { (void)take(count); }

private:
    std::span<const std::uint8_t> take(std::size_t count) {
        if (count > left())
            throw std::runtime_error(
                message("a record needs ", count, " bytes, ", left(), " are left"));
        const std::span<const std::uint8_t> taken = bytes_.first(count);
        bytes_ = bytes_.subspan(count);
        return taken;
    }

    std::span<const std::uint8_t> bytes_;
};

inline constexpr std::size_t seal_header = 20, seal_hash = 8;

/// Replaces a file in one step: whenever the process or the machine stops, the old content or the
/// new is there. Writes path + ".partial" first; one writer of a path at a time.
///
/// \param who  Named in messages.
/// \throws std::runtime_error  naming the file and the system's reason; the old file is untouched
///                             then.
inline void replace_file(std::string_view who, const std::string& path,
                         std::span<const std::uint8_t> bytes) {
    const std::string partial = path + ".partial";
    const auto fail = [&](std::string_view what) {
        const int error = errno;
        ::unlink(partial.c_str());
        throw std::runtime_error(
            message(who, ": ", path, ": ", what, ": ", std::generic_category().message(error)));
    };
    int file = ::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0) fail("cannot create the file");
    while (!bytes.empty()) {
        const ::ssize_t written = ::write(file, bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) break;
        bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
    // On disk before it takes the old one's name: a rename may reach the disk earlier than data.
    const bool complete = bytes.empty() && ::fsync(file) == 0;
    const int error = errno;
    if (::close(file) != 0 || !complete) {
        if (!complete) errno = error;
        fail("cannot write the file");
    }
    if (::rename(partial.c_str(), path.c_str()) != 0) fail("cannot replace the file");
    // The new name is in place; that it is on disk too, not every file system can promise.
    const std::size_t slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    file = ::open(directory.c_str(), O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        (void)::fsync(file);
        ::close(file);
    }
}

/// Magic (8 bytes), version (4), length of the content (8), content, and their hash (8).
[[nodiscard]] inline std::vector<std::uint8_t> sealed_bytes(
    std::string_view magic, std::uint32_t version, std::span<const std::uint8_t> content) {
    std::vector<std::uint8_t> bytes(magic.begin(), magic.end());
    bytes.reserve(seal_header + content.size() + seal_hash);
    ByteWriter writer{bytes};
    writer.number(version);
    writer.number(static_cast<std::uint64_t>(content.size()));
    bytes.insert(bytes.end(), content.begin(), content.end());
    writer.number(fnv1a(bytes));
    return bytes;
}
inline void write_sealed(std::string_view who, const std::string& path, std::string_view magic,
                         std::uint32_t version, std::span<const std::uint8_t> content) {
    replace_file(who, path, sealed_bytes(magic, version, content));
}

/// The content of a file that write_sealed wrote.
/// \throws std::runtime_error  naming the file and what is wrong, if it cannot be read, is of
///                             another kind or version, is cut short or longer than written, or is
///                             damaged.
[[nodiscard]] inline std::vector<std::uint8_t> read_sealed(std::string_view who,
                                                           const std::string& path,
                                                           std::string_view magic,
                                                           std::uint32_t version) {
    std::vector<std::uint8_t> bytes = read_file(who, path);
    const auto fail = [&](const auto&... what) {
        throw std::runtime_error(message(who, ": ", path, ": ", what...));
    };
    const std::string_view start(reinterpret_cast<const char*>(bytes.data()),
                                 bytes.size() < magic.size() ? bytes.size() : magic.size());
    if (start != magic.substr(0, start.size()))
        fail("the file is of another kind: it doesn't begin with ", magic);
    if (bytes.size() < seal_header + seal_hash)
        fail("the file is cut short: it has ", bytes.size(), " bytes, fewer than the least of ",
             seal_header + seal_hash);
    ByteReader reader{std::span<const std::uint8_t>(bytes).subspan(magic.size())};
    if (const auto found = reader.number<std::uint32_t>(); found != version)
        fail("the file has format version ", found, ", and this library reads version ", version);
    const auto length = reader.number<std::uint64_t>();
    const std::uint64_t held = bytes.size() - seal_header - seal_hash;
    if (held < length)
        fail("the file is cut short: it holds ", held, " of ", length, " bytes of content");
    if (held > length)
        fail("the file is too long: it holds ", held, " bytes of content, not ", length);
    const std::size_t end = bytes.size() - seal_hash;
    ByteReader seal{std::span<const std::uint8_t>(bytes).subspan(end)};
    if (seal.number<std::uint64_t>() != fnv1a(std::span<const std::uint8_t>(bytes).first(end)))
        fail("the file is damaged: its bytes don't match their hash");
    bytes.resize(end);
    bytes.erase(bytes.begin(), bytes.begin() + seal_header);
    return bytes;
}

}  // namespace stochastic_depth::detail
