// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include <stochastic_depth/kernels/transpose.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>
#include <stochastic_depth/types.hpp>

/// Numbers between a layer and a row-major tensor of little-endian bytes.
namespace stochastic_depth::detail {

/// Unsigned numbers of some size.
template <std::size_t bytes>
using UnsignedOf = std::conditional_t<
    bytes == 1, std::uint8_t,
    std::conditional_t<bytes == 2, std::uint16_t,
                       std::conditional_t<bytes == 4, std::uint32_t, std::uint64_t>>>;

/// A number from little-endian bytes, wherever they lie.
template <class Number>
[[nodiscard]] Number load_little(const std::uint8_t* from) {
    using Bits = UnsignedOf<sizeof(Number)>;
    Bits bits = 0;
    if constexpr (std::endian::native == std::endian::little)
        std::memcpy(&bits, from, sizeof bits);
    else
        for (std::size_t i = sizeof bits; i-- > 0;) bits = static_cast<Bits>(bits << 8 | from[i]);
    return std::bit_cast<Number>(bits);
}
template <class Number>
void store_little(std::uint8_t* to, Number number) {
    using Bits = UnsignedOf<sizeof(Number)>;
    const auto bits = std::bit_cast<Bits>(number);
    if constexpr (std::endian::native == std::endian::little)
        std::memcpy(to, &bits, sizeof bits);
    else
        for (std::size_t i = 0; i < sizeof bits; ++i)
            to[i] = static_cast<std::uint8_t>(bits >> (8 * i));
}

/// IEEE 754 binary16 as a float, which holds each of them.
struct HalfFloat {
    std::uint16_t bits;
    [[nodiscard]] explicit operator float() const {
        const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
        const std::uint32_t exponent = bits >> 10 & 0x1Fu, fraction = bits & 0x3FFu;
        if (exponent == 0) {  // zeros and subnormal numbers: a multiple of 2^-24
            const float size = static_cast<float>(fraction) * 0x1p-24f;
            return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(size));
        }
        const std::uint32_t wide = exponent == 0x1F ? 0xFFu : exponent + (127 - 15);
        return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
    }
};
/// The upper half of a float.
struct BrainFloat {
    std::uint16_t bits;
    [[nodiscard]] explicit operator float() const {
        return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
    }
};

/// Writes `count` numbers from bytes, converted.
template <class Number, class Scalar>
void decode_numbers(const std::uint8_t* from, Index count, Scalar* to) {
    if constexpr (std::is_same_v<Number, Scalar> && std::endian::native == std::endian::little) {
        std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(Scalar));
        return;
    }
    for (Index i = 0; i < count; ++i) {
        const auto number = load_little<Number>(from + i * static_cast<Index>(sizeof(Number)));
        if constexpr (std::is_arithmetic_v<Number>)
            to[i] = static_cast<Scalar>(number);
        else
            to[i] = static_cast<Scalar>(static_cast<float>(number));
    }
}

/// A rectangle of a tensor: entry (i, j) is number `in_tensor + i tensor_step + j` of the tensor, and
/// `in_layer + i + j layer_step` of the layer's.
struct TensorTile {
    Index in_tensor, tensor_step, in_layer, layer_step, rows, columns;
};
inline constexpr Index most_of_tile = 4096;

/// Calls visit(tile) for tiles that make up a tensor, at most most_of_tile numbers each: rows are
/// side by side in the tensor, columns in the layer, so that neither is gone through in long steps.
template <class Visit>
void for_each_tile(const TensorForm& form, const Visit& visit) {
    const std::size_t dimensions = form.shape.size();
    std::vector<Index> steps(dimensions, 1);  // of the tensor
    for (std::size_t k = dimensions; k-- > 1;) steps[k - 1] = steps[k] * form.shape[k];
    for (const Index size : form.shape)
        if (size == 0) return;
    const std::size_t last = dimensions - 1;
    std::size_t across = last;  // the index whose neighbours are neighbours in the layer
    if (dimensions > 0 && form.strides[last] != 1)
        for (std::size_t k = 0; k < last; ++k)
            if (form.strides[k] == 1) across = k;
    std::vector<Index> at(dimensions, 0);
    const auto visit_plane = [&](Index in_tensor, Index in_layer) {
        const Index rows = dimensions == 0 || across == last ? 1 : form.shape[across];
        const Index columns = dimensions == 0 ? 1 : form.shape[last];
        const Index row_step = dimensions == 0 ? 1 : steps[across];
        const Index column_step = dimensions == 0 ? 1 : form.strides[last];
        const Index most_rows = 64, most_columns = rows == 1 ? most_of_tile : 64;
        for (Index i = 0; i < rows; i += most_rows)
            for (Index j = 0; j < columns; j += most_columns)
                visit(TensorTile{in_tensor + i * row_step + j, row_step,
                                 in_layer + i + j * column_step, column_step,
                                 std::min(most_rows, rows - i),
                                 std::min(most_columns, columns - j)});
    };
    // All other indices, the last one fastest.
    for (;;) {
        Index in_tensor = 0, in_layer = 0;
        for (std::size_t k = 0; k < dimensions; ++k) {
            in_tensor += at[k] * steps[k];
            in_layer += at[k] * form.strides[k];
        }
        visit_plane(in_tensor, in_layer);
        std::size_t k = dimensions;
        for (; k-- > 0;) {
            if (k == last || k == across) continue;
            if (++at[k] < form.shape[k]) break;
            at[k] = 0;
        }
        if (k == static_cast<std::size_t>(-1)) return;
    }
}

/// Gives a layer the numbers of a tensor.
template <class Number, class Scalar>
void read_tensor(const std::uint8_t* bytes, const TensorForm& form, Scalar* to) {
    constexpr auto size = static_cast<Index>(sizeof(Number));
    for_each_tile(form, [&](const TensorTile& tile) {
        const std::uint8_t* const from = bytes + tile.in_tensor * size;
        Scalar* const first = to + tile.in_layer;
        if (tile.rows == 1 && tile.layer_step == 1)
            return decode_numbers<Number>(from, tile.columns, first);
        Scalar numbers[most_of_tile];
        const Index step = tile.tensor_step * size;
        for (Index i = 0; i < tile.rows; ++i)
            decode_numbers<Number>(from + i * step, tile.columns, numbers + i * tile.columns);
        transpose(tile.columns, tile.rows, numbers, tile.columns, first, tile.layer_step);
    });
}

/// Writes a layer's numbers as a tensor.
template <class Scalar>
void write_tensor(const TensorForm& form, const Scalar* from, std::uint8_t* bytes) {
    constexpr auto size = static_cast<Index>(sizeof(Scalar));
    for_each_tile(form, [&](const TensorTile& tile) {
        Scalar numbers[most_of_tile];
        transpose(tile.rows, tile.columns, from + tile.in_layer, tile.layer_step, numbers,
                  tile.columns);
        for (Index i = 0; i < tile.rows; ++i) {
            std::uint8_t* const row = bytes + (tile.in_tensor + i * tile.tensor_step) * size;
            for (Index j = 0; j < tile.columns; ++j)
                store_little(row + j * size, numbers[i * tile.columns + j]);
        }
    });
}

}  // namespace stochastic_depth::detail
