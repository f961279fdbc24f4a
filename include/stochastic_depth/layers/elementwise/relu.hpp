// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

#include <stochastic_depth/layers/elementwise/elementwise.hpp>

namespace stochastic_depth {
namespace detail {

template <class Scalar_>
struct ReLUFunction {
    using Scalar = Scalar_;
    static constexpr std::string_view name = "ReLU";

    [[nodiscard]] Scalar value(Scalar z) const { return z < Scalar(0) ? Scalar(0) : z; }

    template <class Packet>
    [[nodiscard]] EIGEN_ALWAYS_INLINE Packet packet(Packet z) const {
        return max(z, Packet::broadcast(Scalar(0)));
    }

    [[nodiscard]] Scalar derivative(Scalar z) const {
        return z > Scalar(0) ? Scalar(1) : Scalar(0);
    }
    template <class Packet>
    [[nodiscard]] EIGEN_ALWAYS_INLINE Packet packet_derivative(Packet z) const {
        return z.is_positive();
    }
    /// The output is positive where the input is.
    [[nodiscard]] Scalar derivative_of_output(Scalar y) const { return derivative(y); }
    template <class Packet>
    [[nodiscard]] EIGEN_ALWAYS_INLINE Packet packet_derivative_of_output(Packet y) const {
        return packet_derivative(y);
    }
};

}  // namespace detail

/// max(0, z), NaN where z is NaN; its derivative at 0 is taken as 0.
/// \source Nair & Hinton 2010.
template <class Scalar>
using ReLU = Elementwise<detail::ReLUFunction<Scalar>>;

}  // namespace stochastic_depth
