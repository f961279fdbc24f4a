// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/kernels/column_kernel.hpp>
#include <stochastic_depth/kernels/operands.hpp>
#include <stochastic_depth/kernels/packet.hpp>
#include <stochastic_depth/types.hpp>

/// Tiles of a product: sums that stay in registers over the whole inner dimension.
namespace stochastic_depth::detail {

/// How many packets of rows and how many columns of the product stay in registers: with the packets
/// of one column of weights and one broadcast input they fill the register file.
inline constexpr int tile_packets = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32 ? 4 : 2;
inline constexpr int tile_columns = 6;

/// Columns in a tile of so many packets: one packet of rows needs more of them, so that there are
/// enough sums to work on while others wait for their last multiply-add.
template <int Packets>
inline constexpr int columns_beside = Packets == 1 ? 2 * tile_columns : tile_columns;

/// Packets of rows in a tile: below the widest packet there are fewer than two packets' worth of
/// rows.
template <class Scalar, int Lanes>
inline constexpr int max_packets = Lanes == widest_lanes<Scalar> ? tile_packets
                                                                 : std::min(Lanes, 2);

/// One tile of the product: Packets packets of rows from `row` on, by Columns columns from `column`
/// on, over the whole inner dimension. The last packet starts at row + last; it may overlap the one
/// before, whose rows it then computes again, to the same bits. Each packet ends in sink()(sum,
/// packet, column of tile).
///
/// ColumnStride is the right factor's, where it is known at compile time.
template <int Lanes, int Packets, int Columns, Index ColumnStride = Eigen::Dynamic, class Scalar,
          class Sink>
EIGEN_ALWAYS_INLINE void run_tile(Index row, Index last, Index column, const Operands<Scalar>& f,
                                  const Sink& sink) {
    using P = Packet<Scalar, Lanes>;
    const auto offset = [last](int p) { return p + 1 < Packets ? Index{p * Lanes} : last; };
    Array<Array<P, Columns>, Packets> sum;
    STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < Columns; ++c)
        STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < Packets; ++p)
            sum[p][c] =
                f.start.data
                    ? P::load(f.start.data + row + offset(p) + (column + c) * f.start.column_stride)
                    : P::broadcast(Scalar(0));
    // What the next tile starts from: it would wait for memory, with nothing else to do.
    if (f.start.column_stride > 0)
        for (int c = 0; c < Columns; ++c)
            for (int p = 0; p < Packets; ++p)
                __builtin_prefetch(f.start.data + row + offset(p) +
                                   (column + Columns + c) * f.start.column_stride);
    const Scalar* weights = f.left.data + row;
    const Index left_stride = f.left.stride;
    const Index inner_stride = f.right.inner_stride;
    constexpr bool is_fixed = ColumnStride != Eigen::Dynamic;
    const Index column_stride = is_fixed ? ColumnStride : f.right.column_stride;
    // Several pointers, each for a few columns: clang moves a single one from column to column,
    // step by step.
    constexpr int group = is_fixed ? Columns : 3;
    Array<const Scalar*, (Columns + group - 1) / group> inputs;
    STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < Columns; c += group)
        inputs[c / group] = f.right.data + (column + c) * column_stride;
    // A right factor with contiguous rows strides through memory: its next line is fetched early,
    // where a tile has enough sums to hide that.
    constexpr bool is_full = Packets == tile_packets && Columns == tile_columns;
    const Index ahead = inner_stride > 1 ? Index{64 / sizeof(Scalar)} : 0;
    for (Index segment = f.segments.count;;) {
        for (Index k = f.inner; k > 0; --k) {
            if constexpr (is_full) __builtin_prefetch(inputs[0] + ahead);
            Array<P, Packets> weight;
            STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < Packets; ++p)
                weight[p] = P::load(weights + offset(p));
            STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < Columns; ++c) {
                const P input = P::broadcast(inputs[c / group][c % group * column_stride]);
                STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < Packets; ++p)
                    sum[p][c] = multiply_add(weight[p], input, sum[p][c]);
            }
            weights += left_stride;
            STOCHASTIC_DEPTH_UNROLL for (const Scalar*& input : inputs) input += inner_stride;
        }
        if (--segment <= 0) break;
        weights += f.segments.left;
        STOCHASTIC_DEPTH_UNROLL for (const Scalar*& input : inputs) input += f.segments.right;
    }
    const auto finish_packet = sink();
    STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < Columns; ++c)
        STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < Packets; ++p) finish_packet(sum[p][c], p, c);
}

/// A tile that leaves its sums in memory, packet after packet, column after column: one set of such
/// tiles serves every epilogue.
template <int Lanes, int Packets, int Columns, Index ColumnStride = Eigen::Dynamic, class Scalar>
void run_tile_into(Scalar* sums, Index row, Index last, Index column, const Operands<Scalar>& f) {
    run_tile<Lanes, Packets, Columns, ColumnStride>(row, last, column, f, [sums] {
        return [sums](const Packet<Scalar, Lanes>& sum, int p, int c) {
            sum.store(sums + (c * Packets + p) * Lanes);
        };
    });
}

/// Whether tiles of full width are compiled for each epilogue, which then works on sums that are
/// still in registers: those of the widest packet, and of its half. All others leave their sums in
/// memory, and are the same code for every epilogue: a compiler spends more on tiles than on all
/// else.
template <class Scalar, int Lanes>
inline constexpr bool fuses_epilogue = 2 * Lanes >= widest_lanes<Scalar>;

/// Runs a tile of Packets packets and of as many columns as `columns` allow, and returns its width.
template <int Lanes, int Packets, class Scalar>
Index run_tile_of(Index columns, Scalar* sums, Index row, Index last, Index column,
                  const Operands<Scalar>& f) {
    // Where tiles of full width fuse their epilogue, this is for what is left beside them. Eight
    // columns are twice four.
    constexpr bool fuses = fuses_epilogue<Scalar, Lanes>;
    constexpr int widest = fuses ? (Packets == 1 ? tile_columns : 5) : columns_beside<Packets>;
    if (columns >= widest && (!fuses || Packets == 1 || columns != 8)) {
        run_tile_into<Lanes, Packets, widest>(sums, row, last, column, f);
        return widest;
    }
    if constexpr (fuses)
        if (columns >= 4) {
            run_tile_into<Lanes, Packets, 4>(sums, row, last, column, f);
            return 4;
        }
    if (columns >= 2) {
        run_tile_into<Lanes, Packets, 2>(sums, row, last, column, f);
        return 2;
    }
    sum_column<Lanes, Packets>(sums, row, last, column, f);
    return 1;
}

/// Columns of tiles whose column stride is known at compile time: even numbers, from the narrowest
/// to those whose sums, beside their weights, fill the registers.
inline constexpr int narrowest_fixed = 8;
template <int Packets>
inline constexpr int widest_fixed = Packets == 1 ? 16 : 14;

/// Whether there are such tiles: short ones, where few multiply-adds share a broadcast, keep a
/// processor with AVX-512 from its peak otherwise.
template <int Lanes, class Scalar>
inline constexpr bool has_fixed_tiles = Lanes == widest_lanes<Scalar> && tile_packets >= 4;

/// Whether tiles know the column stride at compile time: that of a right factor across, or of one
/// whose columns are one or two packets long. An input then stands at a constant distance from a
/// single pointer, and its broadcast is a part of its multiply-add. (With an index in the address
/// the processor takes the two apart again, and has more to begin in a cycle than it can.) Their
/// sums go through memory, which does not matter where they are long.
template <int Lanes, class Scalar>
[[nodiscard]] bool has_fixed_stride(Index packets, const Operands<Scalar>& f) {
    const Index stride = f.right.column_stride;
    return has_fixed_tiles<Lanes, Scalar> && packets <= 2 && f.columns >= narrowest_fixed &&
           f.inner * f.segments.count >= 16 * packets &&
           (stride == 1 || stride == Lanes || stride == 2 * Lanes);
}

/// As run_tile_of, of at least narrowest_fixed columns. All tiles are about as wide: a narrow one
/// would wait for its last multiply-add.
template <int Lanes, int Packets, class Scalar>
Index run_fixed_tile_of(Index columns, Scalar* sums, Index row, Index last, Index column,
                        const Operands<Scalar>& f) {
    constexpr int widest = widest_fixed<Packets>;
    const Index share = columns / ((columns + widest - 1) / widest);
    const Index width = std::min((share + 1) / 2 * 2, columns / 2 * 2);
    unroll<(widest - narrowest_fixed) / 2 + 1>([&](auto n) {
        constexpr int wide = narrowest_fixed + 2 * n;
        if (width != wide) return;
        const Index stride = f.right.column_stride;
        if (stride == 1)
            run_tile_into<Lanes, Packets, wide, 1>(sums, row, last, column, f);
        else if (stride == Lanes)
            run_tile_into<Lanes, Packets, wide, Lanes>(sums, row, last, column, f);
        else
            run_tile_into<Lanes, Packets, wide, 2 * Lanes>(sums, row, last, column, f);
    });
    return width;
}

/// Packets of sums that a tile leaves in memory at most.
inline constexpr int most_sums = std::max(tile_packets * tile_columns, 2 * widest_fixed<2>);

/// Runs a tile of a number of packets known at run time, and returns its width.
/// \param knows_stride  has_fixed_stride of the product.
template <int Lanes, class Scalar>
Index run_some_tile(Index packets, bool knows_stride, Index columns, Scalar* sums, Index row,
                    Index last, Index column, const Operands<Scalar>& f) {
    if constexpr (has_fixed_tiles<Lanes, Scalar>)
        if (knows_stride && columns >= narrowest_fixed)
            return packets == 1
                       ? run_fixed_tile_of<Lanes, 1>(columns, sums, row, last, column, f)
                       : run_fixed_tile_of<Lanes, 2>(columns, sums, row, last, column, f);
    Index width = 1;
    unroll<max_packets<Scalar, Lanes>>([&](auto p) {
        if (packets == p + 1)
            width = run_tile_of<Lanes, p + 1>(columns, sums, row, last, column, f);
    });
    return width;
}

}  // namespace stochastic_depth::detail
