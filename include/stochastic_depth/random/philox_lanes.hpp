// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__GNUC__) && defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace stochastic_depth::detail {

/// Several 64-bit words that one instruction works on, or a single one where the compiler has no
/// vectors. Bits of results never depend on the number.
#if defined(__GNUC__)
#if defined(__AVX512F__)
inline constexpr std::size_t lane_count = 8;
#elif defined(__AVX2__)
inline constexpr std::size_t lane_count = 4;
#else
inline constexpr std::size_t lane_count = 2;
#endif
typedef std::uint64_t Lanes __attribute__((vector_size(8 * lane_count)));
#else
inline constexpr std::size_t lane_count = 1;
using Lanes = std::uint64_t;
#endif

/// Products of the low 32 bits of each lane.
[[nodiscard]] inline Lanes multiply_low_halves(Lanes a, Lanes b) {
    // g++ turns the portable form below into full 64-bit products, several times slower.
#if defined(__GNUC__) && defined(__AVX512F__)
    // The masked form, all lanes on: g++ 12 warns inside its own header about the plain one.
    return reinterpret_cast<Lanes>(
        _mm512_maskz_mul_epu32(0xFF, reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__GNUC__) && defined(__AVX2__)
    return reinterpret_cast<Lanes>(
        _mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif defined(__GNUC__) && defined(__SSE2__)
    return reinterpret_cast<Lanes>(
        _mm_mul_epu32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#else
    return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

/// One 32-bit word for each lane, in its low half; the high half is arbitrary.
struct LaneBlock {
    Lanes w0, w1, w2, w3;
};

/// The round keys of one Philox key, computed once.
struct PhiloxSchedule {
    std::array<std::uint64_t, 10> k0{}, k1{};

    constexpr explicit PhiloxSchedule(std::array<std::uint32_t, 2> key) {
        for (std::size_t round = 0; round < 10; ++round) {
            k0[round] = key[0];
            k1[round] = key[1];
            key[0] += 0x9E3779B9;
            key[1] += 0xBB67AE85;
        }
    }
};

/// philox4x32_10 in every lane: one key, a counter for each lane.
[[nodiscard]] inline LaneBlock philox_lanes(LaneBlock counter, const PhiloxSchedule& key) {
    const Lanes m0 = Lanes{} + std::uint64_t{0xD2511F53};
    const Lanes m1 = Lanes{} + std::uint64_t{0xCD9E8D57};
#if defined(__GNUC__)
#pragma GCC unroll 10
#endif
    for (std::size_t round = 0; round < 10; ++round) {
        const Lanes a = multiply_low_halves(counter.w0, m0);
        const Lanes b = multiply_low_halves(counter.w2, m1);
        counter = {(b >> 32) ^ counter.w1 ^ key.k0[round], b,
                   (a >> 32) ^ counter.w3 ^ key.k1[round], a};
    }
    return counter;
}

}  // namespace stochastic_depth::detail
