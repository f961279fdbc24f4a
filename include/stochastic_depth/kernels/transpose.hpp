// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/kernels/packet.hpp>

namespace stochastic_depth::detail {

// As in packet.hpp.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif

/// to = from^T, [columns x rows], for a `from` [rows x columns] with columns `stride` apart: square
/// blocks of packets, each transposed in registers.
template <class Scalar>
void transpose(Index rows, Index columns, const Scalar* from, Index stride, Scalar* to,
               Index to_stride) {
    constexpr int lanes = widest_lanes<Scalar>;
    using Register = typename Packet<Scalar, lanes>::Register;
    // A block's columns lie far apart, and each would wait for memory: blocks to come are fetched.
    constexpr Index ahead = 8 * lanes;
    Index j = 0;
    for (; lanes > 1 && j + lanes <= columns; j += lanes) {
        Index i = 0;
        if constexpr (lanes > 1)
            for (; i + lanes <= rows; i += lanes) {
                const bool in_these = i + ahead < rows;
                const Scalar* const next =
                    from +
                    (in_these ? i + ahead + j * stride : i + ahead - rows + (j + lanes) * stride);
                for (int k = 0; k < lanes; ++k) __builtin_prefetch(next + k * stride);
                Eigen::internal::PacketBlock<Register, lanes> block;
                for (int k = 0; k < lanes; ++k)
                    block.packet[k] =
                        Eigen::internal::ploadu<Register>(from + i + (j + k) * stride);
                Eigen::internal::ptranspose(block);
                for (int k = 0; k < lanes; ++k)
                    Eigen::internal::pstoreu(to + j + (i + k) * to_stride, block.packet[k]);
            }
        for (; i < rows; ++i)
            for (Index k = j; k < j + lanes; ++k) to[k + i * to_stride] = from[i + k * stride];
    }
    for (; j < columns; ++j)
        for (Index i = 0; i < rows; ++i) to[j + i * to_stride] = from[i + j * stride];
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

}  // namespace stochastic_depth::detail
