// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/npy.hpp>
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/io/whole_file.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/types.hpp>

/// Several arrays in one of NumPy's files, a zip archive of npy files. Those that are deflated need
/// npz_deflated.hpp, and with it zlib. Needs POSIX, for which reason it is not part of all.hpp.
///
/// \source PKWARE, APPNOTE.TXT, 4.3: local file headers, the central directory and its end.
namespace stochastic_depth {
namespace detail {

/// CRC-32 as zip archives have it, which catches every burst of up to 32 bits.
[[nodiscard]] inline std::uint32_t crc32_of(std::span<const std::uint8_t> bytes) {
    static constexpr auto table = [] {
        std::array<std::uint32_t, 256> remainders{};
        for (std::uint32_t byte = 0; byte < 256; ++byte) {
            std::uint32_t remainder = byte;
            for (int bit = 0; bit < 8; ++bit)
                remainder = remainder >> 1 ^ ((remainder & 1) != 0 ? 0xEDB88320u : 0u);
            remainders[byte] = remainder;
        }
        return remainders;
    }();
    std::uint32_t crc = ~std::uint32_t{0};
    for (const std::uint8_t byte : bytes) crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF];
    return ~crc;
}

inline constexpr std::uint32_t zip_local = 0x04034B50, zip_central = 0x02014B50,
                               zip_end = 0x06054B50;
inline constexpr std::size_t zip_local_bytes = 30, zip_central_bytes = 46, zip_end_bytes = 22;
inline constexpr std::uint16_t zip_stored = 0, zip_deflated = 8;

/// Fills `to` with what `from` inflates to. Throws std::runtime_error unless it fits exactly.
using Inflate = void (*)(std::span<const std::uint8_t> from, std::span<std::uint8_t> to);
/// What deflates to `from`; null stands for stored.
using Deflate = std::vector<std::uint8_t> (*)(std::span<const std::uint8_t> from);

/// What a zip archive's directory says of a file in it.
struct ZipEntry {
    std::string name;
    std::uint16_t method = zip_stored;
    std::uint32_t crc = 0;
    std::size_t size = 0;
    std::span<std::uint8_t> packed;
};

/// The files of a zip archive, checked: each lies before the directory, apart from the others.
/// \throws std::runtime_error  saying what is wrong.
[[nodiscard]] inline std::vector<ZipEntry> read_zip(std::span<std::uint8_t> bytes) {
    const auto fail = [](const auto&... parts) { throw std::runtime_error(message(parts...)); };
    const auto number = [&]<class Number>(std::size_t at, Number) {
        return load_little<Number>(bytes.data() + at);
    };
    constexpr std::uint16_t two{};
    constexpr std::uint32_t four{};
    if (bytes.size() < zip_end_bytes)
        fail("the file is cut short: it has ", bytes.size(), " bytes");
    const std::size_t end = bytes.size() - zip_end_bytes;
    if (number(end, four) != zip_end)
        fail("the file is of another kind or cut short: it doesn't end as a zip archive does");
    const std::size_t count = number(end + 10, two);
    const std::size_t directory_bytes = number(end + 12, four);
    const std::size_t directory = number(end + 16, four);
    if (number(end + 4, four) != 0 || number(end + 8, two) != count ||
        number(end + 20, two) != 0 || directory_bytes > end || directory != end - directory_bytes)
        fail("the end of the directory doesn't fit the file");
    std::vector<ZipEntry> entries;
    std::vector<std::pair<std::size_t, std::size_t>> places;
    std::size_t at = directory;
    for (std::size_t k = 0; k < count; ++k) {
        if (end - at < zip_central_bytes || number(at, four) != zip_central)
            fail("file ", k, " is not in the directory");
        ZipEntry entry;
        const unsigned flags = number(at + 8, two);
        entry.method = number(at + 10, two);
        entry.crc = number(at + 16, four);
        const std::size_t packed = number(at + 20, four);
        entry.size = number(at + 24, four);
        const std::size_t name_bytes = number(at + 28, two);
        const std::size_t more = std::size_t{number(at + 30, two)} + number(at + 32, two);
        const std::size_t local = number(at + 42, four);
        if (end - at - zip_central_bytes < name_bytes + more)
            fail("file ", k, " has a name that goes on past the directory");
        const auto* const letters = reinterpret_cast<const char*>(bytes.data());
        entry.name.assign(letters + at + zip_central_bytes, name_bytes);
        at += zip_central_bytes + name_bytes + more;
        const std::string shown = entry.name.substr(0, 64);
        constexpr unsigned encrypted = 1 | 1u << 6 | 1u << 13;
        if ((flags & encrypted) != 0) fail(shown, " is encrypted");
        if (entry.method != zip_stored && entry.method != zip_deflated)
            fail(shown, " must be stored or deflated, found method ", entry.method);
        if (local > directory || directory - local < zip_local_bytes ||
            number(local, four) != zip_local)
            fail(shown, " is not where the directory says");
        // Sizes may be elsewhere in this header; those of the directory count.
        if (number(local + 26, two) != name_bytes || number(local + 8, two) != entry.method)
            fail(shown, " has another header than the directory says");
        const std::size_t begin =
            local + zip_local_bytes + name_bytes + number(local + 28, two);
        if (begin > directory || packed > directory - begin)
            fail(shown, " goes on past the directory");
        if (std::string_view(letters + local + zip_local_bytes, name_bytes) != entry.name)
            fail(shown, " has another name where it is");
        if (entry.method == zip_stored && packed != entry.size)
            fail(shown, " has ", packed, " bytes, not ", entry.size);
        // Nothing deflates to less than a thousandth.
        if (entry.size / 1032 > packed)
            fail(shown, " cannot have ", entry.size, " bytes, deflated to ", packed);
        entry.packed = bytes.subspan(begin, packed);
        places.emplace_back(local, begin + packed);
        entries.push_back(std::move(entry));
    }
    if (at != end) fail("the directory has ", end - at, " bytes too many");
    std::sort(places.begin(), places.end());
    for (std::size_t k = 1; k < places.size(); ++k)
        if (places[k].first < places[k - 1].second) fail("two files overlap");
    std::sort(entries.begin(), entries.end(),
              [](const ZipEntry& a, const ZipEntry& b) { return a.name < b.name; });
    for (std::size_t k = 1; k < entries.size(); ++k)
        if (entries[k].name == entries[k - 1].name)
            fail(entries[k].name.substr(0, 64), " is there twice");
    return entries;
}

}  // namespace detail

/// An array by its name, of anything that save_npy takes, or a single number.
struct NpzArray {
    std::string name;
    std::vector<std::uint8_t> npy;

    template <class Values>
        requires requires(const Values& values) { detail::npy_bytes(values); }
    NpzArray(std::string name_, const Values& values)
        : name(std::move(name_)), npy(detail::npy_bytes(values)) {}
};

namespace detail {

/// \throws std::invalid_argument  if a name is empty, too long or there twice, or an array is too
///                                large.
[[nodiscard]] inline std::vector<std::uint8_t> zip_bytes(const std::vector<NpzArray>& arrays,
                                                         Deflate deflate) {
    constexpr std::size_t most = 0xFFFFFFFE;
    std::vector<std::uint8_t> bytes, directory;
    std::vector<std::string> names;
    if (arrays.size() > 0xFFFE) refuse("save_npz: arrays must be at most 65534");
    for (const NpzArray& array : arrays) {
        const std::string name = array.name + ".npy";
        if (array.name.empty() || name.size() > 1024)
            refuse("save_npz: names must have 1 to 1020 letters, got ", array.name.size());
        if (std::find(names.begin(), names.end(), name) != names.end())
            refuse("save_npz: names must differ, got ", array.name, " twice");
        names.push_back(name);
        std::vector<std::uint8_t> deflated;
        if (deflate) deflated = deflate(array.npy);
        const std::span<const std::uint8_t> packed = deflate ? deflated : array.npy;
        if (array.npy.size() > most || bytes.size() > most - packed.size() - name.size() - 64)
            refuse("save_npz: arrays must take less than 4 GiB");
        const std::size_t local = bytes.size();
        // What both headers say, from the version needed on.
        const auto write_common = [&](ByteWriter writer) {
            writer.number(std::uint16_t{20});
            writer.number(std::uint16_t{0});
            writer.number(deflate ? zip_deflated : zip_stored);
            writer.number(std::uint32_t{0x00210000});  // 1 January 1980, as the arrays alone count
            writer.number(crc32_of(array.npy));
            writer.number(static_cast<std::uint32_t>(packed.size()));
            writer.number(static_cast<std::uint32_t>(array.npy.size()));
            writer.number(static_cast<std::uint16_t>(name.size()));
            writer.number(std::uint16_t{0});
        };
        ByteWriter writer{bytes}, in_directory{directory};
        writer.number(zip_local);
        write_common(writer);
        bytes.insert(bytes.end(), name.begin(), name.end());
        bytes.insert(bytes.end(), packed.begin(), packed.end());
        in_directory.number(zip_central);
        in_directory.number(std::uint16_t{20});
        write_common(in_directory);
        for (int k = 0; k < 5; ++k) in_directory.number(std::uint16_t{0});
        in_directory.number(static_cast<std::uint32_t>(local));
        directory.insert(directory.end(), name.begin(), name.end());
    }
    const std::size_t begin = bytes.size();
    if (begin + directory.size() > most) refuse("save_npz: arrays must take less than 4 GiB");
    bytes.insert(bytes.end(), directory.begin(), directory.end());
    ByteWriter writer{bytes};
    writer.number(zip_end);
    writer.number(std::uint32_t{0});
    for (int k = 0; k < 2; ++k) writer.number(static_cast<std::uint16_t>(arrays.size()));
    writer.number(static_cast<std::uint32_t>(directory.size()));
    writer.number(static_cast<std::uint32_t>(begin));
    writer.number(std::uint16_t{0});
    return bytes;
}

}  // namespace detail

/// Writes arrays into a file that numpy.load reads.
///
///     save_npz("results.npz", {{"mean", mean}, {"masks", masks}, {"samples", Index{1000}}});
///
/// The file is replaced in one step, as save_parameters does.
///
/// \param path    A std::filesystem::path does as well.
/// \param arrays  Matrices, vectors, masks [masks, layers], a double or an Index.
/// \throws std::invalid_argument  if names are empty or not all different, or the arrays take 4 GiB.
/// \throws std::runtime_error     naming the file and the reason, if it cannot be written.
inline void save_npz(const std::string& path, const std::vector<NpzArray>& arrays) {
    detail::replace_file("save_npz", path, detail::zip_bytes(arrays, nullptr));
}

/// Writes the values of a game as shapiq's `Game.load_values` reads them.
///
///     save_game("game.npz", masks, values);  // shapiq.Game(path_to_values="game.npz")
///
/// \param masks   The players that take part, layers kept: a mask for each value, all of one depth.
/// \param values  As many.
/// \throws std::invalid_argument  if there are no masks, not as many values, or two depths.
/// \throws std::runtime_error     naming the file and the reason, if it cannot be written.
inline void save_game(const std::string& path, const std::vector<SurvivalMask>& masks,
                      const Eigen::VectorXd& values) {
    if (masks.empty() || masks.size() != static_cast<std::size_t>(values.size()))
        detail::refuse("save_game: values must be one for each of ", masks.size(),
                       " masks, at least one, got ", values.size());
    save_npz(path, {{"values", values},
                    {"coalitions", masks},
                    {"n_players", masks.front().size()},
                    {"normalization_value", 0.0}});
}

/// A file that numpy.savez wrote, read whole.
///
///     const NpzFile file{"weights.npz"};
///     const Eigen::MatrixXf w = file.matrix<float>("w");
class NpzFile {
public:
    /// \param path  A std::filesystem::path does as well.
    /// \throws std::runtime_error  naming the file and what is wrong, if it cannot be read, is cut
    ///                             short or of another kind.
    explicit NpzFile(const std::string& path) : NpzFile(path, nullptr) {}

    /// With what inflates arrays; npz_deflated.hpp has one.
    NpzFile(const std::string& path, detail::Inflate inflate)
        : path_(path), file_("NpzFile", path), inflate_(inflate) {
        try {
            entries_ = detail::read_zip(file_.bytes());
        } catch (const std::runtime_error& error) {
            fail(error.what());
        }
    }

    /// Of the arrays, in alphabetical order.
    [[nodiscard]] std::vector<std::string> names() const {
        std::vector<std::string> names;
        for (const detail::ZipEntry& entry : entries_)
            if (entry.name.ends_with(".npy"))
                names.push_back(entry.name.substr(0, entry.name.size() - 4));
        return names;
    }

    /// As load_npy gives it.
    /// \throws std::runtime_error  naming the file, if there is no such array, it is damaged, or
    ///                             deflated and nothing inflates it, or as load_npy does.
    template <std::floating_point Scalar>
    [[nodiscard]] Matrix<Scalar> matrix(std::string_view name) const {
        return read(name, detail::npy_matrix<Scalar>);
    }
    /// As load_npy_masks gives them; throws as matrix() does.
    [[nodiscard]] std::vector<SurvivalMask> masks(std::string_view name) const {
        return read(name, detail::npy_masks);
    }

private:
    template <class... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        throw std::runtime_error(detail::message("NpzFile: ", path_, ": ", parts...));
    }

    template <class Result>
    [[nodiscard]] Result read(std::string_view name,
                              Result (*read_array)(const detail::NpyArray&)) const {
        const auto entry = std::find_if(entries_.begin(), entries_.end(), [&](const auto& e) {
            return e.name == detail::message(name, ".npy");
        });
        if (entry == entries_.end()) fail("there is no array ", name);
        if (entry->method == detail::zip_deflated && !inflate_)
            fail(name, " is deflated: use stochastic_depth::open_npz from "
                       "<stochastic_depth/io/npz_deflated.hpp>, which needs zlib");
        try {
            // A copy, since reading may change numbers of the other byte order.
            std::vector<std::uint8_t> bytes;
            if (entry->method == detail::zip_stored) {
                bytes.assign(entry->packed.begin(), entry->packed.end());
            } else {
                bytes.resize(entry->size);
                inflate_(entry->packed, bytes);
            }
            if (detail::crc32_of(bytes) != entry->crc)
                throw std::runtime_error("it is damaged: its bytes don't match their CRC-32");
            return read_array(detail::parse_npy(bytes));
        } catch (const std::runtime_error& error) {
            fail(name, ": ", error.what());
        }
    }

    std::string path_;
    detail::WholeFile file_;
    detail::Inflate inflate_;
    std::vector<detail::ZipEntry> entries_;
};

}  // namespace stochastic_depth
