// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <type_traits>

#include <stochastic_depth/kernels/packet.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/types.hpp>

/// Sums over the positions of images, for each channel. Channels lie side by side, so that each has
/// a lane of its own; blocks of positions are summed in Scalar, and what comes of them in double,
/// in the order of blocks and images. So the bits depend neither on the packet nor on who has summed
/// which image.
namespace stochastic_depth::detail {

inline constexpr Index positions_in_block = 256;

/// Two sums over a block of positions, [channels] each: term(packet type, channel, k, first, second)
/// adds to both what comes of entry k of the block and those behind it.
template <int Lanes, class Scalar, class Term>
void sum_block(Index channels, Index positions, const Term& term, Scalar* first, Scalar* second) {
    using P = Packet<Scalar, Lanes>;
    if constexpr (Lanes > 1) {
        if (channels < Lanes)
            return sum_block<P::narrower>(channels, positions, term, first, second);
    }
    // Positions in turn: one sum would wait for its last addition.
    constexpr int ways = 4;
    for (Index c = 0; c < channels; c += Lanes) {
        // The last packet may overlap the one before.
        const Index channel = std::min(c, channels - Lanes);
        Array<P, ways> a, b;
        for (int w = 0; w < ways; ++w) a[w] = b[w] = P::broadcast(Scalar(0));
        Index p = 0;
        const auto add = [&](auto w) {
            term(std::type_identity<P>(), channel, channel + p * channels, a[w], b[w]);
            ++p;
        };
        while (p + ways <= positions) unroll<ways>(add);
        while (p < positions) add(std::integral_constant<int, 0>());
        ((a[0] + a[1]) + (a[2] + a[3])).store(first + channel);
        ((b[0] + b[1]) + (b[2] + b[3])).store(second + channel);
    }
}

/// Calls run(first position, count) for the blocks of an image.
template <class Run>
void for_each_block(Index positions, const Run& run) {
    for (Index p = 0; p < positions; p += positions_in_block)
        run(p, std::min(positions_in_block, positions - p));
}

/// Joins the means and sums of squared deviations of `count` numbers, for each channel, to those of
/// `before` others.
/// \source Chan, Golub & LeVeque 1983, Algorithms for Computing the Sample Variance, Eq. (2.1).
[[gnu::noinline]] inline void join_moments(Index channels, double count, const double* mean,
                                           const double* squares, double before, double* to_mean,
                                           double* to_squares) {
    const double share = count / (before + count), weight = before * share;
    for (Index c = 0; c < channels; ++c) {
        const double difference = mean[c] - to_mean[c];
        to_mean[c] += share * difference;
        to_squares[c] += squares[c] + weight * (difference * difference);
    }
}

/// The same of a block, of which the sums of deviations from its first position, and of their
/// squares, are known.
template <class Scalar>
[[gnu::noinline]] void join_block(Index channels, double count, const Scalar* reference,
                                  const Scalar* sum, const Scalar* sum_of_squares, double before,
                                  double* to_mean, double* to_squares) {
    const double share = count / (before + count), weight = before * share, part = 1 / count;
    for (Index c = 0; c < channels; ++c) {
        const auto s = static_cast<double>(sum[c]);
        const double squares = static_cast<double>(sum_of_squares[c]) - part * (s * s);
        const double difference = static_cast<double>(reference[c]) + part * s - to_mean[c];
        to_mean[c] += share * difference;
        to_squares[c] += (squares < 0 ? 0 : squares) + weight * (difference * difference);
    }
}

/// Mean and sum of squared deviations over the positions of an image, for each channel, in one pass.
/// Deviations are from the first position of each block: of n positions its own square is at most n
/// times what the sum of squares loses.
template <class Scalar>
void image_moments(const Scalar* x, Index channels, Index positions, double* mean,
                   double* squares) {
    const ScratchArray<Scalar> sums(2 * channels);
    Scalar* const sum_of_squares = sums.data() + channels;
    std::fill_n(mean, channels, 0.0);
    std::fill_n(squares, channels, 0.0);
    for_each_block(positions, [&](Index first, Index count) {
        const Scalar* const block = x + first * channels;
        sum_block<widest_lanes<Scalar>>(
            channels, count,
            [&]<class P>(std::type_identity<P>, Index c, Index k, P& sum, P& of_squares) {
                const P deviation = P::load(block + k) - P::load(block + c);
                sum = sum + deviation;
                of_squares = multiply_add(deviation, deviation, of_squares);
            },
            sums.data(), sum_of_squares);
        join_block(channels, static_cast<double>(count), block, sums.data(), sum_of_squares,
                   static_cast<double>(first), mean, squares);
    });
}

/// Sums of dy and of dy (x - center) over the positions of an image, for each channel.
/// \param center  [channels].
template <class Scalar>
void image_slope_sums(const Scalar* x, const Scalar* dy, const Scalar* center, Index channels,
                      Index positions, double* of_slopes, double* of_products) {
    const ScratchArray<Scalar> sums(2 * channels);
    Scalar* const products = sums.data() + channels;
    std::fill_n(of_slopes, channels, 0.0);
    std::fill_n(of_products, channels, 0.0);
    for_each_block(positions, [&](Index first, Index count) {
        sum_block<widest_lanes<Scalar>>(
            channels, count,
            [&, offset = first * channels]<class P>(std::type_identity<P>, Index c, Index k, P& sum,
                                                    P& product) {
                const P slope = P::load(dy + offset + k);
                sum = sum + slope;
                product = multiply_add(slope, P::load(x + offset + k) - P::load(center + c), product);
            },
            sums.data(), products);
        for (Index c = 0; c < channels; ++c) {
            of_slopes[c] += static_cast<double>(sums[c]);
            of_products[c] += static_cast<double>(products[c]);
        }
    });
}

}  // namespace stochastic_depth::detail
