// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The numbers 0, ..., size - 1 in random order: a pure function of a stream's key and the number
/// of the order in it.
/// \source Fisher & Yates 1938.
[[nodiscard]] inline std::vector<Index> random_order(Index size, std::array<std::uint32_t, 2> key,
                                                     std::uint64_t number) {
    std::vector<Index> order(static_cast<std::size_t>(size));
    std::iota(order.begin(), order.end(), Index{0});
    for (std::size_t i = order.size(); i-- > 1;) {
        const auto bits = philox4x32_10(
            {static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32),
             static_cast<std::uint32_t>(number), static_cast<std::uint32_t>(number >> 32)},
            key);
        const double share = (bits[0] + bits[1] * 0x1p-32) * 0x1p-32;
        const auto other = static_cast<std::size_t>(share * static_cast<double>(i + 1));
        std::swap(order[i], order[std::min(other, i)]);
    }
    return order;
}

}  // namespace stochastic_depth::detail
