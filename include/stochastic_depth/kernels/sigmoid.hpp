// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/kernels/exponential.hpp>

namespace stochastic_depth::detail {

/// 1 / (1 + exp(-v)) = numerator / denominator for a packet v, from exp(-|v|), which is at most 1:
/// nothing overflows, and no digits are lost on either side.
template <class P>
struct Sigmoid {
    P exponential, numerator, denominator;

    EIGEN_ALWAYS_INLINE explicit Sigmoid(P v)
        : exponential(detail::exponential(P::broadcast(0) - v.abs())),
          numerator(one_or(exponential, v.is_positive())),
          denominator(P::broadcast(1) + exponential) {}

    /// The derivative of z / (1 + exp(-v)) by z, given z times that of v.
    [[nodiscard]] EIGEN_ALWAYS_INLINE P slope_of_product(P product) const {
        return (numerator + product * exponential / denominator) / denominator;
    }

private:
    static EIGEN_ALWAYS_INLINE P one_or(P exponential, P above) {
        return multiply_add(P::broadcast(1) - above, exponential, above);
    }
};

/// The number, or the nearest one whose exponential is neither 0 nor infinite: with what is further
/// out, 0 times infinity would come up.
template <class P>
[[nodiscard]] EIGEN_ALWAYS_INLINE P within_range_of_exponential(P z) {
    const P lowest = P::broadcast(ExponentialConstants<typename P::Scalar>::lowest);
    return min(max(z, lowest), P::broadcast(0) - lowest);
}

}  // namespace stochastic_depth::detail
