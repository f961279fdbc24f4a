// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <set>
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
#include <stochastic_depth/io/zip.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/text/utf8.hpp>
#include <stochastic_depth/types.hpp>

/// Several arrays in one of NumPy's files, a zip archive of npy files. Those that are deflated need
/// npz_deflated.hpp, and with it zlib. Needs POSIX, for which reason it is not part of all.hpp.
namespace stochastic_depth {
namespace detail {

/// What `from` inflates to. Throws std::runtime_error unless that is `size` bytes, having taken no
/// more memory than there were bytes before that.
using Inflate = std::vector<std::uint8_t> (*)(std::span<const std::uint8_t> from, std::size_t size);
/// What deflates to `from`; null stands for stored.
using Deflate = std::vector<std::uint8_t> (*)(std::span<const std::uint8_t> from);

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

/// \throws std::invalid_argument  if a name is empty, too long, there twice or not UTF-8, or arrays
///                                are too large.
[[nodiscard]] inline std::vector<std::uint8_t> npz_bytes(const std::vector<NpzArray>& arrays,
                                                         Deflate deflate) {
    const auto refuse_size = [] { refuse("save_npz: arrays must take less than 4 GiB"); };
    if (arrays.size() > 0xFFFE) refuse("save_npz: arrays must be at most 65534");
    std::set<std::string_view> names;
    ZipWriter archive;
    for (const NpzArray& array : arrays) {
        const std::string name = array.name + ".npy";
        if (array.name.empty() || name.size() > 1024)
            refuse("save_npz: names must have 1 to 1020 letters, got ", array.name.size());
        for_each_character("save_npz: names", array.name, [](std::string_view) {});
        if (!names.insert(array.name).second)
            refuse("save_npz: names must differ, got ", array.name, " twice");
        std::vector<std::uint8_t> deflated;
        if (deflate) deflated = deflate(array.npy);
        if (!archive.add(name, deflate ? zip_deflated : zip_stored, crc32_of(array.npy),
                         array.npy.size(), deflate ? deflated : array.npy))
            refuse_size();
    }
    std::vector<std::uint8_t> bytes = std::move(archive).take();
    if (bytes.empty()) refuse_size();
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
/// \throws std::invalid_argument  if names are empty, not UTF-8 or not all different, or the
///                                arrays take 4 GiB.
/// \throws std::runtime_error     naming the file and the reason, if it cannot be written.
inline void save_npz(const std::string& path, const std::vector<NpzArray>& arrays) {
    detail::replace_file("save_npz", path, detail::npz_bytes(arrays, nullptr));
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

/// A file that numpy.savez wrote, read whole. It takes as much memory as the file has bytes, and at
/// most 64 MiB more, whatever the file says; an array that is deflated, while it is read, up to three
/// times as much as it has bytes, and at most 1032 times as much as it has in the file.
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
            entries_ = detail::ZipReader(file_.bytes()).read();
        } catch (const std::runtime_error& error) {
            fail(error.what());
        }
    }

    /// Of the arrays, in alphabetical order.
    [[nodiscard]] std::vector<std::string> names() const {
        std::vector<std::string> names;
        for (const detail::ZipEntry& entry : entries_)
            if (entry.name.ends_with(".npy"))
                names.emplace_back(entry.name.substr(0, entry.name.size() - 4));
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
        const std::string in_file = detail::message(name, ".npy");
        const auto entry = std::lower_bound(
            entries_.begin(), entries_.end(), in_file,
            [](const detail::ZipEntry& e, const std::string& sought) { return e.name < sought; });
        if (entry == entries_.end() || entry->name != in_file) fail("there is no array ", name);
        if (entry->method == detail::zip_deflated && !inflate_)
            fail(name, " is deflated: use stochastic_depth::open_npz from "
                       "<stochastic_depth/io/npz_deflated.hpp>, which needs zlib");
        try {
            const bool is_stored = entry->method == detail::zip_stored;
            std::vector<std::uint8_t> inflated;
            if (!is_stored) inflated = inflate_(entry->packed, entry->size);
            const std::span<const std::uint8_t> bytes = is_stored ? entry->packed : inflated;
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
