// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/little_endian.hpp>
#include <stochastic_depth/io/sealed_file.hpp>

/// Zip archives, as far as NumPy's files are such.
///
/// \source PKWARE, APPNOTE.TXT, 4.3: local file headers, the central directory and its end; 4.5.3:
///         the extra field of large files.
namespace stochastic_depth::detail {

/// CRC-32 as zip archives have it, which catches every burst of up to 32 bits. Eight bytes at once.
/// \source Kounavis and Berry 2005, A Systematic Approach to Building High Performance,
///         Software-based, CRC Generators.
[[nodiscard]] inline std::uint32_t crc32_of(std::span<const std::uint8_t> bytes) {
    // tables[k][b]: the remainder of byte b with k zero bytes behind it.
    static constexpr auto tables = [] {
        std::array<std::array<std::uint32_t, 256>, 8> remainders{};
        for (std::uint32_t byte = 0; byte < 256; ++byte) {
            std::uint32_t remainder = byte;
            for (int bit = 0; bit < 8; ++bit)
                remainder = remainder >> 1 ^ ((remainder & 1) != 0 ? 0xEDB88320u : 0u);
            remainders[0][byte] = remainder;
        }
        for (std::size_t k = 1; k < 8; ++k)
            for (std::size_t byte = 0; byte < 256; ++byte) {
                const std::uint32_t before = remainders[k - 1][byte];
                remainders[k][byte] = before >> 8 ^ remainders[0][before & 0xFF];
            }
        return remainders;
    }();
    std::uint32_t crc = ~std::uint32_t{0};
    while (bytes.size() >= 8) {
        const std::uint64_t eight = load_little<std::uint64_t>(bytes.data()) ^ crc;
        crc = 0;
        for (std::size_t k = 0; k < 8; ++k) crc ^= tables[7 - k][eight >> (8 * k) & 0xFF];
        bytes = bytes.subspan(8);
    }
    for (const std::uint8_t byte : bytes) crc = crc >> 8 ^ tables[0][(crc ^ byte) & 0xFF];
    return ~crc;
}

inline constexpr std::uint32_t zip_local = 0x04034B50, zip_central = 0x02014B50,
                               zip_end = 0x06054B50, zip_large_end = 0x06064B50,
                               zip_large_locator = 0x07064B50;
inline constexpr std::size_t zip_local_bytes = 30, zip_central_bytes = 46, zip_end_bytes = 22,
                             zip_large_end_bytes = 56, zip_large_locator_bytes = 20;
inline constexpr std::uint16_t zip_stored = 0, zip_deflated = 8;
/// Bytes that one deflated byte stands for, at most.
inline constexpr std::size_t most_inflation = 1032;

/// What a zip archive's directory says of a file in it.
struct ZipEntry {
    std::string_view name;
    std::uint16_t method = zip_stored;
    std::uint32_t crc = 0;
    std::size_t size = 0;
    std::span<const std::uint8_t> packed;
};

/// Reads the directory of a zip archive.
class ZipReader {
public:
    /// \param bytes  Of the whole archive; they outlive what is read.
    explicit ZipReader(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

    /// The archive's files by name, checked: each lies before the directory, apart from the others.
    /// \throws std::runtime_error  saying what is wrong.
    [[nodiscard]] std::vector<ZipEntry> read() {
        const std::size_t count = find_directory();
        if (count > most_files) fail("there must be at most ", most_files, " files, found ", count);
        std::vector<ZipEntry> entries;
        std::vector<std::pair<std::size_t, std::size_t>> places;
        std::size_t at = directory_;
        for (std::size_t k = 0; k < count; ++k) {
            if (end_ - at < zip_central_bytes || four(at) != zip_central)
                fail("file ", k, " is not in the directory");
            const std::size_t name_bytes = two(at + 28), extra_bytes = two(at + 30);
            const std::size_t entry_bytes =
                zip_central_bytes + name_bytes + extra_bytes + two(at + 32);
            if (end_ - at < entry_bytes)
                fail("file ", k, " has a name that goes on past the directory");
            const auto [entry, place] = read_entry(at, name_bytes, extra_bytes);
            entries.push_back(entry);
            places.push_back(place);
            at += entry_bytes;
        }
        if (at != end_) fail("the directory has ", end_ - at, " bytes too many");
        std::sort(places.begin(), places.end());
        for (std::size_t k = 1; k < places.size(); ++k)
            if (places[k].first < places[k - 1].second) fail("two files overlap");
        std::sort(entries.begin(), entries.end(),
                  [](const ZipEntry& a, const ZipEntry& b) { return a.name < b.name; });
        for (std::size_t k = 1; k < entries.size(); ++k)
            if (entries[k].name == entries[k - 1].name)
                fail(beginning(entries[k].name), " is there twice");
        return entries;
    }

private:
    /// So that what is kept of them fits into some 50 MB.
    static constexpr std::size_t most_files = std::size_t{1} << 18;

    template <class... Parts>
    [[noreturn]] static void fail(const Parts&... parts) {
        throw std::runtime_error(message(parts...));
    }
    [[nodiscard]] std::size_t two(std::size_t at) const {
        return load_little<std::uint16_t>(bytes_.data() + at);
    }
    [[nodiscard]] std::uint32_t four(std::size_t at) const {
        return load_little<std::uint32_t>(bytes_.data() + at);
    }
    [[nodiscard]] std::uint64_t eight(std::size_t at) const {
        return load_little<std::uint64_t>(bytes_.data() + at);
    }
    [[nodiscard]] std::string_view text(std::size_t at, std::size_t size) const {
        return {reinterpret_cast<const char*>(bytes_.data()) + at, size};
    }

    /// Finds where the directory begins and ends.
    /// \returns  The number of files that it says there are.
    std::size_t find_directory() {
        if (bytes_.size() < zip_end_bytes)
            fail("the file is cut short: it has ", bytes_.size(), " bytes");
        const std::size_t end = bytes_.size() - zip_end_bytes;
        if (four(end) != zip_end)
            fail("the file is of another kind or cut short: it doesn't end as a zip archive does");
        std::uint64_t here = two(end + 8), count = two(end + 10), size = four(end + 12),
                      directory = four(end + 16);
        bool fits = four(end + 4) == 0 && two(end + 20) == 0;
        end_ = end;
        constexpr std::size_t large_bytes = zip_large_end_bytes + zip_large_locator_bytes;
        if (end >= large_bytes && four(end - zip_large_locator_bytes) == zip_large_locator) {
            // A large archive has a second end before that one, which then says what it cannot.
            const std::size_t locator = end - zip_large_locator_bytes;
            end_ = end - large_bytes;
            fits = fits && four(locator + 4) == 0 && eight(locator + 8) == end_ &&
                   four(locator + 16) == 1 && four(end_) == zip_large_end &&
                   eight(end_ + 4) == zip_large_end_bytes - 12 && eight(end_ + 16) == 0;
            const auto take = [&](std::uint64_t& number, std::size_t at, std::uint64_t most) {
                const std::uint64_t large = eight(end_ + at);
                fits = fits && (number == large || number == most);
                number = large;
            };
            take(here, 24, 0xFFFF);
            take(count, 32, 0xFFFF);
            take(size, 40, 0xFFFFFFFF);
            take(directory, 48, 0xFFFFFFFF);
        }
        if (!fits || here != count || size > end_ || directory != end_ - size)
            fail("the end of the directory doesn't fit the file");
        directory_ = static_cast<std::size_t>(directory);
        return static_cast<std::size_t>(count);
    }

    /// A file, and from where to where its header and bytes go.
    [[nodiscard]] std::pair<ZipEntry, std::pair<std::size_t, std::size_t>> read_entry(
        std::size_t at, std::size_t name_bytes, std::size_t extra_bytes) const {
        ZipEntry entry{text(at + zip_central_bytes, name_bytes),
                       load_little<std::uint16_t>(bytes_.data() + at + 10), four(at + 16), 0, {}};
        const std::string shown = beginning(entry.name);
        // In this order a large file's extra field has what is not in its place.
        std::uint64_t size = four(at + 24), packed = four(at + 20), local = four(at + 42);
        const std::size_t extra = at + zip_central_bytes + name_bytes;
        read_large(shown, extra, extra + extra_bytes, {&size, &packed, &local});
        const std::size_t flags = two(at + 8);
        constexpr std::size_t encrypted = 1 | 1u << 6 | 1u << 13;
        if ((flags & encrypted) != 0) fail(shown, " is encrypted");
        if (entry.method != zip_stored && entry.method != zip_deflated)
            fail(shown, " must be stored or deflated, found method ", entry.method);
        if (local > directory_ || directory_ - local < zip_local_bytes || four(local) != zip_local)
            fail(shown, " is not where the directory says");
        // Sizes may be elsewhere in this header, or behind the file; those of the directory count.
        if (two(local + 26) != name_bytes || two(local + 8) != entry.method)
            fail(shown, " has another header than the directory says");
        const std::size_t begin = local + zip_local_bytes + name_bytes + two(local + 28);
        if (begin > directory_ || packed > directory_ - begin)
            fail(shown, " goes on past the directory");
        if (text(local + zip_local_bytes, name_bytes) != entry.name)
            fail(shown, " has another name where it is");
        if (entry.method == zip_stored && packed != size)
            fail(shown, " has ", packed, " bytes, not ", size);
        if (size / most_inflation > packed)
            fail(shown, " cannot have ", size, " bytes, deflated to ", packed);
        entry.size = static_cast<std::size_t>(size);
        entry.packed = bytes_.subspan(begin, static_cast<std::size_t>(packed));
        return {entry, {local, begin + entry.packed.size()}};
    }

    /// Gives numbers of which a directory of 32 bits has no more than that they are larger their
    /// values.
    void read_large(const std::string& shown, std::size_t at, std::size_t end,
                    const std::array<std::uint64_t*, 3>& numbers) const {
        constexpr std::uint64_t larger = 0xFFFFFFFF;
        constexpr std::size_t large_file = 1;
        const auto is_missing = [](const std::uint64_t* number) { return *number == larger; };
        if (std::none_of(numbers.begin(), numbers.end(), is_missing)) return;
        while (end - at >= 4) {
            const std::size_t kind = two(at), size = two(at + 2);
            at += 4;
            if (size > end - at) break;
            if (kind == large_file) {
                std::size_t next = at;
                for (std::uint64_t* const number : numbers) {
                    if (!is_missing(number)) continue;
                    if (at + size - next < 8) fail(shown, " has no size or place in the directory");
                    *number = eight(next);
                    next += 8;
                }
                return;
            }
            at += size;
        }
        // There is none: as large as that, then.
    }

    std::span<const std::uint8_t> bytes_;
    std::size_t directory_ = 0, end_ = 0;
};

/// Puts a zip archive together.
class ZipWriter {
public:
    /// \param packed  Of `size` bytes, deflated or as they are.
    /// \returns       Whether there is room: archives hold less than 4 GiB.
    [[nodiscard]] bool add(std::string_view name, std::uint16_t method, std::uint32_t crc,
                           std::size_t size, std::span<const std::uint8_t> packed) {
        const std::size_t local = bytes_.size();
        if (size > most || local + zip_local_bytes + name.size() + packed.size() > most)
            return false;
        // What both headers say, from the version needed on.
        const auto write_common = [&](ByteWriter writer) {
            const bool is_ascii = std::all_of(name.begin(), name.end(), [](char c) {
                return static_cast<unsigned char>(c) < 0x80;
            });
            constexpr std::uint16_t utf8_name = 1u << 11;
            writer.number(std::uint16_t{20});
            writer.number(is_ascii ? std::uint16_t{0} : utf8_name);
            writer.number(method);
            writer.number(std::uint32_t{0x00210000});  // 1 January 1980, as the arrays alone count
            writer.number(crc);
            writer.number(static_cast<std::uint32_t>(packed.size()));
            writer.number(static_cast<std::uint32_t>(size));
            writer.number(static_cast<std::uint16_t>(name.size()));
            writer.number(std::uint16_t{0});
        };
        ByteWriter writer{bytes_}, in_directory{directory_};
        writer.number(zip_local);
        write_common(writer);
        bytes_.insert(bytes_.end(), name.begin(), name.end());
        bytes_.insert(bytes_.end(), packed.begin(), packed.end());
        in_directory.number(zip_central);
        in_directory.number(std::uint16_t{20});
        write_common(in_directory);
        for (int k = 0; k < 5; ++k) in_directory.number(std::uint16_t{0});
        in_directory.number(static_cast<std::uint32_t>(local));
        directory_.insert(directory_.end(), name.begin(), name.end());
        ++count_;
        return true;
    }

    /// The archive; empty if there is no room for its directory.
    [[nodiscard]] std::vector<std::uint8_t> take() && {
        const std::size_t begin = bytes_.size();
        if (begin + directory_.size() > most) return {};
        bytes_.insert(bytes_.end(), directory_.begin(), directory_.end());
        ByteWriter writer{bytes_};
        writer.number(zip_end);
        writer.number(std::uint32_t{0});
        for (int k = 0; k < 2; ++k) writer.number(count_);
        writer.number(static_cast<std::uint32_t>(directory_.size()));
        writer.number(static_cast<std::uint32_t>(begin));
        writer.number(std::uint16_t{0});
        return std::move(bytes_);
    }

private:
    static constexpr std::size_t most = 0xFFFFFFFE;

    std::vector<std::uint8_t> bytes_, directory_;
    std::uint16_t count_ = 0;
};

}  // namespace stochastic_depth::detail
