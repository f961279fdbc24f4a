// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::test {

/// A whole number in [low, high].
[[nodiscard]] inline Index whole(Philox& random, Index low, Index high) {
    return low + static_cast<Index>(random() % static_cast<std::uint32_t>(high - low + 1));
}

}  // namespace stochastic_depth::test
