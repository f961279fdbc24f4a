// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string_view>
#include <type_traits>

#include <stochastic_depth/kernels/exponential.hpp>
#include <stochastic_depth/layers/elementwise/elementwise.hpp>

namespace stochastic_depth {
namespace detail {

/// Phi(-a) = density ratio for a = |z|, of a packet of floats, with density = exp(-a^2 / 2).
template <class P>
struct NormalTail {
    P a, density, ratio;

    /// Phi(-a) exp(a^2 / 2) is r times a polynomial of q, with r = 1 / (a + 2.5) and q = 1 - 5 r,
    /// which is -1 at a = 0 and 1 at infinity. It is the same formula for every a, and so there is
    /// nothing to choose between lanes.
    EIGEN_ALWAYS_INLINE explicit NormalTail(P z)
        // The density is 0 from here on, and infinity times 0 is not.
        : a(min(z.abs(), P::broadcast(14.5F))) {
        const P minus_half = P::broadcast(-0.5F);
        const P square = a * a;
        density = exponential_in_range(minus_half * square, minus_half * square_error(a, square));
        const P r = P::broadcast(1) / (a + P::broadcast(2.5F));
        ratio = r * polynomial(coefficients, multiply_add(r, P::broadcast(-5), P::broadcast(1)));
    }

    /// Relative error 1.5e-8.
    static constexpr float coefficients[] = {
        -0x1.4a0286p-13F, -0x1.46235ap-12F, 0x1.66ccf2p-11F, 0x1.4ac066p-9F,  -0x1.a3acbcp-10F,
        -0x1.0c781ap-6F,  0x1.2ea466p-7F,   0x1.0e4f2ep-3F,  -0x1.bc19c2p-2F, 0x1.69cee6p-1F};

private:
    /// a^2 - square, which the exponential would magnify.
    static EIGEN_ALWAYS_INLINE P square_error(P a, P square) {
        if constexpr (has_fused_multiply_add) {
            return multiply_add(a, a, P::broadcast(0) - square);
        } else {
            // The square of the leading half of the bits is exact.
            const P leading = a.template shift_bits_down<12>().template shift_bits_up<12>();
            return (leading * leading - square) + (a - leading) * (a + leading);
        }
    }
};

template <class Scalar_>
struct GELUFunction {
    using Scalar = Scalar_;
    static constexpr std::string_view name = "GELU";

    [[nodiscard]] Scalar value(Scalar z) const {
        if constexpr (by_packets)
            return packet(Packet<Scalar, 1>::broadcast(z)).first();
        else
            return std::max(z, -far) * normal_distribution(z);
    }

    /// max(z, 0) - |z| Phi(-|z|), which loses no digits on either side.
    template <class Packet>
        requires std::is_same_v<typename Packet::Scalar, float>
    [[nodiscard]] EIGEN_ALWAYS_INLINE Packet packet(Packet numbers) const {
        return numbers.on_each_packet([]<class P>(P z) {
            const NormalTail<P> tail(z);
            const P zero = P::broadcast(0);
            return multiply_add(tail.a * tail.ratio, zero - tail.density, max(z, zero));
        });
    }

    [[nodiscard]] Scalar derivative(Scalar z) const {
        if constexpr (by_packets)
            return packet_derivative(Packet<Scalar, 1>::broadcast(z)).first();
        else
            return derivative_by_erfc(z);
    }

    /// Phi(z) + z density(z): below 0 the density times a difference, above 0 the rest of it to 1.
    template <class Packet>
        requires std::is_same_v<typename Packet::Scalar, float>
    [[nodiscard]] EIGEN_ALWAYS_INLINE Packet packet_derivative(Packet numbers) const {
        return numbers.on_each_packet([]<class P>(P z) {
            const NormalTail<P> tail(z);
            const P slope =
                tail.density * multiply_add(tail.a, P::broadcast(-density_at_0), tail.ratio);
            const P above = z.is_positive();
            return multiply_add(slope, multiply_add(above, P::broadcast(-2), P::broadcast(1)),
                                above);
        });
    }

private:
    static constexpr bool by_packets = std::is_same_v<Scalar, float>;
    static constexpr Scalar density_at_0 =
        std::numbers::inv_sqrtpi_v<Scalar> / std::numbers::sqrt2_v<Scalar>;

    /// Of double: Phi(-far) is 0, which infinity times 0 is not.
    static constexpr Scalar far = 40;

    /// Phi(z), by erfc so that it keeps its relative precision for large negative z.
    [[nodiscard]] static Scalar normal_distribution(Scalar z) {
        return std::erfc(-z / std::numbers::sqrt2_v<Scalar>) / Scalar(2);
    }
    /// Not inlined: how a compiler contracts the sum would depend on the place.
    [[nodiscard, gnu::noinline]] static Scalar derivative_by_erfc(Scalar z) {
        const Scalar bounded = std::min(std::max(z, -far), far);
        return normal_distribution(z) +
               bounded * (density_at_0 * std::exp(-bounded * bounded / Scalar(2)));
    }
};

}  // namespace detail

/// z Phi(z), with the normal distribution function Phi itself, not its tanh approximation.
///
/// Of floats at most 6 ulp off, of doubles 2 ulp above 0 and 2 (1 + z^2) below. Of the derivative,
/// the error is at most 4 roundings of 1, and of floats below -2 at most 6 ulp.
/// \source Hendrycks & Gimpel 2016, Gaussian Error Linear Units, Section 2.
template <class Scalar>
using GELU = Elementwise<detail::GELUFunction<Scalar>>;

}  // namespace stochastic_depth
