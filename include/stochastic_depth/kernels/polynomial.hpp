// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

#include <stochastic_depth/kernels/packet.hpp>

namespace stochastic_depth::detail {

/// coefficients[0] x^(n - 1) + ... + coefficients[n - 1], by Horner's rule in multiply-adds.
template <class P, std::size_t n>
[[nodiscard]] EIGEN_ALWAYS_INLINE P polynomial(const typename P::Scalar (&coefficients)[n], P x) {
    P value = P::broadcast(coefficients[0]);
    unroll<static_cast<int>(n) - 1>(
        [&](auto k) { value = multiply_add(value, x, P::broadcast(coefficients[k + 1])); });
    return value;
}

}  // namespace stochastic_depth::detail
