// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

/// Numbers in files: little-endian bytes, wherever they lie, whatever the machine's own order.
namespace stochastic_depth::detail {

/// Unsigned numbers of some size.
template <std::size_t bytes>
using UnsignedOf = std::conditional_t<
    bytes == 1, std::uint8_t,
    std::conditional_t<bytes == 2, std::uint16_t,
                       std::conditional_t<bytes == 4, std::uint32_t, std::uint64_t>>>;

/// A number from its bytes, in some order.
template <class Number>
[[nodiscard]] Number load_number(const std::uint8_t* from, std::endian order) {
    using Bits = UnsignedOf<sizeof(Number)>;
    Bits bits = 0;
    if (order == std::endian::native)
        std::memcpy(&bits, from, sizeof bits);
    else if (order == std::endian::little)
        for (std::size_t i = sizeof bits; i-- > 0;) bits = static_cast<Bits>(bits << 8 | from[i]);
    else
        for (std::size_t i = 0; i < sizeof bits; ++i) bits = static_cast<Bits>(bits << 8 | from[i]);
    return std::bit_cast<Number>(bits);
}
template <class Number>
[[nodiscard]] Number load_little(const std::uint8_t* from) {
    return load_number<Number>(from, std::endian::little);
}
template <class Number>
void store_little(std::uint8_t* to, Number number) {
    using Bits = UnsignedOf<sizeof(Number)>;
    const auto bits = std::bit_cast<Bits>(number);
    if constexpr (std::endian::native == std::endian::little)
        std::memcpy(to, &bits, sizeof bits);
    else
        for (std::size_t i = 0; i < sizeof bits; ++i)
            to[i] = static_cast<std::uint8_t>(bits >> (8 * i));
}

}  // namespace stochastic_depth::detail
