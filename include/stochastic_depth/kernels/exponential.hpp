// SPDX-License-Identifier: MIT
#pragma once

#include <numbers>

#include <stochastic_depth/kernels/packet.hpp>
#include <stochastic_depth/kernels/polynomial.hpp>

/// The exponential function of packets. Eigen's has another algorithm for 16 lanes than for 8; this
/// one has the same bits in every lane of every packet.
namespace stochastic_depth::detail {

/// What the exponential of a Scalar is computed with.
template <class Scalar>
struct ExponentialConstants;

template <>
struct ExponentialConstants<float> {
    static constexpr int significand_bits = 23;
    /// 1.5 2^23: what is added to it is rounded to a whole number, which then stands in the low bits
    /// of the sum; and twice the exponent's bias, for the powers of 2.
    static constexpr float rounder = 0x1.8p23F + 254;
    /// ln 2 in two parts: a whole number that occurs here times the first is exact.
    static constexpr float ln2_high = 0x1.63p-1F;
    static constexpr float ln2_low = -0x1.bd0106p-13F;
    /// Below, the result is 0; above, infinity.
    static constexpr float lowest = -104;
    static constexpr float highest = 89;
    /// Of exp(r) for |r| <= ln 2 / 2, the highest power first: relative error 3.1e-9.
    static constexpr float coefficients[] = {
        0x1.6a23dp-10F, 0x1.123a2p-7F, 0x1.5558f2p-5F, 0x1.555492p-3F, 0x1.fffffcp-2F, 1, 1};
};

template <>
struct ExponentialConstants<double> {
    static constexpr int significand_bits = 52;
    static constexpr double rounder = 0x1.8p52 + 2046;
    static constexpr double ln2_high = 0x1.62e42fefa3p-1;
    static constexpr double ln2_low = 0x1.3de6af278ece6p-42;
    static constexpr double lowest = -746;
    static constexpr double highest = 710;
    /// Relative error 3.7e-18.
    static constexpr double coefficients[] = {0x1.ad7f3ee016f5p-26,
                                              0x1.28ad9b8551719p-22,
                                              0x1.71df25b3100a1p-19,
                                              0x1.a01999e2633fdp-16,
                                              0x1.a01a012a0f351p-13,
                                              0x1.6c16c18438b08p-10,
                                              0x1.1111111127d0ep-7,
                                              0x1.555555555083ep-5,
                                              0x1.55555555554f9p-3,
                                              0x1.000000000000ap-1,
                                              1,
                                              1};
};

/// exp(high + low), for a high from ExponentialConstants::lowest to ::highest, or NaN, and a low of
/// at most a few of its roundings.
///
/// exp(n ln 2 + r) = 2^n exp(r): n is rounded from high / ln 2 by adding a large number; exp(r) is a
/// polynomial; 2^n is two powers of 2, since neither 2^n nor its product with exp(r) need be a
/// normal number: so results underflow gradually.
template <class Scalar, int Lanes>
[[nodiscard]] EIGEN_ALWAYS_INLINE Packet<Scalar, Lanes> exponential_in_range(
    Packet<Scalar, Lanes> high, Packet<Scalar, Lanes> low) {
    using P = Packet<Scalar, Lanes>;
    using Constants = ExponentialConstants<Scalar>;
    const P rounder = P::broadcast(Constants::rounder);
    const P rounded = multiply_add(high, P::broadcast(std::numbers::log2e_v<Scalar>), rounder);
    const P n = rounded - rounder;
    P r = multiply_add(n, P::broadcast(-Constants::ln2_high), high);
    r = multiply_add(n, P::broadcast(-Constants::ln2_low), r) + low;

    const P exponential = polynomial(Constants::coefficients, r);

    // In the low bits of `rounded` stands n + 2 bias: half of it, rounded down and up, are the biased
    // exponents of the two powers.
    const P half = rounded.template shift_bits_down<1>();
    const P other = rounded.subtract_bits(half);
    return exponential * half.template shift_bits_up<Constants::significand_bits>() *
           other.template shift_bits_up<Constants::significand_bits>();
}

/// exp(x) of each lane, at most 1.0 ulp off where the target has a fused multiply-add, 1.3 elsewhere.
/// NaN of NaN, infinity of infinity, 0 of minus infinity; underflows gradually.
template <class Scalar, int Lanes>
[[nodiscard]] EIGEN_ALWAYS_INLINE Packet<Scalar, Lanes> exponential(Packet<Scalar, Lanes> x) {
    using P = Packet<Scalar, Lanes>;
    using Constants = ExponentialConstants<Scalar>;
    return exponential_in_range(
        min(max(x, P::broadcast(Constants::lowest)), P::broadcast(Constants::highest)),
        P::broadcast(Scalar(0)));
}

}  // namespace stochastic_depth::detail
