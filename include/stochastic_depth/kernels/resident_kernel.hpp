// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>
#include <utility>

#include <stochastic_depth/kernels/operands.hpp>
#include <stochastic_depth/kernels/packet.hpp>
#include <stochastic_depth/kernels/packet_pair.hpp>

/// Products so small that the weights, of a size known at compile time, stay in registers.
namespace stochastic_depth::detail {

/// Registers of the target.
inline constexpr int registers = static_cast<int>(EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS);

/// Whether a matrix of this size known at compile time fits into registers, with room to work in.
template <int Lanes, int Rows, int Inner>
inline constexpr bool stays_resident =
    Rows > 0 && Inner > 0 && Rows % Lanes == 0 && Rows / Lanes* Inner <= registers / 2;

/// A product so small that its weights, [Rows x Inner] known at compile time, stay in registers
/// while all columns from `column` on pass. Rows is a multiple of Lanes.
template <int Lanes, int Rows, int Inner, class Scalar, class Epilogue>
EIGEN_ALWAYS_INLINE void run_resident(Index column, const Operands<Scalar>& f,
                                      const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    // Copies: what a store of a packet might have changed would be read again for each.
    const auto [left, start, out, right, inner, origin, segments, columns] = f;
    constexpr int packets = Rows / Lanes;
    Array<Array<P, packets>, Inner> weight;
    Array<P, packets> first;
    STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < packets; ++p) {
        first[p] = start.data ? P::load(start.data + p * Lanes) : P::broadcast(Scalar(0));
        STOCHASTIC_DEPTH_UNROLL for (int k = 0; k < Inner; ++k)
            weight[k][p] = P::load(left.data + k * left.stride + p * Lanes);
    }
    for (Index j = column; j < columns; ++j) {
        const Scalar* input = right.data + j * right.column_stride;
        Array<P, packets> sum;
        STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < packets; ++p) sum[p] = first[p];
        STOCHASTIC_DEPTH_UNROLL for (int k = 0; k < Inner; ++k) {
            const P entry = P::broadcast(input[k * right.inner_stride]);
            STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < packets; ++p)
                sum[p] = multiply_add(weight[k][p], entry, sum[p]);
        }
        STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < packets; ++p)
            finish(epilogue, sum[p], Index{p * Lanes}, j, out, origin);
    }
}

/// Whether several columns of a square matrix of this size fit side by side into a packet.
template <int Lanes, int Rows, int Inner>
inline constexpr bool fits_side_by_side = (Rows == Inner) && (Rows < Lanes) && (Lanes % Rows == 0);

/// Rows of a column that are broadcast from one register. Eight floats cross a border of 128 bits,
/// and go by halves; so would four doubles, but a half of two is not worth its shuffle.
template <int Rows, class Scalar>
inline constexpr int rows_of_part = Rows == 8 && std::is_same_v<Scalar, float> ? 4 : Rows;

/// The sums of columns side by side, from `sums` on.
template <int Rows, class Packets, class P, int... k>
EIGEN_ALWAYS_INLINE Packets sum_side_by_side(const Array<P, Rows>& weight, Packets inputs,
                                             Packets sums, std::integer_sequence<int, k...>) {
    constexpr int part = rows_of_part<Rows, typename P::Scalar>;
    const Array<Packets, 2> parts{inputs.template repeat_part<Rows, part, 0>(),
                                  inputs.template repeat_part<Rows, part, Rows / part - 1>()};
    ((sums = multiply_add(Packets::filled_with(weight[k]),
                          parts[k / part].template broadcast_in_groups<part, k % part>(), sums)),
     ...);
    return sums;
}

/// Columns from `column` on, as many as fill Packets, one packet or more, and then the next ones.
/// Returns the first column that is left.
template <class Packets, int Rows, class P, class Scalar, class Epilogue>
EIGEN_ALWAYS_INLINE Index run_packets(Index column, Index columns, const Array<P, Rows>& weight,
                                      const P& first, const Scalar* right, Scalar* out,
                                      const Epilogue& epilogue, const Origin& origin) {
    constexpr int beside = Packets::size / Rows;
    for (; column + beside <= columns; column += beside) {
        const Packets sums = sum_side_by_side<Rows>(weight, Packets::load(right + column * Rows),
                                                    Packets::filled_with(first),
                                                    std::make_integer_sequence<int, Rows>{});
        const auto result = epilogue(sums, origin.row, origin.column + column);
        if constexpr (!stores_elsewhere<Epilogue>) result.store(out + column * Rows);
    }
    return column;
}

/// The same with several columns side by side in a packet, and several such packets at a time. The
/// columns of each matrix, all of Rows numbers, follow each other without gaps. Returns how many
/// columns are done: as many as there are whole packets.
template <int Lanes, int Rows, class Scalar, class Epilogue>
Index run_side_by_side(Index columns, const Scalar* left, const Scalar* start, const Scalar* right,
                       Scalar* out, const Epilogue& epilogue, const Origin& origin) {
    using P = Packet<Scalar, Lanes>;
    using Packets = std::conditional_t<registers >= 32, PacketPair<PacketPair<P>>, PacketPair<P>>;
    Array<P, Rows> weight;
    STOCHASTIC_DEPTH_UNROLL for (int k = 0; k < Rows; ++k)
        weight[k] = P::template repeat<Rows>(left + k * Rows);
    const P first = start ? P::template repeat<Rows>(start) : P::broadcast(Scalar(0));
    const Epilogue last_step = epilogue;
    const Index column =
        run_packets<Packets, Rows>(0, columns, weight, first, right, out, last_step, origin);
    return run_packets<P, Rows>(column, columns, weight, first, right, out, last_step,
                                   origin);
}

}  // namespace stochastic_depth::detail
