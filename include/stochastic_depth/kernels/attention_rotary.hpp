// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include <stochastic_depth/kernels/packet.hpp>
#include <stochastic_depth/memory/scratch.hpp>

namespace stochastic_depth::detail {

/// cos and sin of the angles by which rotary positions turn pairs of a head's features: at position
/// t, pair i by t base^(-2 i / width).
template <class Scalar>
class RotaryAngles {
public:
    /// \param width      Of a head, even.
    /// \param positions  From 0 on.
    RotaryAngles(Index width, Index positions, double base = 10000)
        : half_(width / 2), numbers_(2 * half_ * positions) {
        for (Index i = 0; i < half_; ++i) {
            const double speed =
                std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(width));
            for (Index t = 0; t < positions; ++t) {
                const double angle = static_cast<double>(t) * speed;
                numbers_[i + 2 * half_ * t] = static_cast<Scalar>(std::cos(angle));
                numbers_[i + 2 * half_ * t + half_] = static_cast<Scalar>(std::sin(angle));
            }
        }
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
    template <int Lanes, bool back>
    void turn_heads(Index i, Index t, Index heads, Scalar* features) const {
        using P = Packet<Scalar, Lanes>;
        const Scalar* const angles = numbers_.data() + 2 * half_ * t;
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
    ScratchArray<Scalar> numbers_;
};

}  // namespace stochastic_depth::detail
