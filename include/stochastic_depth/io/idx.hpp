// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/file.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// What an IDX file of unsigned bytes holds: MNIST and its relatives.
///
/// The last dimension changes fastest in `values`. Images have dimensions (images, rows, columns),
/// labels (labels).
struct IdxArray {
    std::vector<Index> dimensions;     // 1 to 4
    std::vector<std::uint8_t> values;  // as many as the product of the dimensions
};

namespace detail {

[[nodiscard]] inline std::string hex(std::span<const std::uint8_t> bytes) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text = "0x";
    for (const unsigned byte : bytes) {
        text += digits[byte / 16];
        text += digits[byte % 16];
    }
    return text;
}

[[nodiscard]] inline std::string shape(const std::vector<Index>& dimensions) {
    std::string text;
    for (std::size_t i = 0; i < dimensions.size(); ++i) {
        if (i > 0) text += " x ";
        Piece(dimensions[i]).append_to(text);
    }
    return text;
}

/// Sizes come from elsewhere, so their product may be out of range; false says so. Zeros are left
/// out of the check alone: a product that is 0 by one dimension must not hide the others.
[[nodiscard]] inline bool product_fits(const std::vector<Index>& dimensions, Index& product) {
    Index nonzero = 1;
    product = 1;
    for (const Index dimension : dimensions) {
        if (dimension < 0) return false;
        if (dimension == 0) {
            product = 0;
            continue;
        }
        if (nonzero > std::numeric_limits<Index>::max() / dimension) return false;
        nonzero *= dimension;
    }
    if (product != 0) product = nonzero;
    return true;
}

/// For arrays that a caller put together: `values` fills `dimensions`.
inline void check_filled(std::string_view who, const IdxArray& array) {
    Index count = 0;
    if (!product_fits(array.dimensions, count) ||
        array.values.size() != static_cast<std::size_t>(count))
        refuse(who, ": array must have one value for each place of ", shape(array.dimensions),
               ", got ", array.values.size(), " values");
}

}  // namespace detail

/// Reads the IDX format from memory: two zero bytes, the type (0x08, unsigned byte; no other is
/// taken), the number of dimensions (1 to 4), each dimension as a big-endian 32-bit number, and the
/// values.
///
/// \param bytes  The whole file. Nothing is allocated before its length is known to be right.
/// \param name   What to call it in error messages: the file's name.
/// \throws std::runtime_error  naming what was expected and what was found, if the bytes are
///                             anything else: too few, too many, of another type, compressed.
/// \source       LeCun, Cortes, Burges: "The MNIST database", section on file formats.
[[nodiscard]] inline IdxArray parse_idx(std::span<const std::uint8_t> bytes,
                                        std::string_view name) {
    const auto fail = [name](const auto&... parts) {
        throw std::runtime_error(detail::message("parse_idx: ", name, ": ", parts...));
    };
    if (bytes.size() >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b)
        fail(
            "expected plain IDX bytes, found gzip data (1f 8b): use stochastic_depth::read_gzip "
            "from <stochastic_depth/io/gzip.hpp> and parse what it returns");
    if (bytes.size() < 4)
        fail("expected a magic number of 4 bytes, found ", bytes.size(), " bytes");
    const std::span<const std::uint8_t> magic = bytes.first(4);
    if (magic[0] != 0 || magic[1] != 0)
        fail("expected a magic number that starts with 0x0000, found ", detail::hex(magic));
    if (magic[2] != 0x08)
        fail("expected values of type 0x08 (unsigned byte), found type ",
             detail::hex(magic.subspan(2, 1)), " in magic number ", detail::hex(magic));
    const std::size_t rank = magic[3];
    if (rank < 1 || rank > 4)
        fail("expected 1 to 4 dimensions, found ", rank, " in magic number ", detail::hex(magic));
    const std::size_t header = 4 + 4 * rank;
    if (bytes.size() < header)
        fail("expected a header of ", header, " bytes for ", rank, " dimensions, found ",
             bytes.size(), " bytes");

    IdxArray array;
    for (std::size_t i = 4; i < header; i += 4) {
        std::uint32_t dimension = 0;
        for (const std::uint8_t byte : bytes.subspan(i, 4)) dimension = dimension << 8 | byte;
        array.dimensions.push_back(static_cast<Index>(dimension));
    }
    Index count = 0;
    if (!detail::product_fits(array.dimensions, count))
        fail("expected dimensions that memory can hold, found ", detail::shape(array.dimensions));
    const std::span<const std::uint8_t> values = bytes.subspan(header);
    if (values.size() != static_cast<std::size_t>(count))
        fail("expected ", count, " bytes of values for dimensions ",
             detail::shape(array.dimensions), ", found ", values.size());
    array.values.assign(values.begin(), values.end());
    return array;
}

/// Reads an IDX file that is not compressed.
///
/// \param path  A std::filesystem::path does as well.
/// \throws std::runtime_error  if the file cannot be read, or as parse_idx does.
[[nodiscard]] inline IdxArray read_idx(const std::string& path) {
    return parse_idx(detail::read_file("read_idx", path), path);
}

/// Images as columns: pixel values 0 to 255 divided by 255.
///
/// \param array  Dimensions (images, rows, columns), or 2 or 4 of them, images first.
/// \returns      [pixels x images] in [0, 1]; pixels in the order of the file, columns fastest.
/// \throws std::invalid_argument  if the array has another number of dimensions, or values that do
///                                not fill them.
template <std::floating_point Scalar>
[[nodiscard]] Matrix<Scalar> idx_images(const IdxArray& array) {
    if (array.dimensions.size() < 2 || array.dimensions.size() > 4)
        detail::refuse("idx_images: array must have 2 to 4 dimensions, got ",
                       array.dimensions.size());
    detail::check_filled("idx_images", array);
    const Index images = array.dimensions[0];
    Index pixels = 1;
    for (std::size_t i = 1; i < array.dimensions.size(); ++i) pixels *= array.dimensions[i];
    Matrix<Scalar> result(pixels, images);
    for (std::size_t i = 0; i < array.values.size(); ++i)
        result.data()[i] = static_cast<Scalar>(array.values[i]) / Scalar(255);
    return result;
}

/// Class labels, one for each sample.
///
/// \param array  One dimension.
/// \returns      [samples], each in [0, 255].
/// \throws std::invalid_argument  if the array has another number of dimensions, or values that do
///                                not fill them.
[[nodiscard]] inline Eigen::VectorXi idx_labels(const IdxArray& array) {
    if (array.dimensions.size() != 1)
        detail::refuse("idx_labels: array must have 1 dimension, got ", array.dimensions.size());
    detail::check_filled("idx_labels", array);
    Eigen::VectorXi result(array.dimensions[0]);
    for (Index i = 0; i < result.size(); ++i) result(i) = array.values[static_cast<std::size_t>(i)];
    return result;
}

}  // namespace stochastic_depth
