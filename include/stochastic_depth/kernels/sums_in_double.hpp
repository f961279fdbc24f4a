// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>

#include <stochastic_depth/kernels/packet.hpp>

namespace stochastic_depth::detail {

/// `Sums` sums over 0, ..., count - 1 in double, by packets, in the order of sum_of: eight sums side
/// by side, whatever the packet.
/// \param term    term(packet type P, i, sums) adds to P sums[0], ... what comes of i, i + 1, ...
/// \param totals  [Sums].
template <int Sums, class Term>
EIGEN_ALWAYS_INLINE void sums_in_double(Index count, const Term& term, double* totals) {
    constexpr int side_by_side = 8, lanes = widest_lanes<double>, packets = side_by_side / lanes;
    using P = Packet<double, lanes>;
    Array<Array<P, Sums>, packets> sums;
    for (auto& packet : sums)
        for (P& sum : packet) sum = P::broadcast(0);
    Index i = 0;
    for (; i + side_by_side <= count; i += side_by_side)
        unroll<packets>([&](auto p) { term(std::type_identity<P>(), i + p * lanes, sums[p]); });
    alignas(64) Array<Array<double, side_by_side>, Sums> s;
    for (int p = 0; p < packets; ++p)
        for (int k = 0; k < Sums; ++k) sums[p][k].store(s[k] + p * lanes);
    using One = Packet<double, 1>;
    for (; i < count; ++i) {
        Array<One, Sums> first;
        for (int k = 0; k < Sums; ++k) first[k] = One::load(s[k]);
        term(std::type_identity<One>(), i, first);
        for (int k = 0; k < Sums; ++k) first[k].store(s[k]);
    }
    for (int k = 0; k < Sums; ++k)
        totals[k] = ((s[k][0] + s[k][1]) + (s[k][2] + s[k][3])) +
                    ((s[k][4] + s[k][5]) + (s[k][6] + s[k][7]));
}

}  // namespace stochastic_depth::detail
