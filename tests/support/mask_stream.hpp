// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <stochastic_depth/random/philox.hpp>

/// The stream of survival masks, written down a second time.
namespace stochastic_depth::test {

/// The stream of version 1, written down a second time, bit by bit: digit i = 0, 1, ... of the
/// uniform number that decides whether `sample` keeps `layer`.
inline bool digit(std::uint64_t seed, std::uint64_t step, std::uint64_t sample, std::uint32_t layer,
                  std::uint32_t i) {
    const auto low = [](std::uint64_t word) { return static_cast<std::uint32_t>(word); };
    const auto high = [](std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); };
    const auto key = philox4x32_10({low(seed), high(seed), 0, 0}, {1, 1});
    const auto block = philox4x32_10(
        {layer * 1024 + i / 2, low(sample / 64), low(step), high(step)}, {key[0], key[1]});
    const std::uint32_t word = block[2 * (i % 2) + (sample % 64) / 32];
    return (word >> (sample % 32) & 1u) != 0;
}

/// U < p, digit by digit. Doubling a double below 1 and taking 1 away are exact.
inline bool keeps(std::uint64_t seed, std::uint64_t step, std::uint64_t sample, std::uint32_t layer,
                  double p) {
    for (std::uint32_t i = 0; p > 0; ++i) {
        if (p >= 1) return true;
        p *= 2;
        const bool of_p = p >= 1;
        if (of_p) p -= 1;
        const bool of_u = digit(seed, step, sample, layer, i);
        if (of_u != of_p) return of_p;
    }
    return false;
}

}  // namespace stochastic_depth::test
