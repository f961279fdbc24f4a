// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include <stochastic_depth/io/little_endian.hpp>
#include <stochastic_depth/kernels/transpose.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>
#include <stochastic_depth/types.hpp>

/// Numbers between a layer and a row-major tensor of bytes.
namespace stochastic_depth::detail {

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

/// Writes `count` numbers from bytes in some order, converted.
template <class Number, class Scalar>
void decode_numbers(const std::uint8_t* from, std::endian order, Index count, Scalar* to) {
    if constexpr (std::is_same_v<Number, Scalar>)
        if (order == std::endian::native) {
            std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(Scalar));
            return;
        }
    for (Index i = 0; i < count; ++i) {
        const auto number =
            load_number<Number>(from + i * static_cast<Index>(sizeof(Number)), order);
        if constexpr (std::is_arithmetic_v<Number>)
            to[i] = static_cast<Scalar>(number);
        else
            to[i] = static_cast<Scalar>(static_cast<float>(number));
    }
}

/// One index of a tensor: how many there are, and how many numbers apart in the tensor and in the
/// layer.
struct TensorIndex {
    Index size, step, stride;
};

/// The indices of a form, those that are one in the layer too made one, those of one value left out:
/// what lies alike in both is a single index. Empty for a single number.
[[nodiscard]] inline std::vector<TensorIndex> indices_of(const TensorForm& form) {
    std::vector<TensorIndex> indices;  // the last one of the form first
    Index step = 1;
    for (std::size_t k = form.shape.size(); k-- > 0; step *= form.shape[k]) {
        const TensorIndex index{form.shape[k], step, form.strides[k]};
        if (index.size == 1) continue;
        if (!indices.empty() && index.stride == indices.back().stride * indices.back().size)
            indices.back().size *= index.size;
        else
            indices.push_back(index);
    }
    std::reverse(indices.begin(), indices.end());
    return indices;
}

/// A rectangle of a tensor: entry (i, j) is number `in_tensor + i tensor_step + j` of the tensor, and
/// `in_layer + i + j layer_step` of the layer's.
struct TensorTile {
    Index in_tensor, tensor_step, in_layer, layer_step, rows, columns;
};

/// Calls visit(tile) for tiles that make up a tensor: rows are side by side in the tensor, columns in
/// the layer, so that neither is gone through in long steps. A tile has at most that many rows and
/// columns, one of a single row as many columns as both allow.
template <class Visit>
void for_each_tile(const TensorForm& form, Index most_rows, Index most_columns,
                   const Visit& visit) {
    for (const Index size : form.shape)
        if (size == 0) return;
    std::vector<TensorIndex> outer = indices_of(form);
    if (outer.empty()) return visit(TensorTile{0, 1, 0, 1, 1, 1});
    // Neighbours in the layer count rows, all later indices columns; where neighbours in the tensor
    // are neighbours in the layer, there is one row.
    std::size_t first = outer.size() - 1;
    TensorIndex across{1, 0, 1};
    if (outer.back().stride != 1)
        for (std::size_t k = 0; k < outer.size() - 1; ++k)
            if (outer[k].stride == 1) {
                across = outer[k];
                first = k + 1;
            }
    const std::vector<TensorIndex> tail(outer.begin() + static_cast<std::ptrdiff_t>(first),
                                        outer.end());
    outer.resize(across.size > 1 ? first - 1 : first);
    if (across.size == 1) most_columns *= most_rows;
    const Index columns = tail.front().size * tail.front().step, run = tail.back().size;
    const auto visit_plane = [&](Index in_tensor, Index in_layer) {
        for (Index i = 0; i < across.size; i += most_rows)
            for (Index begin = 0; begin < columns; begin += most_columns) {
                const Index end = std::min(begin + most_columns, columns);
                // Of several indices, each stretch of the last one is a tile.
                for (Index j = begin, next = 0; j < end; j = next) {
                    next = std::min(end, j / run * run + run);
                    Index place = in_layer + i;
                    for (const TensorIndex& index : tail)
                        place += j / index.step % index.size * index.stride;
                    visit(TensorTile{in_tensor + i * across.step + j, across.step, place,
                                     tail.back().stride, std::min(most_rows, across.size - i),
                                     next - j});
                }
            }
    };
    Index planes = 1;
    for (const TensorIndex& index : outer) planes *= index.size;
    for (Index plane = 0; plane < planes; ++plane) {
        Index in_tensor = 0, in_layer = 0, left = plane;
        for (std::size_t k = outer.size(); k-- > 0; left /= outer[k].size) {
            in_tensor += left % outer[k].size * outer[k].step;
            in_layer += left % outer[k].size * outer[k].stride;
        }
        visit_plane(in_tensor, in_layer);
    }
}

/// Whether bytes may be taken for numbers, as they are.
template <class Scalar>
[[nodiscard]] bool are_numbers(const std::uint8_t* bytes, std::endian order) {
    return order == std::endian::native &&
           reinterpret_cast<std::uintptr_t>(bytes) % alignof(Scalar) == 0;
}

// Tiles of a copy that goes straight from file to layer stay in the second cache, measured; others
// pass through numbers in the first.
inline constexpr Index straight_rows = 512, straight_columns = 256, side_of_tile = 64;

/// Gives a layer the numbers of a tensor.
/// \complexity  Each number is read once and written once.
template <class Number, class Scalar>
void read_tensor(const std::uint8_t* bytes, const TensorForm& form, Scalar* to,
                 std::endian order = std::endian::little) {
    constexpr auto size = static_cast<Index>(sizeof(Number));
    if constexpr (std::is_same_v<Number, Scalar>)
        if (are_numbers<Scalar>(bytes, order)) {
            const auto* const from = reinterpret_cast<const Scalar*>(bytes);
            return for_each_tile(
                form, straight_rows, straight_columns, [&](const TensorTile& tile) {
                    if (tile.rows == 1 && tile.layer_step == 1)
                        std::copy_n(from + tile.in_tensor, tile.columns, to + tile.in_layer);
                    else
                        transpose(tile.columns, tile.rows, from + tile.in_tensor, tile.tensor_step,
                                  to + tile.in_layer, tile.layer_step);
                });
        }
    for_each_tile(form, side_of_tile, side_of_tile, [&](const TensorTile& tile) {
        const std::uint8_t* const from = bytes + tile.in_tensor * size;
        Scalar* const first = to + tile.in_layer;
        if (tile.rows == 1 && tile.layer_step == 1)
            return decode_numbers<Number>(from, order, tile.columns, first);
        Scalar numbers[side_of_tile * side_of_tile];
        for (Index i = 0; i < tile.rows; ++i)
            decode_numbers<Number>(from + i * tile.tensor_step * size, order, tile.columns,
                                   numbers + i * tile.columns);
        transpose(tile.columns, tile.rows, numbers, tile.columns, first, tile.layer_step);
    });
}

/// Writes a layer's numbers as a tensor, little-endian.
/// \complexity  Each number is read once and written once.
template <class Scalar>
void write_tensor(const TensorForm& form, const Scalar* from, std::uint8_t* bytes) {
    constexpr auto size = static_cast<Index>(sizeof(Scalar));
    if (are_numbers<Scalar>(bytes, std::endian::little)) {
        auto* const to = reinterpret_cast<Scalar*>(bytes);
        return for_each_tile(form, straight_rows, straight_columns, [&](const TensorTile& tile) {
            if (tile.rows == 1 && tile.layer_step == 1)
                std::copy_n(from + tile.in_layer, tile.columns, to + tile.in_tensor);
            else
                transpose(tile.rows, tile.columns, from + tile.in_layer, tile.layer_step,
                          to + tile.in_tensor, tile.tensor_step);
        });
    }
    for_each_tile(form, side_of_tile, side_of_tile, [&](const TensorTile& tile) {
        Scalar numbers[side_of_tile * side_of_tile];
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
