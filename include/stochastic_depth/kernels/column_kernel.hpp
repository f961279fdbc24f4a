// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>

#include <stochastic_depth/kernels/operands.hpp>
#include <stochastic_depth/kernels/packet.hpp>

/// Products of one column: few sums to work on at a time, and little work to hide a call behind.
namespace stochastic_depth::detail {

/// From this distance of columns on, in bytes, memory is fetched ahead for a loop of single steps
/// alone.
inline constexpr int far_columns = 512;

/// The sums of a column for Packets packets of rows from `row` on, left in memory one after the
/// other: one set of such functions serves every epilogue. The last packet starts at row + last; it
/// may overlap the one before.
template <int Lanes, int Packets, class Scalar>
[[gnu::noinline]] void sum_column(Scalar* sums, Index row, Index last, Index column,
                                  const Operands<Scalar>& f) {
    using P = Packet<Scalar, Lanes>;
    constexpr int size = sizeof(Scalar);
    Array<P, Packets> sum;
    const Index start = row + column * f.start.column_stride;
    STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < Packets; ++p)
        sum[p] = f.start.data
                     ? P::load(f.start.data + start + (p + 1 < Packets ? Index{p * Lanes} : last))
                     : P::broadcast(Scalar(0));
    const Index stride = f.left.stride, inner_stride = f.right.inner_stride;
    const Scalar* weights = f.left.data + row;
    const Scalar* input = f.right.data + column * f.right.column_stride;
    const auto step = [&](int k, P entry, const Scalar* last_weights) {
        STOCHASTIC_DEPTH_UNROLL for (int p = 0; p + 1 < Packets; ++p)
            sum[p] = multiply_add(P::load(weights + k * stride + p * Lanes), entry, sum[p]);
        P& of_last = sum[Packets - 1];
        of_last = multiply_add(P::load(last_weights + k * stride), entry, of_last);
    };
    // Steps in groups, the inputs of a group loaded at once: loads are what there is most of.
    constexpr bool in_groups = Lanes * size >= 16 && Packets * Lanes * size < far_columns;
    constexpr int group = in_groups ? 16 / size : 1;
    const bool is_near = in_groups && stride * size < far_columns && inner_stride == 1;
    const auto steps = static_cast<std::size_t>(f.inner);
    const std::size_t groups = is_near ? steps / group : 0;
    for (Index segment = f.segments.count;;) {
        // Here the last packet is read in its turn, in ascending order.
        for (std::size_t k = steps - groups * group; k > 0; --k) {
            step(0, P::broadcast(*input), weights + last);
            input += inner_stride;
            weights += stride;
        }
        if constexpr (in_groups) {
            const Scalar* last_weights = weights + last;
            for (std::size_t k = groups; k > 0; --k) {
                const P inputs = P::template repeat<group>(input).in_register();
                unroll<group>([&](auto n) {
                    step(n, inputs.template broadcast_in_groups<group, n>(), last_weights);
                });
                input += group;
                weights += group * stride;
                last_weights += group * stride;
            }
        }
        if (--segment <= 0) break;
        input += f.segments.right;
        weights += f.segments.left;
    }
    STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < Packets; ++p) sum[p].store(sums + p * Lanes);
}

template <class Scalar>
using SumColumn = void(Scalar*, Index, Index, Index, const Operands<Scalar>&);

/// sum_column for up to as many packets of rows as hide the latency of a multiply-add, and how many
/// it is for: five are three, and then two.
template <class Scalar>
struct ColumnTile {
    SumColumn<Scalar>* run;
    Index packets;
};
template <int Lanes, class Scalar>
inline constexpr ColumnTile<Scalar> column_tiles[] = {
    {&sum_column<Lanes, 1, Scalar>, 1}, {&sum_column<Lanes, 2, Scalar>, 2},
    {&sum_column<Lanes, 3, Scalar>, 3}, {&sum_column<Lanes, 4, Scalar>, 4},
    {&sum_column<Lanes, 3, Scalar>, 3}, {&sum_column<Lanes, 6, Scalar>, 6},
    {&sum_column<Lanes, 4, Scalar>, 4}, {&sum_column<Lanes, 8, Scalar>, 8}};

/// The sums of a column. Where there are registers for sixteen packets, the weights of so many are
/// read as they lie in memory, and fetched ahead.
template <int Lanes, class Scalar>
[[gnu::noinline]] void sum_rows(Scalar* sums, Index rows, const Operands<Scalar>& f) {
    constexpr auto& tiles = column_tiles<Lanes, Scalar>;
    const Index all = (rows + Lanes - 1) / Lanes;
    if (all <= std::ssize(tiles) && tiles[all - 1].packets == all)
        return tiles[all - 1].run(sums, 0, rows - Lanes, 0, f);
    for (Index row = 0, height = 0; row < rows; row += height * Lanes) {
        const Index packets = (rows - row + Lanes - 1) / Lanes;
        ColumnTile<Scalar> tile = tiles[std::min(packets, std::ssize(tiles)) - 1];
        constexpr bool many_registers = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32;
        if constexpr (many_registers) {
            if (packets >= 16)
                tile = {&sum_column<Lanes, 16, Scalar>, 16};
            else if (packets >= 12)
                tile = {&sum_column<Lanes, 12, Scalar>, 12};
        }
        height = tile.packets;
        tile.run(sums + row, row, std::min((height - 1) * Lanes, rows - row - Lanes), 0, f);
    }
}

/// A product of one column, with `rows` >= Lanes.
template <int Lanes, class Scalar, class Epilogue>
void run_column(Index rows, const Operands<Scalar>& f, const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    constexpr Index most = 512;
    if (rows > most) {
        const Index half = rows / (2 * Lanes) * Lanes;
        run_column<Lanes>(half, f, epilogue);
        return run_column<Lanes>(rows - half, f.below(half), epilogue);
    }
    alignas(64) Array<Scalar, most> sums;
    sum_rows<Lanes>(sums, rows, f);
    // Copies: what a store of a packet might have changed would be read again for each.
    const Destination<Scalar> out = f.out;
    const Origin origin = f.origin;
    const Epilogue last_step = epilogue;
    for (Index i = 0; i < rows; i += Lanes)
        finish(last_step, P::load(sums + i), std::min(i, rows - Lanes), Index{0}, out, origin);
}

/// A product of one column with a single packet of rows: calls and a stay in memory would cost as
/// much as the sums do.
template <int Lanes, class Scalar, class Epilogue>
void run_one_packet(const Operands<Scalar>& f, const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    P sum = f.start.data ? P::load(f.start.data) : P::broadcast(Scalar(0));
    const Scalar* weights = f.left.data;
    const Scalar* input = f.right.data;
    for (Index k = f.inner; k > 0; --k) {
        sum = multiply_add(P::load(weights), P::broadcast(*input), sum);
        weights += f.left.stride;
        input += f.right.inner_stride;
    }
    finish(epilogue, sum, Index{0}, Index{0}, f.out, f.origin);
}

}  // namespace stochastic_depth::detail
