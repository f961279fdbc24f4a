// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <concepts>

#include <stochastic_depth/random/uniform.hpp>

namespace stochastic_depth {
namespace detail {

/// log(x) for 0 < x < infinity, to within two units in the last place. It is made of operations
/// that IEEE 754 rounds in one way alone, which std::log need not be: the same bits with every
/// compiler and mathematical library.
[[nodiscard]] inline double portable_log(double x) {
    // x = 2^exponent m with m in [sqrt(1/2), sqrt(2)); log m = 2 artanh(t), |t| < 0.172.
    int exponent = 0;
    double m = std::frexp(x, &exponent);
    if (m < 0x1.6a09e667f3bcdp-1) {
        m *= 2;
        --exponent;
    }
    const double t = (m - 1) / (m + 1);
    const double square = t * t;
    // artanh(t) = t (1 + t^2 / 3 + t^4 / 5 + ...); the next term is below 2^-64 of the first.
    double series = 1.0 / 23;
    for (int odd = 21; odd >= 3; odd -= 2) series = std::fma(series, square, 1.0 / odd);
    const double log_m = 2 * std::fma(t * square, series, t);
    // log 2 in two parts; the product of the first, of 33 bits, with an exponent is exact.
    const double high = exponent * 0x1.62e42feep-1;
    return high + std::fma(static_cast<double>(exponent), 0x1.a39ef35793c76p-33, log_m);
}

}  // namespace detail

/// A number of the standard normal distribution, mean 0 and variance 1.
///
/// By the polar method: (u, v) uniform on the unit disc, s = u^2 + v^2, u sqrt(-2 log(s) / s). Each
/// pair costs four random words of 32 bits or two of 64, and pi / 4 of the pairs lie in the disc.
/// std::normal_distribution gives other numbers with each standard library; this gives the same
/// everywhere, a float being the double rounded.
///
/// \source Marsaglia & Bray 1964, A Convenient Method for Generating Normal Variables.
template <std::floating_point Scalar, RandomBitGenerator Generator>
    requires(std::same_as<Scalar, float> || std::same_as<Scalar, double>)
[[nodiscard]] Scalar normal(Generator& random) {
    while (true) {
        // Exact: multiples of 2^-52.
        const double u = 2 * uniform<double>(random) - 1;
        const double v = 2 * uniform<double>(random) - 1;
        const double s = std::fma(u, u, v * v);
        if (s < 1 && s > 0)
            return static_cast<Scalar>(u * std::sqrt(-2 * detail::portable_log(s) / s));
    }
}

}  // namespace stochastic_depth
