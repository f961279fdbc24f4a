// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include <stochastic_depth/detail/packet.hpp>
#include <stochastic_depth/detail/scratch.hpp>

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

/// What the sums start from: entry (i, j) is data[i + j * column_stride], so that a stride of 0 repeats one
/// column; null: zero.
template <class Scalar>
struct Start {
    const Scalar* data;
    Index column_stride = 0;
};

/// Where the product goes, [rows x columns]: columns are contiguous, `stride` apart.
template <class Scalar>
struct Destination {
    Scalar* data;
    Index stride;
};

/// Epilogue: stores the product as it is.
struct Keep {
    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index, Index) const {
        return value;
    }
};

/// How many packets of rows and how many columns of the product stay in registers: with the packets of
/// one column of weights and one broadcast input they fill the register file.
inline constexpr int tile_packets = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32 ? 4 : 2;
inline constexpr int tile_columns = 6;

/// Packets of rows in a tile: below the widest packet there are fewer than two packets' worth of rows.
template <class Scalar, int Lanes>
inline constexpr int max_packets = Lanes == widest_lanes<Scalar> ? tile_packets : std::min(Lanes, 2);

/// Whether a matrix of this size known at compile time fits into registers, with room to work in.
template <int Lanes, int Rows, int Inner>
inline constexpr bool stays_resident =
    Rows > 0 && Inner > 0 && Rows % Lanes == 0 &&
    Rows / Lanes * Inner <= EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS / 2;

/// One tile of the product: Packets packets of rows from `row` on, by Columns columns from `column` on, over
/// the whole inner dimension. The last packet starts at row + last; it may overlap the one before, whose
/// rows it then computes again, to the same bits. Each packet ends in sink(sum, packet, column of tile).
template <int Lanes, int Packets, int Columns, class Scalar, class Sink>
EIGEN_ALWAYS_INLINE void run_tile(Index row, Index last, Index column, Index inner, LeftFactor<Scalar> left,
                                  Start<Scalar> start, RightFactor<Scalar> right, const Sink& sink) {
    using P = Packet<Scalar, Lanes>;
    const auto offset = [last](int p) { return p + 1 < Packets ? Index{p * Lanes} : last; };
    Array<Array<P, Columns>, Packets> sum;
    for (int c = 0; c < Columns; ++c)
        for (int p = 0; p < Packets; ++p)
            sum[p][c] = start.data
                            ? P::load(start.data + row + offset(p) + (column + c) * start.column_stride)
                            : P::broadcast(Scalar(0));
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
    // A copy: a compiler that keeps the last loops, because of one in the sink, then keeps the copy in memory
    // and not the sums.
    Array<Array<P, Columns>, Packets> done;
    for (int c = 0; c < Columns; ++c)
        for (int p = 0; p < Packets; ++p) done[p][c] = sum[p][c];
    for (int c = 0; c < Columns; ++c)
        for (int p = 0; p < Packets; ++p) sink(done[p][c], p, c);
}

/// A tile of 2 or 4 columns. Its sums go to `sums`, packet after packet, column
/// after column, so that one set of such tiles serves every epilogue.
template <int Lanes, int Packets, class Scalar>
void run_narrow_tile(Index columns, Index row, Index last, Index column, Index inner,
                     LeftFactor<Scalar> left, Start<Scalar> start, RightFactor<Scalar> right, Scalar* sums) {
    const auto store = [sums](const Packet<Scalar, Lanes>& sum, int p, int in_tile) {
        sum.store(sums + (in_tile * Packets + p) * Lanes);
    };
    if (columns == 4)
        run_tile<Lanes, Packets, 4>(row, last, column, inner, left, start, right, store);
    else
        run_tile<Lanes, Packets, 2>(row, last, column, inner, left, start, right, store);
}

/// The tiles of a band of Packets packets of rows, from the first column to the last.
template <int Lanes, int Packets, class Scalar, class Epilogue>
void run_band(Index row, Index last, Index columns, Index inner, LeftFactor<Scalar> left,
              Start<Scalar> start, RightFactor<Scalar> right, Destination<Scalar> out,
              const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    Index column = 0;
    // By value: what a store through a packet might have changed would be read again for each.
    const auto finish_at = [=](Index first) {
        return [=](const P& sum, int p, Index in_tile) {
            const Index i = row + (p + 1 < Packets ? p * Lanes : last);
            epilogue(sum, i, first + in_tile).store(out.data + i + (first + in_tile) * out.stride);
        };
    };
    for (; column + tile_columns <= columns; column += tile_columns)
        run_tile<Lanes, Packets, tile_columns>(row, last, column, inner, left, start, right, finish_at(column));
    while (column < columns) {
        const Index rest = columns - column;
        if (rest == 1)
            return run_tile<Lanes, Packets, 1>(row, last, column, inner, left, start, right, finish_at(column));
        const Index width = rest >= 4 ? 4 : 2;
        alignas(64) Array<Scalar, Packets * 4 * Lanes> sums;
        run_narrow_tile<Lanes, Packets>(width, row, last, column, inner, left, start, right, sums);
        for (Index c = 0; c < width; ++c)
            for (int p = 0; p < Packets; ++p) finish_at(column)(P::load(sums + (c * Packets + p) * Lanes), p, c);
        column += width;
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

/// From this inner dimension on, and this many columns, weights are packed.
inline constexpr Index packed_inner = 512;
inline constexpr Index packed_columns = 4 * tile_columns;

/// Prepares a band whose weights lie too far apart for the cache: runs all of the inner dimension but its
/// last `packed_inner` steps or fewer, with the weights of so many steps at a time copied side by side into
/// `packed`, and the sums waiting in `out` in between. Leaves in left, start, right and inner what remains to
/// be done. Same order, same bits.
template <int Lanes, int Packets, class Scalar>
void run_packed_steps(Index row, Index last, Index columns, Index& inner, LeftFactor<Scalar>& left,
                      Start<Scalar>& start, RightFactor<Scalar>& right, Destination<Scalar> out,
                      Scalar* packed) {
    // A band of one packet begins above its row where it overlaps the band before.
    const Index top = std::min<Index>(last, 0);
    const Index height = last + Lanes - top;
    for (;;) {
        const Index steps = std::min(packed_inner, inner);
        for (Index k = 0; k < steps; ++k)
            std::copy_n(left.data + row + top + k * left.stride, height, packed + k * height);
        const LeftFactor<Scalar> weights{packed - row - top, height};
        if (steps == inner) {
            left = weights;
            return;
        }
        run_band<Lanes, Packets>(row, last, columns, steps, weights, start, right, out, Keep());
        left.data += steps * left.stride;
        right.data += steps * right.inner_stride;
        start = {out.data, out.stride};
        inner -= steps;
    }
}

/// out = epilogue(start + left * right) in one pass: every element sums over the inner dimension in one
/// order, from `start` (a column of `rows` numbers; null: zero) on, with fused multiply-adds, and goes
/// through the epilogue before it is stored. Neither the number of columns nor the tiling changes a bit.
///
/// epilogue(packet, i, j) returns what is stored for rows i, i + 1, ... of column j. It may be called
/// twice for the same rows, and must give the same answer both times; it must not read `out`.
///
/// Rows and Inner are sizes known at compile time, or Eigen::Dynamic.
template <class Scalar, int Rows = Eigen::Dynamic, int Inner = Eigen::Dynamic,
          int Lanes = widest_lanes<Scalar>, class Epilogue>
void product(Index rows, Index inner, Index columns, LeftFactor<Scalar> left, const Scalar* start,
             RightFactor<Scalar> right, Destination<Scalar> out, const Epilogue& epilogue) {
    if constexpr (stays_resident<Lanes, Rows, Inner>)
        return run_resident<Lanes, Rows, Inner>(columns, left, start, right, out, epilogue);
    if constexpr (Lanes > 1 && (Rows == Eigen::Dynamic || Rows < Lanes)) {
        if (Rows != Eigen::Dynamic || rows < Lanes)
            return product<Scalar, Rows, Inner, Packet<Scalar, Lanes>::narrower>(
                rows, inner, columns, left, start, right, out, epilogue);
    }
    constexpr int tall = max_packets<Scalar, Lanes>;
    const bool packs = inner > packed_inner && columns >= packed_columns;
    const ScratchArray<Scalar> packed(packs ? tall * Lanes * packed_inner : 0);
    Index packets = (rows + Lanes - 1) / Lanes;
    Index bands = (packets + tall - 1) / tall;
    for (Index row = 0; bands > 0; --bands) {
        const Index height = (packets + bands - 1) / bands;
        const Index last = std::min(row + (height - 1) * Lanes, rows - Lanes) - row;
        unroll<tall>([&](auto p) {
            if (height != p + 1) return;
            Index steps = inner;
            LeftFactor<Scalar> weights = left;
            Start<Scalar> from{start};
            RightFactor<Scalar> inputs = right;
            if (packs)
                run_packed_steps<Lanes, p + 1>(row, last, columns, steps, weights, from, inputs, out,
                                               packed.data());
            run_band<Lanes, p + 1>(row, last, columns, steps, weights, from, inputs, out, epilogue);
        });
        packets -= height;
        row += height * Lanes;
    }
}

}  // namespace stochastic_depth::detail
