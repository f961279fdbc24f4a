// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <iterator>
#include <limits>
#include <numbers>
#include <type_traits>
#include <utility>

#include <stochastic_depth/kernels/exponential.hpp>
#include <stochastic_depth/kernels/packet.hpp>
#include <stochastic_depth/types.hpp>

/// Softmaxes of columns of scores, and the way back through them.
namespace stochastic_depth::detail {

/// Partial sums of a softmax: row s belongs to number s mod sum_lanes. Columns are padded to a
/// multiple of it, by scores of -infinity.
inline constexpr Index sum_lanes = 16;

/// x[k] becomes exp(x[k]), for x[k] <= 0, and 0 below the logarithm of the smallest normal number,
/// so that masked scores of -infinity, and those that are as good as that, take no longer than
/// others. At most 1.0 ulp off where the target has a fused multiply-add. NaN of NaN.
///
/// Several packets go step by step together: each alone would mostly wait for its last step.
template <class P, std::size_t n>
EIGEN_ALWAYS_INLINE void softmax_terms(P (&x)[n]) {
    using Scalar = typename P::Scalar;
    using Constants = ExponentialConstants<Scalar>;
    // What stands in the low bits of a sum with the rounder is the biased exponent of the power of
    // two; of the lowest x that is 0, and then the power is 0 too.
    constexpr Scalar bias = Scalar(std::numeric_limits<Scalar>::max_exponent - 1);
    constexpr Scalar rounder = Scalar(1.5) / std::numeric_limits<Scalar>::epsilon() + bias;
    const auto in_step = [](const auto& step) {
        STOCHASTIC_DEPTH_UNROLL for (std::size_t k = 0; k < n; ++k) step(k);
    };
    const P round = P::broadcast(rounder);
    P power[n], count[n], value[n];
    in_step([&](std::size_t k) {
        x[k] = max(x[k], P::broadcast(-bias * std::numbers::ln2_v<Scalar>));
    });
    in_step([&](std::size_t k) {
        power[k] = multiply_add(x[k], P::broadcast(std::numbers::log2e_v<Scalar>), round);
    });
    in_step([&](std::size_t k) { count[k] = power[k] - round; });
    in_step([&](std::size_t k) {
        x[k] = multiply_add(count[k], P::broadcast(-Constants::ln2_high), x[k]);
    });
    in_step([&](std::size_t k) {
        x[k] = multiply_add(count[k], P::broadcast(-Constants::ln2_low), x[k]);
    });
    in_step([&](std::size_t k) { value[k] = P::broadcast(Constants::coefficients[0]); });
    unroll<static_cast<int>(std::size(Constants::coefficients)) - 1>([&](auto i) {
        in_step([&](std::size_t k) {
            value[k] = multiply_add(value[k], x[k], P::broadcast(Constants::coefficients[i + 1]));
        });
    });
    in_step([&](std::size_t k) {
        x[k] = value[k] * power[k].template shift_bits_up<Constants::significand_bits>();
    });
}

// As in packet.hpp.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif

/// Lanes from, from + 1, ... of a packet, half of them.
template <int from, class Scalar, int Lanes>
[[nodiscard]] EIGEN_ALWAYS_INLINE Packet<Scalar, Lanes / 2> half_from(
    Packet<Scalar, Lanes> packet) {
    using Half = Packet<Scalar, Lanes / 2>;
    return [&]<int... lane>(std::integer_sequence<int, lane...>) {
        return Half{static_cast<typename Half::Register>(
            __builtin_shufflevector(packet.value(), packet.value(), (from + lane)...))};
    }
    (std::make_integer_sequence<int, Lanes / 2>{});
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/// Combines sum_lanes numbers, in the packets' lanes, into one: number i with i + 8, and then with
/// i + 4, i + 2, i + 1.
template <class P, std::size_t n, class Combine>
[[nodiscard]] EIGEN_ALWAYS_INLINE typename P::Scalar combine_lanes(P (&packets)[n],
                                                                   const Combine& combine) {
    using Scalar = typename P::Scalar;
    for (std::size_t half = n / 2; half > 0; half /= 2)
        for (std::size_t k = 0; k < half; ++k) packets[k] = combine(packets[k], packets[k + half]);
    if constexpr (P::lanes > 4) {
        Packet<Scalar, P::lanes / 2> halves[] = {
            combine(half_from<0>(packets[0]), half_from<P::lanes / 2>(packets[0]))};
        return combine_lanes(halves, combine);
    } else {
        using One = Packet<Scalar, 1>;
        alignas(64) Array<Scalar, P::lanes> numbers;
        packets[0].store(numbers);
        for (int half = P::lanes / 2; half > 0; half /= 2)
            for (int k = 0; k < half; ++k)
                numbers[k] = combine(One{numbers[k]}, One{numbers[k + half]}).first();
        return numbers[0];
    }
}

/// Columns whose softmaxes are taken together.
inline constexpr int columns_in_step = 4;

/// Calls run(first column, integral_constant of how many) for columns 0, ..., columns - 1.
template <class Run>
EIGEN_ALWAYS_INLINE void in_steps(Index columns, const Run& run) {
    Index c = 0;
    for (; c + columns_in_step <= columns; c += columns_in_step)
        run(c, std::integral_constant<int, columns_in_step>{});
    for (; c < columns; ++c) run(c, std::integral_constant<int, 1>{});
}

/// The largest of each of n columns of scores.
/// \param rows  A multiple of sum_lanes.
template <int Lanes, int n, class Scalar>
EIGEN_ALWAYS_INLINE void find_maxima(Index rows, const Scalar* scores, Index stride,
                                     Scalar* maxima) {
    using P = Packet<Scalar, Lanes>;
    constexpr int packets = static_cast<int>(sum_lanes) / Lanes;
    STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) {
        const Scalar* const column = scores + c * stride;
        Array<P, packets> part;
        STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < packets; ++p) part[p] =
            P::load(column + p * Lanes);
        for (Index i = sum_lanes; i < rows; i += sum_lanes)
            STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < packets; ++p) part[p] =
                max(part[p], P::load(column + i + p * Lanes));
        maxima[c] = combine_lanes(part, [](auto a, auto b) { return max(a, b); });
    }
}

/// The softmaxes of n columns of scores before their divisions: entries become
/// exp(scale (entry - max)), and inverses[c] is 1 / sum of these.
template <int Lanes, int n, class Scalar>
EIGEN_ALWAYS_INLINE void exponentiate(Index rows, Scalar* scores, Index stride, Scalar scale,
                                      const Scalar* maxima, Scalar* inverses) {
    using P = Packet<Scalar, Lanes>;
    constexpr int packets = static_cast<int>(sum_lanes) / Lanes;
    const P factor = P::broadcast(scale);
    Array<P, n> shift;
    STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) shift[c] = P::broadcast(maxima[c]);
    Array<Array<P, packets>, n> sum;
    STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < packets; ++p) {
        STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) sum[c][p] = P::broadcast(Scalar(0));
        for (Index i = p * Lanes; i < rows; i += sum_lanes) {
            Array<P, n> terms;
            STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) terms[c] =
                (P::load(scores + i + c * stride) - shift[c]) * factor;
            softmax_terms(terms);
            STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) {
                terms[c].store(scores + i + c * stride);
                sum[c][p] = sum[c][p] + terms[c];
            }
        }
    }
    STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) inverses[c] =
        Scalar(1) / combine_lanes(sum[c], [](auto a, auto b) { return a + b; });
}

/// On the way back through the softmaxes of n columns of `scale` times scores: the scores become
/// probabilities p, and the slopes by these those by scores, scale p (slope - sum of p slope).
/// \param rows  A multiple of sum_lanes.
template <int Lanes, int n, class Scalar>
EIGEN_ALWAYS_INLINE void differentiate_softmax(Index rows, Scalar scale, const Scalar* maxima,
                                               const Scalar* inverses, Scalar* scores,
                                               Scalar* slopes, Index stride) {
    using P = Packet<Scalar, Lanes>;
    constexpr int packets = static_cast<int>(sum_lanes) / Lanes;
    const P factor = P::broadcast(scale);
    Array<Array<P, packets>, n> sum;
    STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < packets; ++p) {
        STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) sum[c][p] = P::broadcast(Scalar(0));
        for (Index i = p * Lanes; i < rows; i += sum_lanes) {
            Array<P, n> terms;
            STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) terms[c] =
                (P::load(scores + i + c * stride) - P::broadcast(maxima[c])) * factor;
            softmax_terms(terms);
            STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) {
                terms[c] = terms[c] * P::broadcast(inverses[c]);
                terms[c].store(scores + i + c * stride);
                sum[c][p] = multiply_add(terms[c], P::load(slopes + i + c * stride), sum[c][p]);
            }
        }
    }
    STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) {
        const P mean = P::broadcast(combine_lanes(sum[c], [](auto a, auto b) { return a + b; }));
        const Scalar* const from = scores + c * stride;
        Scalar* const to = slopes + c * stride;
        for (Index i = 0; i < rows; i += Lanes)
            (P::load(from + i) * ((P::load(to + i) - mean) * factor)).store(to + i);
    }
}

}  // namespace stochastic_depth::detail
