// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/kernels/matrix_kernel.hpp>
#include <stochastic_depth/kernels/matrix_tile.hpp>
#include <stochastic_depth/kernels/operands.hpp>
#include <stochastic_depth/kernels/packet.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Multiplies column j by factors[j].
template <class Scalar>
struct MultiplyColumns {
    const Scalar* factors;

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index, Index j) const {
        return value * Packet::broadcast(factors[j]);
    }
};

/// A tile of a product whose sums are stored, times a factor for each column, if there are some.
template <int Lanes, int Packets, int Columns, class Scalar>
[[gnu::noinline]] void store_tile(Index row, Index last, Index column, const Operands<Scalar>& f,
                                  const Scalar* factors) {
    using P = Packet<Scalar, Lanes>;
    run_tile<Lanes, Packets, Columns>(row, last, column, f, [&] {
        return [&](const P& sum, int p, int c) {
            Scalar* const to = f.out.data + row + (p + 1 < Packets ? Index{p * Lanes} : last) +
                               (column + c) * f.out.stride;
            if (factors)
                (sum * P::broadcast(factors[column + c])).store(to);
            else
                sum.store(to);
        };
    });
}

/// Columns of the widest tile of so many packets, a power of two; what is left beside it are halves
/// of it.
template <int Packets>
inline constexpr int widest_tile = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32
                                       ? (Packets == 1  ? 16
                                          : Packets < 4 ? 8
                                                        : 4)
                                       : (Packets == 1 ? 8 : 4);

template <int Lanes, int Packets, int Columns, class Scalar>
Index store_tiles(Index row, Index last, Index column, const Operands<Scalar>& f,
                  const Scalar* factors) {
    for (; column + Columns <= f.columns; column += Columns)
        store_tile<Lanes, Packets, Columns>(row, last, column, f, factors);
    if constexpr (Columns > 1)
        return store_tiles<Lanes, Packets, Columns / 2>(row, last, column, f, factors);
    return column;
}

/// The product that `f` describes, of `rows` rows, with a factor for each column (null: none): one of
/// those many small ones that attention is made of. Rows of the widest packet, or of its half, have
/// tiles of their own.
template <class Scalar, int Lanes = widest_lanes<Scalar>>
void small_product(Index rows, const Operands<Scalar>& f, const Scalar* factors = nullptr) {
    if constexpr (Lanes == 1 || !fuses_epilogue<Scalar, Lanes>) {
        if (factors)
            product_onto<Scalar>(rows, f.inner, f.columns, f.left, f.start, f.right, f.out,
                                 MultiplyColumns<Scalar>{factors});
        else
            product_onto<Scalar>(rows, f.inner, f.columns, f.left, f.start, f.right, f.out, AsIs{});
    } else {
        if (rows < Lanes)
            return small_product<Scalar, Packet<Scalar, Lanes>::narrower>(rows, f, factors);
        constexpr int tall = max_packets<Scalar, Lanes>;
        for (Index row = 0; row < rows;) {
            const Index packets = std::min<Index>((rows - row + Lanes - 1) / Lanes, tall);
            const Index last = std::min((packets - 1) * Lanes, rows - row - Lanes);
            unroll<tall>([&](auto p) {
                if (packets == p + 1)
                    store_tiles<Lanes, p + 1, widest_tile<p + 1>>(row, last, 0, f, factors);
            });
            row += packets * Lanes;
        }
    }
}

}  // namespace stochastic_depth::detail
