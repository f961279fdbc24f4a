// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/little_endian.hpp>
#include <stochastic_depth/io/npy_header.hpp>
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/io/tensor_copy.hpp>
#include <stochastic_depth/io/whole_file.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/types.hpp>

/// Arrays in NumPy's files. Needs POSIX, for which reason it is not part of all.hpp.
///
/// Format: "\x93NUMPY", two bytes of version, the length of the header (2 bytes little-endian in
/// version 1, 4 in 2 and 3), the header, a Python dictionary with 'descr', 'fortran_order' and
/// 'shape', padded with spaces and ended by a line break, and the numbers.
///
/// \source NumPy, numpy.lib.format, "Format Version 1.0" to "3.0".
namespace stochastic_depth {
namespace detail {

/// Calls decode(type) with the type of an array's numbers.
template <class Decode>
void with_number_of(const NpyHeader& header, const Decode& decode) {
    const auto call = [&]<class Number>() { decode(std::type_identity<Number>{}); };
    const auto whole = [&]<class One, class Two, class Four, class Eight>() {
        switch (header.bytes) {
            case 1: return call.template operator()<One>();
            case 2: return call.template operator()<Two>();
            case 4: return call.template operator()<Four>();
            default: return call.template operator()<Eight>();
        }
    };
    if (header.kind == 'i')
        return whole.template operator()<std::int8_t, std::int16_t, std::int32_t, std::int64_t>();
    if (header.kind != 'f')
        return whole
            .template operator()<std::uint8_t, std::uint16_t, std::uint32_t, std::uint64_t>();
    switch (header.bytes) {
        case 2: return call.template operator()<HalfFloat>();
        case 4: return call.template operator()<float>();
        default: return call.template operator()<double>();
    }
}

/// Gives a matrix the numbers of an array.
/// \throws std::runtime_error  if one of them may be none of a Scalar's.
template <class Scalar>
void decode_npy(const NpyArray& array, const TensorForm& form, Scalar* to) {
    const NpyHeader& header = array.header;
    with_number_of(header, [&]<class Number>(std::type_identity<Number>) {
        if constexpr (std::is_same_v<Number, double> && !std::is_same_v<Scalar, double>) {
            throw std::runtime_error(
                message("numbers of type ", std::string_view(&header.order, 1), "f8 don't all fit "
                        "those of 32 bits that are asked for"));
        } else {
            constexpr int digits = std::numeric_limits<Scalar>::digits;
            if constexpr (std::is_integral_v<Number> &&
                          8 * static_cast<int>(sizeof(Number)) > digits)
                for (std::size_t i = 0; i < array.data.size(); i += sizeof(Number)) {
                    const auto number =
                        load_number<Number>(array.data.data() + i, header.byte_order());
                    constexpr auto most = static_cast<Number>(std::uint64_t{1} << digits);
                    if (number > most || (std::is_signed_v<Number> && number < Number{} - most))
                        throw std::runtime_error(message(
                            "whole numbers must be at most 2^", digits, " in size, found ", number));
                }
            read_tensor<Number>(array.data.data(), form, to, header.byte_order());
        }
    });
}

/// Rows and columns of an array as a matrix: what the last index counts are columns, or of one
/// dimension, a column; a single number is [1 x 1].
/// \throws std::runtime_error  if it is none.
[[nodiscard]] inline std::pair<Index, Index> matrix_size(const NpyHeader& header) {
    if (header.shape.size() > 2)
        throw std::runtime_error(
            message("the array must have at most 2 dimensions, found ", header.shape.size()));
    for (const std::uint64_t dimension : header.shape)
        if (dimension > std::uint64_t{1} << 48)
            throw std::runtime_error(message("a dimension is out of range: ", dimension));
    const auto size = [&](std::size_t k) {
        return k < header.shape.size() ? static_cast<Index>(header.shape[k]) : Index{1};
    };
    return {size(0), size(1)};
}

template <class Scalar>
[[nodiscard]] Matrix<Scalar> npy_matrix(const NpyArray& array) {
    const auto [rows, columns] = matrix_size(array.header);
    Matrix<Scalar> matrix(rows, columns);
    // In Fortran's order the array is the transposed one in C's.
    const TensorForm form = array.header.is_fortran
                                ? TensorForm{{}, {columns, rows}, {rows, 1}}
                                : TensorForm::of_matrix({}, rows, columns);
    decode_npy(array, form, matrix.data());
    return matrix;
}

/// The bytes of a file of such numbers: version 1.
template <class Number, class NumberOf>
[[nodiscard]] std::vector<std::uint8_t> npy_bytes(std::string_view type, bool is_fortran,
                                                  std::initializer_list<Index> shape, Index count,
                                                  const NumberOf& number) {
    std::string sizes;
    for (const Index size : shape) sizes += message(sizes.empty() ? "" : ", ", size);
    if (shape.size() == 1) sizes += ',';
    std::string header = message("{'descr': '", type, "', 'fortran_order': ",
                                 is_fortran ? "True" : "False", ", 'shape': (", sizes, "), }");
    // The numbers begin at a multiple of 64.
    while ((10 + header.size() + 1) % 64 != 0) header += ' ';
    header += '\n';
    constexpr std::string_view start = "\x93NUMPY\x01";
    std::vector<std::uint8_t> bytes(start.begin(), start.end());
    bytes.push_back(0);
    bytes.resize(10 + header.size() + static_cast<std::size_t>(count) * sizeof(Number));
    store_little(bytes.data() + 8, static_cast<std::uint16_t>(header.size()));
    std::copy(header.begin(), header.end(), bytes.begin() + 10);
    std::uint8_t* to = bytes.data() + 10 + header.size();
    for (Index i = 0; i < count; ++i, to += sizeof(Number)) store_little<Number>(to, number(i));
    return bytes;
}

template <class Scalar>
[[nodiscard]] std::vector<std::uint8_t> npy_bytes(const Matrix<Scalar>& matrix) {
    static_assert(std::is_same_v<Scalar, float> || std::is_same_v<Scalar, double>);
    return npy_bytes<Scalar>(sizeof(Scalar) == 4 ? "<f4" : "<f8", true,
                             {matrix.rows(), matrix.cols()}, matrix.size(),
                             [&](Index i) { return matrix.data()[i]; });
}
template <class Scalar>
[[nodiscard]] std::vector<std::uint8_t> npy_bytes(const Vector<Scalar>& vector) {
    static_assert(std::is_same_v<Scalar, float> || std::is_same_v<Scalar, double>);
    return npy_bytes<Scalar>(sizeof(Scalar) == 4 ? "<f4" : "<f8", false, {vector.size()},
                             vector.size(), [&](Index i) { return vector(i); });
}
[[nodiscard]] inline std::vector<std::uint8_t> npy_bytes(double number) {
    return npy_bytes<double>("<f8", false, {}, 1, [&](Index) { return number; });
}
[[nodiscard]] inline std::vector<std::uint8_t> npy_bytes(Index number) {
    return npy_bytes<std::int64_t>("<i8", false, {}, 1, [&](Index) { return number; });
}
/// [masks, layers], a row for each mask, of truth values.
[[nodiscard]] inline std::vector<std::uint8_t> npy_bytes(const std::vector<SurvivalMask>& masks) {
    const Index depth = masks.empty() ? 0 : masks.front().size();
    for (const SurvivalMask& mask : masks)
        if (mask.size() != depth)
            refuse("save_npy: masks must have ", depth, " layers each, got ", mask.size());
    const auto count = static_cast<Index>(masks.size());
    return npy_bytes<std::uint8_t>("|b1", false, {count, depth}, count * depth, [&](Index i) {
        return static_cast<std::uint8_t>(masks[static_cast<std::size_t>(i / depth)][i % depth]);
    });
}

/// \throws std::runtime_error  unless the array has a row of zeros and ones for each mask.
[[nodiscard]] inline std::vector<SurvivalMask> npy_masks(const NpyArray& array) {
    const NpyHeader& header = array.header;
    if (header.shape.size() != 2)
        throw std::runtime_error(
            message("masks must have 2 dimensions, found ", header.shape.size()));
    const std::pair<Index, Index> size = matrix_size(header);
    const Index count = size.first, depth = size.second;
    // Of masks without layers an array of no bytes may claim as many as it likes.
    constexpr Index most = Index{1} << 20;
    if (depth == 0 && count > most)
        throw std::runtime_error(
            message("masks without layers must be at most ", most, ", found ", count));
    std::vector<SurvivalMask> masks(static_cast<std::size_t>(count), SurvivalMask::none(depth));
    with_number_of(header, [&]<class Number>(std::type_identity<Number>) {
        for (std::size_t i = 0; i < array.data.size() / sizeof(Number); ++i) {
            const auto number = load_number<Number>(array.data.data() + i * sizeof(Number),
                                                    header.byte_order());
            using Value = std::conditional_t<std::is_arithmetic_v<Number>, Number, float>;
            const auto value = static_cast<Value>(number);
            if (value != Value(0) && value != Value(1))
                throw std::runtime_error(message("masks must be of 0 and 1, found ", value));
            if (value == Value(0)) continue;
            const auto at = static_cast<Index>(i);
            masks[static_cast<std::size_t>(header.is_fortran ? at % count : at / depth)].keep(
                header.is_fortran ? at / count : at % depth);
        }
    });
    return masks;
}

/// Reads a file by read(array), and names it in messages.
template <class Read>
[[nodiscard]] auto read_npy(std::string_view who, const std::string& path, const Read& read) {
    const WholeFile file(who, path);
    try {
        return read(parse_npy(file.bytes()));
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(message(who, ": ", path, ": ", error.what()));
    }
}

}  // namespace detail

/// Writes numbers into a file that numpy.load reads: a matrix [rows, columns] in Fortran's order, as
/// it lies in memory, a vector [size], or masks [masks, layers] of truth values.
///
///     save_npy("outputs.npy", y);  // np.load("outputs.npy").T is [batch, outputs]
///
/// The file is replaced in one step, as save_parameters does.
///
/// \param path  A std::filesystem::path does as well.
/// \throws std::runtime_error     naming the file and the reason, if it cannot be written.
/// \throws std::invalid_argument  if masks differ in their number of layers.
template <std::floating_point Scalar>
void save_npy(const std::string& path, const Matrix<Scalar>& matrix) {
    detail::replace_file("save_npy", path, detail::npy_bytes(matrix));
}
template <std::floating_point Scalar>
void save_npy(const std::string& path, const Vector<Scalar>& vector) {
    detail::replace_file("save_npy", path, detail::npy_bytes(vector));
}
inline void save_npy(const std::string& path, const std::vector<SurvivalMask>& masks) {
    detail::replace_file("save_npy", path, detail::npy_bytes(masks));
}

/// Reads an array that numpy.save wrote, in either order: [rows, columns], or one of one dimension
/// as a column.
///
///     const Eigen::MatrixXf x = load_npy<float>("inputs.npy").transpose();  // of [batch, features]
///
/// \param path  A std::filesystem::path does as well.
/// \returns     Whole numbers, truth values and narrower numbers converted, of either byte order.
/// \throws std::runtime_error  naming the file and what is wrong, if it cannot be read, is cut
///                             short, of another kind, or holds numbers that don't fit a Scalar.
template <std::floating_point Scalar>
[[nodiscard]] Matrix<Scalar> load_npy(const std::string& path) {
    return detail::read_npy("load_npy", path, detail::npy_matrix<Scalar>);
}

/// Reads masks, an array [masks, layers] of truth values or of numbers 0 and 1.
/// \throws std::runtime_error  as load_npy does, and if there is another number.
[[nodiscard]] inline std::vector<SurvivalMask> load_npy_masks(const std::string& path) {
    return detail::read_npy("load_npy_masks", path, detail::npy_masks);
}

}  // namespace stochastic_depth
