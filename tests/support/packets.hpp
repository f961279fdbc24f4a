// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>

#include <stochastic_depth/kernels/packet.hpp>

namespace stochastic_depth::test {

/// Calls function(std::integral_constant<int, lanes>) for each width of packet, the widest first.
template <class Scalar, int Lanes = detail::widest_lanes<Scalar>, class Function>
void for_each_width(const Function& function) {
    function(std::integral_constant<int, Lanes>{});
    if constexpr (Lanes > 1)
        for_each_width<Scalar, detail::Packet<Scalar, Lanes>::narrower>(function);
}

}  // namespace stochastic_depth::test
