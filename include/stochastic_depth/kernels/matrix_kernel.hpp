// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/kernels/column_kernel.hpp>
#include <stochastic_depth/kernels/matrix_tile.hpp>
#include <stochastic_depth/kernels/operands.hpp>
#include <stochastic_depth/kernels/packet.hpp>
#include <stochastic_depth/kernels/resident_kernel.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The tiles of a band of `packets` packets of rows, from the first column to the last.
template <int Lanes, class Scalar, class Epilogue>
void run_band(Index packets, Index row, Index last, const Operands<Scalar>& f,
              const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    // Copies: what a store of a packet might have changed would be read again for each.
    const Destination<Scalar> out = f.out;
    const Origin origin = f.origin;
    const Index columns = f.columns;
    const Epilogue last_step = epilogue;
    Index column = 0;
    const bool knows_stride = has_fixed_stride<Lanes>(packets, f);
    if constexpr (fuses_epilogue<Scalar, Lanes>)
        unroll<max_packets<Scalar, Lanes>>([&](auto p) {
            constexpr int height = p + 1, wide = columns_beside<height>;
            if (packets != height || knows_stride) return;
            // Few columns would wait for their last multiply-adds: they share a full tile's.
            const Index rest = columns % wide;
            const bool shares =
                height > 1 && columns > wide && (rest == 3 || (rest == 2 && height > 2));
            const Index end = columns - rest - (shares ? wide : 0);
            for (; column < end; column += wide)
                run_tile<Lanes, height, wide>(row, last, column, f, [&] {
                    return [&, last_step = read_anew(epilogue)](const P& sum, int n, Index c) {
                        const Index i = row + (n + 1 < height ? n * Lanes : last);
                        finish(last_step, sum, i, column + c, out, origin);
                    };
                });
        });
    alignas(64) Array<Scalar, most_sums * Lanes> sums;
    while (column < columns) {
        const Index end = column + run_some_tile<Lanes, Scalar>(packets, knows_stride,
                                                                columns - column, sums, row, last,
                                                                column, f);
        for (const Scalar* sum = sums; column < end; ++column)
            for (Index p = 0; p < packets; ++p, sum += Lanes)
                finish(last_step, P::load(sum), row + std::min<Index>(p * Lanes, last), column, out,
                       origin);
    }
}

/// From this inner dimension on, and this many columns, weights are packed.
inline constexpr Index packed_inner = 512;
inline constexpr Index packed_columns = 4 * tile_columns;

/// Prepares a band whose weights lie too far apart for the cache: runs all of the inner dimension
/// but its last `packed_inner` steps or fewer, with the weights of so many steps at a time copied
/// side by side into `packed`, and the sums waiting in the output in between. Returns what remains
/// to be done. Same order, same bits.
template <int Lanes, class Scalar>
Operands<Scalar> run_packed_steps(Index packets, Index row, Index last, Operands<Scalar> rest,
                                  Scalar* packed) {
    // A band of one packet begins above its row where it overlaps the band before.
    const Index top = std::min<Index>(last, 0);
    const Index height = last + Lanes - top;
    for (;;) {
        const Index steps = std::min(packed_inner, rest.inner);
        for (Index k = 0; k < steps; ++k)
            for (Index p = 0; p < packets; ++p) {
                const Index i = std::min<Index>(p * Lanes, last);
                Packet<Scalar, Lanes>::load(rest.left.data + row + i + k * rest.left.stride)
                    .store(packed + k * height + i - top);
            }
        Operands<Scalar> now = rest;
        now.left = {packed - row - top, height};
        now.inner = steps;
        if (steps == rest.inner) return now;
        run_band<Lanes>(packets, row, last, now, AsIs());
        rest.left.data += steps * rest.left.stride;
        rest.right.data += steps * rest.right.inner_stride;
        rest.start = {rest.out.data, rest.out.stride};
        rest.inner -= steps;
    }
}

/// The bands of a product with `rows` >= Lanes, or Lanes = 1. Weights are packed into `packed`;
/// null: not.
template <int Lanes, class Scalar, class Epilogue>
void run_bands(Index rows, const Operands<Scalar>& f, Scalar* packed, const Epilogue& epilogue) {
    constexpr int tall = max_packets<Scalar, Lanes>;
    const auto last_of = [rows](Index row, Index height) {
        return std::min(row + (height - 1) * Lanes, rows - Lanes) - row;
    };
    Index packets = (rows + Lanes - 1) / Lanes;
    Index row = 0;
    for (Index bands = (packets + tall - 1) / tall; bands > 0; --bands) {
        const Index height = bands == 1 ? packets : (packets + bands - 1) / bands;
        const Index last = last_of(row, height);
        if (packed)
            run_band<Lanes>(height, row, last,
                            run_packed_steps<Lanes>(height, row, last, f, packed), epilogue);
        else
            run_band<Lanes>(height, row, last, f, epilogue);
        packets -= height;
        row += height * Lanes;
    }
}

/// Whether a band's weights, read along with a right factor across, would push each other out of the
/// nearest cache where they lie, and stay there side by side: 512 bytes apart, or a multiple of
/// that, they compete for an eighth of it, or less.
template <class Scalar>
[[nodiscard]] bool compete_for_cache(const Operands<Scalar>& f) {
    constexpr Index band = tile_packets * widest_lanes<Scalar>, bytes = sizeof(Scalar);
    return f.right.inner_stride > 1 && f.left.stride * bytes % 512 == 0 && f.inner >= 32 &&
           f.inner * band * bytes <= 16384;
}

/// The bands with packed weights.
template <int Lanes, class Scalar, class Epilogue>
[[gnu::noinline]] void run_packed_bands(Index rows, const Operands<Scalar>& f,
                                        const Epilogue& epilogue) {
    const ScratchArray<Scalar> packed(max_packets<Scalar, Lanes> * Lanes * packed_inner);
    run_bands<Lanes>(rows, f, packed.data(), epilogue);
}

/// The product of [Lanes x Lanes] weights. Not inlined: a call that takes another way has nothing
/// to save and align for this one.
template <int Lanes, class Scalar, class Epilogue>
[[gnu::noinline]] void run_square(const Operands<Scalar>& f, const Epilogue& epilogue) {
    run_resident<Lanes, Lanes, Lanes>(0, f, epilogue);
}

/// Finds the widest packet that the rows fill, and whether weights are to be packed.
template <int Rows, int Inner, int Lanes, class Scalar, class Epilogue>
void run_product(Index rows, const Operands<Scalar>& f, const Epilogue& epilogue) {
    if constexpr (stays_resident<Lanes, Rows, Inner>) {
        Index column = 0;
        constexpr int widest = widest_lanes<Scalar>;
        if constexpr (fits_side_by_side<widest, Rows, Inner>)
            if (f.columns >= widest / Rows && f.left.stride == Rows && f.right.inner_stride == 1 &&
                f.right.column_stride == Rows && f.out.stride == Rows &&
                crosses_columns(epilogue, Rows))
                column = run_side_by_side<widest, Rows>(f.columns, f.left.data, f.start.data,
                                                        f.right.data, f.out.data, epilogue, f.origin);
        return run_resident<Lanes, Rows, Inner>(column, f, epilogue);
    }
    if constexpr (Lanes > 1 && (Rows == Eigen::Dynamic || Rows < Lanes)) {
        if (Rows != Eigen::Dynamic || rows < Lanes)
            return run_product<Rows, Inner, Packet<Scalar, Lanes>::narrower>(rows, f, epilogue);
    }
    if constexpr (Lanes > 1)
        if (rows == Lanes && f.columns == 1 && f.segments.count == 1)
            return run_one_packet<Lanes>(f, epilogue);
    if constexpr (Lanes == widest_lanes<Scalar> && Lanes > 1)
        if (f.columns == 1) return run_column<Lanes>(rows, f, epilogue);
    // A square of a packet of four or eight stays in registers too where its size is known at run
    // time alone. (One of sixteen is as fast in tiles.)
    if constexpr (Rows == Eigen::Dynamic && (Lanes == 4 || Lanes == 8) &&
                  stays_resident<Lanes, Lanes, Lanes>) {
        if (rows == Lanes && f.inner == Lanes && f.columns > 1 && f.start.column_stride == 0 &&
            f.segments.count == 1)
            return run_square<Lanes>(f, epilogue);
    }
    // Fewer rows than the widest packet's lie close together as they are.
    if (Lanes < widest_lanes<Scalar> || f.columns < packed_columns || f.segments.count > 1 ||
        (f.inner <= packed_inner && !compete_for_cache(f)))
        return run_bands<Lanes, Scalar>(rows, f, nullptr, epilogue);
    run_packed_bands<Lanes>(rows, f, epilogue);
}

/// out = epilogue(start + left * right) in one pass: every element sums over the inner dimension in
/// one order, from `start` (a column of `rows` numbers; null: zero) on, with fused multiply-adds,
/// and goes through the epilogue before it is stored. Neither the number of columns nor the tiling
/// changes a bit.
///
/// epilogue(packet, i, j) returns what is stored for rows i, i + 1, ... of column j. It may be
/// called twice for the same rows, and must give the same answer both times; it must not read
/// `out`. If it has a member crosses_columns(rows) that says so, the packet may go on in the
/// columns after j. `origin` is where the product stands in what the epilogue knows: it is added
/// to i and j.
///
/// Rows and Inner are sizes known at compile time, or Eigen::Dynamic.
template <class Scalar, int Rows = Eigen::Dynamic, int Inner = Eigen::Dynamic,
          int Lanes = widest_lanes<Scalar>, class Epilogue>
EIGEN_ALWAYS_INLINE void product(Index rows, Index inner, Index columns, LeftFactor<Scalar> left,
                                 const Scalar* start, RightFactor<Scalar> right,
                                 Destination<Scalar> out, const Epilogue& epilogue,
                                 Origin origin = {}) {
    redirect(out, epilogue, origin, [&](const Destination<Scalar>& to, const auto& last_step) {
        run_product<Rows, Inner, Lanes>(
            rows, Operands<Scalar>{left, {start}, to, right, inner, origin, {}, columns}, last_step);
    });
}

/// The same with sums that start from a matrix of the product's shape; `start` may be `out` where
/// no two packets overlap, which is so if the widest packet divides the rows. The inner dimension may
/// come in segments, of `inner` steps each.
template <class Scalar, int Rows = Eigen::Dynamic, class Epilogue>
void product_onto(Index rows, Index inner, Index columns, LeftFactor<Scalar> left,
                  Start<Scalar> start, RightFactor<Scalar> right, Destination<Scalar> out,
                  const Epilogue& epilogue, Origin origin = {}, Segments segments = {}) {
    run_product<Rows, Eigen::Dynamic, widest_lanes<Scalar>>(
        rows, Operands<Scalar>{left, start, out, right, inner, origin, segments, columns},
        epilogue);
}

}  // namespace stochastic_depth::detail
