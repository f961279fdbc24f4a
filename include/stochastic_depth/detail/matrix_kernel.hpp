// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include <stochastic_depth/detail/packet.hpp>

namespace stochastic_depth::detail {

/// The left factor of a product, [rows x inner]: its columns are contiguous, `stride` apart.
template <class Scalar>
struct LeftFactor {
    const Scalar* data;
    Index stride;
};

/// The right factor, [inner x columns]: entry (k, j) is data[k * inner_stride + j * column_stride], so
/// that a transpose is a matter of strides.
template <class Scalar>
struct RightFactor {
    const Scalar* data;
    Index inner_stride;
    Index column_stride;
};

/// Where the product goes, [rows x columns]: columns are contiguous, `stride` apart.
template <class Scalar>
struct Destination {
    Scalar* data;
    Index stride;
};

/// A size known at compile time, or at run time where Fixed is Eigen::Dynamic.
template <int Fixed>
struct Size {
    constexpr explicit Size(Index) {}
    constexpr operator Index() const { return Fixed; }
};
template <>
struct Size<Eigen::Dynamic> {
    constexpr explicit Size(Index size) : value(size) {}
    constexpr operator Index() const { return value; }
    Index value;
};

/// How many packets of rows and how many columns of the product stay in registers: with the packets of
/// one column of weights and one broadcast input they fill the register file.
inline constexpr int tile_packets = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32 ? 4 : 2;
inline constexpr int tile_columns = 6;

/// Whether a matrix of this size known at compile time fits into registers, with room to work in.
template <int Lanes, int Rows, int Inner>
inline constexpr bool stays_resident =
    Rows > 0 && Inner > 0 && Rows % Lanes == 0 &&
    Rows / Lanes * Inner <= EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS / 2;

/// One tile: Packets packets of rows from `row` on, by Columns columns from `column` on, over the whole
/// inner dimension. The last packet starts at row + last; it may overlap the one before, whose rows it
/// then computes again, to the same bits.
template <int Lanes, int Packets, int Columns, int Inner, class Scalar, class Epilogue>
EIGEN_ALWAYS_INLINE void run_tile(Index row, Index last, Index column, Size<Inner> inner,
                                  LeftFactor<Scalar> left, const Scalar* start,
                                  RightFactor<Scalar> right, Destination<Scalar> out,
                                  const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    const auto offset = [last](int p) { return p + 1 < Packets ? Index{p * Lanes} : last; };
    Array<Array<P, Columns>, Packets> sum;
    for (int p = 0; p < Packets; ++p) {
        const P first = start ? P::load(start + row + offset(p)) : P::broadcast(Scalar(0));
        for (int c = 0; c < Columns; ++c) sum[p][c] = first;
    }
    const Scalar* weights = left.data + row;
    const Scalar* inputs = right.data + column * right.column_stride;
    for (Index k = 0; k < inner; ++k) {
        Array<P, Packets> weight;
        for (int p = 0; p < Packets; ++p) weight[p] = P::load(weights + offset(p));
        for (int c = 0; c < Columns; ++c) {
            const P input = P::broadcast(inputs[c * right.column_stride]);
            for (int p = 0; p < Packets; ++p) sum[p][c] = multiply_add(weight[p], input, sum[p][c]);
        }
        weights += left.stride;
        inputs += right.inner_stride;
    }
    for (int c = 0; c < Columns; ++c)
        for (int p = 0; p < Packets; ++p) {
            const Index i = row + offset(p);
            epilogue(sum[p][c], i, column + c).store(out.data + i + (column + c) * out.stride);
        }
}

/// A product so small that its weights, [Rows x Inner] known at compile time, stay in registers while all
/// columns pass. Rows is a multiple of Lanes.
template <int Lanes, int Rows, int Inner, class Scalar, class Epilogue>
void run_resident(Index columns, LeftFactor<Scalar> left, const Scalar* start,
                  RightFactor<Scalar> right, Destination<Scalar> out, const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    constexpr int packets = Rows / Lanes;
    Array<Array<P, packets>, Inner> weight;
    Array<P, packets> first;
    for (int p = 0; p < packets; ++p) {
        first[p] = start ? P::load(start + p * Lanes) : P::broadcast(Scalar(0));
        for (int k = 0; k < Inner; ++k) weight[k][p] = P::load(left.data + k * left.stride + p * Lanes);
    }
    for (Index j = 0; j < columns; ++j) {
        const Scalar* input = right.data + j * right.column_stride;
        Array<P, packets> sum;
        for (int p = 0; p < packets; ++p) sum[p] = first[p];
        for (int k = 0; k < Inner; ++k) {
            const P entry = P::broadcast(input[k * right.inner_stride]);
            for (int p = 0; p < packets; ++p) sum[p] = multiply_add(weight[k][p], entry, sum[p]);
        }
        for (int p = 0; p < packets; ++p)
            epilogue(sum[p], Index{p * Lanes}, j).store(out.data + p * Lanes + j * out.stride);
    }
}

/// Tiles of a band of Packets packets of rows, from the first column to the last. Columns are dealt out
/// evenly, so that no tile is left with a single one while others are full.
template <int Lanes, int Packets, int Inner, class Scalar, class Epilogue>
void run_band(Index row, Index last, Index columns, Size<Inner> inner, LeftFactor<Scalar> left,
              const Scalar* start, RightFactor<Scalar> right, Destination<Scalar> out,
              const Epilogue& epilogue) {
    Index tiles = (columns + tile_columns - 1) / tile_columns;
    for (Index column = 0; tiles > 0; --tiles) {
        const Index width = (columns - column + tiles - 1) / tiles;
        unroll<tile_columns>([&](auto c) {
            if (width == c + 1)
                run_tile<Lanes, Packets, c + 1>(row, last, column, inner, left, start, right, out,
                                                epilogue);
        });
        column += width;
    }
}

/// out = epilogue(start + left * right) in one pass: every element sums over the inner dimension in one
/// order, from `start` (a column of `rows` numbers; null: zero) on, with fused multiply-adds, and goes
/// through the epilogue before it is stored. Neither the number of columns nor the tiling changes a bit.
///
/// epilogue(packet, i, j) returns what is stored for rows i, i + 1, ... of column j. It may be called
/// twice for the same rows, and must give the same answer both times.
template <class Scalar, int Rows = Eigen::Dynamic, int Inner = Eigen::Dynamic,
          int Lanes = widest_lanes<Scalar>, class Epilogue>
void product(Index rows, Index inner, Index columns, LeftFactor<Scalar> left, const Scalar* start,
             RightFactor<Scalar> right, Destination<Scalar> out, const Epilogue& epilogue) {
    if constexpr (Lanes > 1 && (Rows == Eigen::Dynamic || Rows < Lanes)) {
        if (Rows != Eigen::Dynamic || rows < Lanes)
            return product<Scalar, Rows, Inner, Packet<Scalar, Lanes>::narrower>(
                rows, inner, columns, left, start, right, out, epilogue);
    }
    if constexpr (stays_resident<Lanes, Rows, Inner>)
        return run_resident<Lanes, Rows, Inner>(columns, left, start, right, out, epilogue);
    if constexpr (Rows != Eigen::Dynamic) rows = Rows;
    const Size<Inner> depth{inner};
    Index packets = (rows + Lanes - 1) / Lanes;
    Index bands = (packets + tile_packets - 1) / tile_packets;
    for (Index row = 0; bands > 0; --bands) {
        const Index height = (packets + bands - 1) / bands;
        const Index last = std::min(row + (height - 1) * Lanes, rows - Lanes) - row;
        unroll<tile_packets>([&](auto p) {
            if (height == p + 1)
                run_band<Lanes, p + 1>(row, last, columns, depth, left, start, right, out, epilogue);
        });
        packets -= height;
        row += height * Lanes;
    }
}

}  // namespace stochastic_depth::detail
