// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/types.hpp>

/// Functions of a mask as tables of 2^L numbers, where bit l of a place is s_l, and fast transforms
/// of them.
namespace stochastic_depth::detail {

/// The L of a table of 2^L numbers.
[[nodiscard]] inline Index layers_of_table(std::string_view name, Index size) {
    if (!(size > 0 && std::has_single_bit(static_cast<std::uint64_t>(size))))
        refuse(name, ": values must have one row for each of 2^L masks, got ", size);
    return std::countr_zero(static_cast<std::uint64_t>(size));
}

/// What one layer's bit splits: the skipped half becomes the mean over the bit, which is 1 with
/// probability p, the kept half the difference times `scale`. What has no part in one of them may be
/// no number.
inline void split_halves(double p, double scale, double* skipped, Index half) {
    double* const kept = skipped + half;
    const auto split = [&](const auto& mean) {
        for (Index i = 0; i < half; ++i) {
            const double difference = kept[i] - skipped[i];
            skipped[i] = mean(skipped[i], kept[i], difference);
            kept[i] = scale == 0.0 ? 0.0 : scale * difference;
        }
    };
    if (p == 0.0)
        split([](double s, double, double) { return s; });
    else if (p == 1.0)
        split([](double, double k, double) { return k; });
    else
        split([&](double s, double, double difference) { return s + p * difference; });
}

/// Turns the values v(S) into those numbers a(T) for which
///
///     v(S) = sum over T of a(T) prod over l in T of (s_l - p_l) / scale_l:
///
/// with scales of 1 the derivatives of E[v(S)] by the p_l of each set T of layers.
///
/// \source Fast Walsh-Hadamard transform, with a basis of (1, s - p) in place of (1, 2 s - 1).
inline void transform_table(const double* p, const double* scales, double* values, Index layers) {
    // Halves of a large table are finished one after the other, each in the cache.
    constexpr Index in_cache = 12;
    for (; layers > in_cache; --layers) {
        const Index half = Index{1} << (layers - 1);
        split_halves(p[layers - 1], scales[layers - 1], values, half);
        transform_table(p, scales, values + half, layers - 1);
    }
    for (Index l = 0; l < layers; ++l)
        for (Index at = 0; at < Index{1} << layers; at += Index{2} << l)
            split_halves(p[l], scales[l], values + at, Index{1} << l);
}

}  // namespace stochastic_depth::detail
