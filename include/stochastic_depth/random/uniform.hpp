// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <type_traits>

#include <stochastic_depth/detail/check.hpp>

namespace stochastic_depth {

/// A source of 32 or 64 random bits a call.
///
/// Models: Philox, std::mt19937, std::mt19937_64. Taken by the constructors of
/// layers with random weights and by `uniform`.
template <class Generator>
concept RandomBitGenerator = std::invocable<Generator&> &&
                             std::unsigned_integral<std::invoke_result_t<Generator&>> &&
                             (Generator::min() == 0) &&
                             (Generator::max() == UINT32_MAX || Generator::max() == UINT64_MAX);

namespace detail {

template <RandomBitGenerator Generator>
[[nodiscard]] constexpr std::uint32_t random_bits_32(Generator& random) {
    if constexpr (Generator::max() == UINT32_MAX)
        return static_cast<std::uint32_t>(random());
    else
        return static_cast<std::uint32_t>(random() >> 32);
}

template <RandomBitGenerator Generator>
[[nodiscard]] constexpr std::uint64_t random_bits_64(Generator& random) {
    if constexpr (Generator::max() == UINT32_MAX) {
        const std::uint64_t high = random();
        return high << 32 | random();
    } else {
        return random();
    }
}

}  // namespace detail

/// A multiple of 2^-24 (float) or 2^-53 (double), uniform on [0, 1): the leading bits of 32 (float)
/// or 64 (double) random bits, of two calls high half first if the generator gives 32.
///
/// The standard fixes engines, not distributions. This gives the same numbers everywhere.
template <std::floating_point Scalar, RandomBitGenerator Generator>
    requires(std::same_as<Scalar, float> || std::same_as<Scalar, double>)
[[nodiscard]] constexpr Scalar uniform(Generator& random) {
    if constexpr (std::same_as<Scalar, float>)
        return static_cast<float>(detail::random_bits_32(random) >> 8) * 0x1p-24f;
    else
        return static_cast<double>(detail::random_bits_64(random) >> 11) * 0x1p-53;
}

/// low + (high - low) u, with u of `uniform<Scalar>(random)`, rounded to [low, high).
///
/// \param low, high  Finite, low < high, and high - low finite.
/// \throws std::invalid_argument  otherwise; nothing is drawn then.
template <std::floating_point Scalar, RandomBitGenerator Generator>
    requires(std::same_as<Scalar, float> || std::same_as<Scalar, double>)
[[nodiscard]] Scalar uniform(Generator& random, std::type_identity_t<Scalar> low,
                             std::type_identity_t<Scalar> high) {
    if (!(low < high && std::isfinite(high - low)))
        detail::refuse("uniform: range must be finite and not empty, got [", low, ", ", high, ")");
    // An explicit fma: whether the compiler would contract the expression must not change the bits.
    const Scalar value = std::fma(high - low, uniform<Scalar>(random), low);
    return value < high ? value : std::nextafter(high, low);
}

}  // namespace stochastic_depth
