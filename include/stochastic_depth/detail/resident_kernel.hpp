// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/detail/operands.hpp>
#include <stochastic_depth/detail/packet.hpp>

/// Products so small that the weights, of a size known at compile time, stay in registers.
namespace stochastic_depth::detail {

/// Whether a matrix of this size known at compile time fits into registers, with room to work in.
template <int Lanes, int Rows, int Inner>
inline constexpr bool stays_resident =
    Rows > 0 && Inner > 0 && Rows % Lanes == 0 &&
    Rows / Lanes* Inner <= EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS / 2;

/// A product so small that its weights, [Rows x Inner] known at compile time, stay in registers
/// while all columns from `column` on pass. Rows is a multiple of Lanes.
template <int Lanes, int Rows, int Inner, class Scalar, class Epilogue>
EIGEN_ALWAYS_INLINE void run_resident(Index column, const Operands<Scalar>& f,
                                      const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    // Copies: what a store of a packet might have changed would be read again for each.
    const auto [left, start, right, out, ignored, columns] = f;
    constexpr int packets = Rows / Lanes;
    Array<Array<P, packets>, Inner> weight;
    Array<P, packets> first;
    for (int p = 0; p < packets; ++p) {
        first[p] = start.data ? P::load(start.data + p * Lanes) : P::broadcast(Scalar(0));
        for (int k = 0; k < Inner; ++k)
            weight[k][p] = P::load(left.data + k * left.stride + p * Lanes);
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
inline constexpr bool fits_side_by_side = (Rows == Inner) && (Rows < Lanes) && (Lanes % Rows == 0);

/// The same with several columns side by side in a packet. The columns of each matrix, all of Rows
/// numbers, follow each other without gaps. Returns how many columns are done: as many as there are
/// whole packets.
template <int Lanes, int Rows, class Scalar, class Epilogue>
Index run_side_by_side(Index columns, const Scalar* left, const Scalar* start, const Scalar* right,
                       Scalar* out, const Epilogue& epilogue) {
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

}  // namespace stochastic_depth::detail
