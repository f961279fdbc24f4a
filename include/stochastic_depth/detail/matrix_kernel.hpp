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
    [[nodiscard]] static bool crosses_columns(Index) { return true; }

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index, Index) const {
        return value;
    }
};

/// The factors of a product, what it starts from, and where it goes.
template <class Scalar>
struct Operands {
    LeftFactor<Scalar> left;
    Start<Scalar> start;
    RightFactor<Scalar> right;
    Destination<Scalar> out;
    Index inner;
    Index columns;
};

/// Whether an epilogue takes packets that go on from the end of one column to the next: it does if it says so,
/// as it may where all that it reads and writes has columns of `rows` numbers without gaps.
template <class Epilogue>
[[nodiscard]] bool crosses_columns(const Epilogue& epilogue, Index rows) {
    if constexpr (requires { epilogue.crosses_columns(rows); })
        return epilogue.crosses_columns(rows);
    else
        return false;
}

/// How many packets of rows and how many columns of the product stay in registers: with the packets of
/// one column of weights and one broadcast input they fill the register file.
inline constexpr int tile_packets = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32 ? 4 : 2;
inline constexpr int tile_columns = 6;

/// Columns in a tile of so many packets: one packet of rows needs more of them, so that there are enough sums
/// to work on while others wait for their last multiply-add.
template <int Packets>
inline constexpr int columns_beside = Packets == 1 ? 2 * tile_columns : tile_columns;

/// Packets of rows in a tile: below the widest packet there are fewer than two packets' worth of rows.
template <class Scalar, int Lanes>
inline constexpr int max_packets = Lanes == widest_lanes<Scalar> ? tile_packets : std::min(Lanes, 2);

/// Packets of rows for a single column, whose sums would else be too few.
inline constexpr int tall_packets = 8;

/// One tile of the product: Packets packets of rows from `row` on, by Columns columns from `column` on, over
/// the whole inner dimension. The last packet starts at row + last; it may overlap the one before, whose
/// rows it then computes again, to the same bits. Each packet ends in sink(sum, packet, column of tile).
template <int Lanes, int Packets, int Columns, class Scalar, class Sink>
EIGEN_ALWAYS_INLINE void run_tile(Index row, Index last, Index column, const Operands<Scalar>& f, const Sink& sink) {
    using P = Packet<Scalar, Lanes>;
    const auto offset = [last](int p) { return p + 1 < Packets ? Index{p * Lanes} : last; };
    Array<Array<P, Columns>, Packets> sum;
    for (int c = 0; c < Columns; ++c)
        for (int p = 0; p < Packets; ++p)
            sum[p][c] = f.start.data ? P::load(f.start.data + row + offset(p) +
                                               (column + c) * f.start.column_stride)
                                     : P::broadcast(Scalar(0));
    const Scalar* weights = f.left.data + row;
    const Index left_stride = f.left.stride;
    const Index inner_stride = f.right.inner_stride, column_stride = f.right.column_stride;
    // Several pointers, each to a few columns: one for all would be moved from column to column, step by step.
    constexpr int group = 3;
    Array<const Scalar*, (Columns + group - 1) / group> inputs;
    for (int c = 0; c < Columns; c += group) inputs[c / group] = f.right.data + (column + c) * column_stride;
    for (Index k = f.inner; k > 0; --k) {
        Array<P, Packets> weight;
        for (int p = 0; p < Packets; ++p) weight[p] = P::load(weights + offset(p));
        for (int c = 0; c < Columns; ++c) {
            const P input = P::broadcast(inputs[c / group][c % group * column_stride]);
            for (int p = 0; p < Packets; ++p) sum[p][c] = multiply_add(weight[p], input, sum[p][c]);
        }
        weights += left_stride;
        for (const Scalar*& input : inputs) input += inner_stride;
    }
    // A copy: a compiler that keeps the last loops, because of one in the sink, then keeps the copy in memory
    // and not the sums.
    Array<Array<P, Columns>, Packets> done;
    for (int c = 0; c < Columns; ++c)
        for (int p = 0; p < Packets; ++p) done[p][c] = sum[p][c];
    for (int c = 0; c < Columns; ++c)
        for (int p = 0; p < Packets; ++p) sink(done[p][c], p, c);
}

/// A tile that leaves its sums in memory, packet after packet, column after column: one set of such tiles
/// serves every epilogue.
template <int Lanes, int Packets, int Columns, class Scalar>
void run_tile_into(Scalar* sums, Index row, Index last, Index column, const Operands<Scalar>& f) {
    run_tile<Lanes, Packets, Columns>(row, last, column, f, [sums](const Packet<Scalar, Lanes>& sum, int p, int c) {
        sum.store(sums + (c * Packets + p) * Lanes);
    });
}

/// Runs as wide a tile as `columns` allow, and returns its width.
template <int Lanes, int Packets, class Scalar>
Index run_some_tile(Index columns, Scalar* sums, Index row, Index last, Index column, const Operands<Scalar>& f) {
    const Index width = columns >= 4 ? 4 : columns >= 2 ? 2 : 1;
    if (width == 4) run_tile_into<Lanes, Packets, 4>(sums, row, last, column, f);
    if (width == 2) run_tile_into<Lanes, Packets, 2>(sums, row, last, column, f);
    if (width == 1) run_tile_into<Lanes, Packets, 1>(sums, row, last, column, f);
    return width;
}

/// A tile of one column and many packets.
template <int Lanes, class Scalar>
Index run_tall_tile(Index, Scalar* sums, Index row, Index last, Index column, const Operands<Scalar>& f) {
    run_tile_into<Lanes, tall_packets, 1>(sums, row, last, column, f);
    return 1;
}

/// The tiles of a band from `column` on, by tile(columns, sums, ...) as run_some_tile is called.
template <int Lanes, class Tile, class Scalar, class Epilogue>
void run_tiles(Tile tile, int packets, Index row, Index last, Index column, const Operands<Scalar>& f,
               const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    Scalar* const out = f.out.data;
    const Index stride = f.out.stride;
    alignas(64) Array<Scalar, tile_packets * tile_columns * Lanes> sums;
    while (column < f.columns) {
        const Index end = column + tile(f.columns - column, sums, row, last, column, f);
        for (const Scalar* sum = sums; column < end; ++column)
            for (int p = 0; p < packets; ++p, sum += Lanes) {
                const Index i = row + std::min<Index>(p * Lanes, last);
                epilogue(P::load(sum), i, column).store(out + i + column * stride);
            }
    }
}

/// The tiles of a band of Packets packets of rows, from the first column to the last.
template <int Lanes, int Packets, class Scalar, class Epilogue>
void run_band(Index row, Index last, const Operands<Scalar>& f, const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    Scalar* const out = f.out.data;
    const Index stride = f.out.stride;
    const Index columns = f.columns;
    const Epilogue finish = epilogue;
    constexpr int wide = columns_beside<Packets>;
    Index column = 0;
    for (; column + wide <= columns; column += wide)
        run_tile<Lanes, Packets, wide>(row, last, column, f, [&](const P& sum, int p, Index c) {
            const Index i = row + (p + 1 < Packets ? p * Lanes : last);
            finish(sum, i, column + c).store(out + i + (column + c) * stride);
        });
    run_tiles<Lanes>(run_some_tile<Lanes, Packets, Scalar>, Packets, row, last, column, f, epilogue);
}

/// From this inner dimension on, and this many columns, weights are packed.
inline constexpr Index packed_inner = 512;
inline constexpr Index packed_columns = 4 * tile_columns;

/// Prepares a band whose weights lie too far apart for the cache: runs all of the inner dimension but its
/// last `packed_inner` steps or fewer, with the weights of so many steps at a time copied side by side into
/// `packed`, and the sums waiting in the output in between. Returns what remains to be done. Same order, same
/// bits.
template <int Lanes, int Packets, class Scalar>
Operands<Scalar> run_packed_steps(Index row, Index last, Operands<Scalar> rest, Scalar* packed) {
    // A band of one packet begins above its row where it overlaps the band before.
    const Index top = std::min<Index>(last, 0);
    const Index height = last + Lanes - top;
    for (;;) {
        const Index steps = std::min(packed_inner, rest.inner);
        for (Index k = 0; k < steps; ++k)
            std::copy_n(rest.left.data + row + top + k * rest.left.stride, height, packed + k * height);
        Operands<Scalar> now = rest;
        now.left = {packed - row - top, height};
        now.inner = steps;
        if (steps == rest.inner) return now;
        run_band<Lanes, Packets>(row, last, now, Keep());
        rest.left.data += steps * rest.left.stride;
        rest.right.data += steps * rest.right.inner_stride;
        rest.start = {rest.out.data, rest.out.stride};
        rest.inner -= steps;
    }
}

/// The bands of a product with `rows` >= Lanes, or Lanes = 1. Weights are packed into `packed`; null: not.
template <int Lanes, class Scalar, class Epilogue>
void run_bands(Index rows, const Operands<Scalar>& f, Scalar* packed, const Epilogue& epilogue) {
    constexpr int tall = max_packets<Scalar, Lanes>;
    const auto last_of = [rows](Index row, Index height) {
        return std::min(row + (height - 1) * Lanes, rows - Lanes) - row;
    };
    Index packets = (rows + Lanes - 1) / Lanes;
    Index row = 0;
    if constexpr (tall == tile_packets)
        for (; f.columns == 1 && packets >= tall_packets; packets -= tall_packets) {
            run_tiles<Lanes>(run_tall_tile<Lanes, Scalar>, tall_packets, row, last_of(row, tall_packets), 0, f,
                             epilogue);
            row += tall_packets * Lanes;
        }
    for (Index bands = (packets + tall - 1) / tall; bands > 0; --bands) {
        const Index height = bands == 1 ? packets : (packets + bands - 1) / bands;
        const Index last = last_of(row, height);
        unroll<tall>([&](auto p) {
            if (height != p + 1) return;
            if (packed)
                run_band<Lanes, p + 1>(row, last, run_packed_steps<Lanes, p + 1>(row, last, f, packed),
                                       epilogue);
            else
                run_band<Lanes, p + 1>(row, last, f, epilogue);
        });
        packets -= height;
        row += height * Lanes;
    }
}

/// Whether a matrix of this size known at compile time fits into registers, with room to work in.
template <int Lanes, int Rows, int Inner>
inline constexpr bool stays_resident =
    Rows > 0 && Inner > 0 && Rows % Lanes == 0 &&
    Rows / Lanes * Inner <= EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS / 2;

/// A product so small that its weights, [Rows x Inner] known at compile time, stay in registers while all
/// columns from `column` on pass. Rows is a multiple of Lanes.
template <int Lanes, int Rows, int Inner, class Scalar, class Epilogue>
EIGEN_ALWAYS_INLINE void run_resident(Index column, const Operands<Scalar>& f, const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    // Copies: a store of a packet may be to anything, for all that a compiler knows.
    const auto [left, start, right, out, ignored, columns] = f;
    constexpr int packets = Rows / Lanes;
    Array<Array<P, packets>, Inner> weight;
    Array<P, packets> first;
    for (int p = 0; p < packets; ++p) {
        first[p] = start.data ? P::load(start.data + p * Lanes) : P::broadcast(Scalar(0));
        for (int k = 0; k < Inner; ++k) weight[k][p] = P::load(left.data + k * left.stride + p * Lanes);
    }
    for (Index j = column; j < columns; ++j) {
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

/// Whether several columns of a square matrix of this size fit side by side into a packet.
template <int Lanes, int Rows, int Inner>
inline constexpr bool fits_side_by_side =
    Rows == Inner && Rows < Lanes && Lanes % Rows == 0;

/// The same with several columns side by side in a packet. The columns of each matrix, all of Rows numbers,
/// follow each other without gaps. Returns how many columns are done: as many as there are whole packets.
template <int Lanes, int Rows, class Scalar, class Epilogue>
Index run_side_by_side(Index columns, const Scalar* left, const Scalar* start, const Scalar* right, Scalar* out,
                       const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    constexpr int beside = Lanes / Rows;
    Array<P, Rows> weight;
    for (int k = 0; k < Rows; ++k) weight[k] = P::template repeat<Rows>(left + k * Rows);
    const P first = start ? P::template repeat<Rows>(start) : P::broadcast(Scalar(0));
    const Epilogue finish = epilogue;
    Index column = 0;
    for (; column + beside <= columns; column += beside) {
        const P inputs = P::load(right + column * Rows);
        P sum = first;
        unroll<Rows>([&](auto k) {
            sum = multiply_add(weight[k], inputs.template broadcast_in_groups<Rows, k>(), sum);
        });
        finish(sum, 0, column).store(out + column * Rows);
    }
    return column;
}

/// Finds the widest packet that the rows fill, and whether weights are to be packed.
template <int Rows, int Inner, int Lanes, class Scalar, class Epilogue>
EIGEN_ALWAYS_INLINE void run_product(Index rows, const Operands<Scalar>& f, const Epilogue& epilogue) {
    if constexpr (stays_resident<Lanes, Rows, Inner>) {
        Index column = 0;
        constexpr int widest = widest_lanes<Scalar>;
        if constexpr (fits_side_by_side<widest, Rows, Inner>)
            if (f.columns >= widest / Rows && f.left.stride == Rows && f.right.inner_stride == 1 &&
                f.right.column_stride == Rows && f.out.stride == Rows && crosses_columns(epilogue, Rows))
                column = run_side_by_side<widest, Rows>(f.columns, f.left.data, f.start.data, f.right.data,
                                                        f.out.data, epilogue);
        return run_resident<Lanes, Rows, Inner>(column, f, epilogue);
    }
    if constexpr (Lanes > 1 && (Rows == Eigen::Dynamic || Rows < Lanes)) {
        if (Rows != Eigen::Dynamic || rows < Lanes)
            return run_product<Rows, Inner, Packet<Scalar, Lanes>::narrower>(rows, f, epilogue);
    }
    if (f.inner <= packed_inner || f.columns < packed_columns)
        return run_bands<Lanes, Scalar>(rows, f, nullptr, epilogue);
    const ScratchArray<Scalar> packed(max_packets<Scalar, Lanes> * Lanes * packed_inner);
    run_bands<Lanes>(rows, f, packed.data(), epilogue);
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
EIGEN_ALWAYS_INLINE void product(Index rows, Index inner, Index columns, LeftFactor<Scalar> left,
                                 const Scalar* start, RightFactor<Scalar> right, Destination<Scalar> out,
                                 const Epilogue& epilogue) {
    run_product<Rows, Inner, Lanes>(rows, Operands<Scalar>{left, {start}, right, out, inner, columns},
                                    epilogue);
}

}  // namespace stochastic_depth::detail
