// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <type_traits>

#include <stochastic_depth/threads/team.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Calls update(segment...) for the same pieces of matrices of one size, as arrays, shared by a
/// team: an update that passes over its operands several times finds them in the nearest cache. A
/// piece is whole packets, so that how they are shared changes no bit.
template <class Update, class First, class... Others>
void update_in_segments(const Team& team, const Update& update, First& first, Others&... others) {
    constexpr Index piece = 2048;
    const auto segment = [](auto& matrix, Index begin, Index count) {
        using Matrix = std::remove_reference_t<decltype(matrix)>;
        using Scalar = typename Matrix::Scalar;
        using Array = Eigen::Array<Scalar, Eigen::Dynamic, 1>;
        using Segment = std::conditional_t<std::is_const_v<Matrix>, const Array, Array>;
        return Eigen::Map<Segment>(matrix.data() + begin, count);
    };
    constexpr double work_of_updating = 8;
    team.split(first.size(), piece, work_of_updating, [&](Index begin, Index count) {
        for (const Index end = begin + count; begin < end; begin += piece) {
            const Index here = std::min(piece, end - begin);
            update(segment(first, begin, here), segment(others, begin, here)...);
        }
    });
}

}  // namespace stochastic_depth::detail
