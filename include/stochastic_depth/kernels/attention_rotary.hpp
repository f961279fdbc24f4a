// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>

#include <stochastic_depth/kernels/packet.hpp>
#include <stochastic_depth/memory/scratch.hpp>

namespace stochastic_depth::detail {

/// cos and sin of the angles by which rotary positions turn pairs of a head's features: at position
/// t, pair i by t base^(-2 i / width).
template <class Scalar>
class RotaryAngles {
public:
    static constexpr double base = 10000;

    /// \param width         Of a head, even.
    /// \param first, count  The positions.
    RotaryAngles(Index width, Index first, Index count)
        : half_(width / 2), first_(first), numbers_(2 * half_ * count) {
        for (Index i = 0; i < half_ && count > 0; ++i)
            write(std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(width)), first,
                  first + count, numbers_.data() + i, half_);
    }

    /// Turns the features of `heads` heads that follow each other, at position t. Pair i of a head
    /// is feature i and feature i + width / 2.
    void turn(Index t, Index heads, Scalar* features) const {
        turn_heads<widest_lanes<Scalar>, false>(0, t, heads, features);
    }
    /// Turns back.
    void turn_back(Index t, Index heads, Scalar* features) const {
        turn_heads<widest_lanes<Scalar>, true>(0, t, heads, features);
    }

private:
    /// Of one pair. Within a block of positions each is turned on from the one before: that is much
    /// faster, and a few roundings off. Not inlined: how a compiler contracts products and sums
    /// would depend on the place.
    [[gnu::noinline]] static void write(double speed, Index first, Index end, Scalar* to,
                                        Index half) {
        constexpr Index block = 64;
        const double cosine = std::cos(speed), sine = std::sin(speed);
        for (Index t = first / block * block; t < end;) {
            const double angle = static_cast<double>(t) * speed;
            double x = std::cos(angle), y = std::sin(angle);
            for (const Index next = std::min(t + block, end); t < next; ++t) {
                if (t >= first) {
                    to[2 * half * (t - first)] = static_cast<Scalar>(x);
                    to[2 * half * (t - first) + half] = static_cast<Scalar>(y);
                }
                const double turned = x * cosine - y * sine;
                y = y * cosine + x * sine;
                x = turned;
            }
        }
    }

    template <int Lanes, bool back>
    void turn_heads(Index i, Index t, Index heads, Scalar* features) const {
        using P = Packet<Scalar, Lanes>;
        const Scalar* const angles = numbers_.data() + 2 * half_ * (t - first_);
        for (; i + Lanes <= half_; i += Lanes) {
            const P cosine = P::load(angles + i), sine = P::load(angles + half_ + i);
            for (Index h = 0; h < heads; ++h) {
                Scalar* const pair = features + 2 * half_ * h + i;
                const P a = P::load(pair), b = P::load(pair + half_);
                const P of_b = b * sine, of_a = a * sine, zero = P::broadcast(Scalar(0));
                multiply_add(a, cosine, back ? of_b : zero - of_b).store(pair);
                multiply_add(b, cosine, back ? zero - of_a : of_a).store(pair + half_);
            }
        }
        if constexpr (Lanes > 1)
            if (i < half_) turn_heads<P::narrower, back>(i, t, heads, features);
    }

    Index half_;
    Index first_;
    ScratchArray<Scalar> numbers_;
};

}  // namespace stochastic_depth::detail
