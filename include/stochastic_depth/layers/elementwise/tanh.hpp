// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <string_view>

#include <stochastic_depth/layers/elementwise/elementwise.hpp>

namespace stochastic_depth {
namespace detail {

template <class Scalar_>
struct TanhFunction {
    using Scalar = Scalar_;
    static constexpr std::string_view name = "Tanh";
    /// By Eigen's packets, not by std::tanh.
    static constexpr bool vectorized =
        Eigen::internal::packet_traits<Scalar>::HasTanh != 0 && widest_lanes<Scalar> > 1;

    [[nodiscard]] Scalar value(Scalar z) const {
        if constexpr (vectorized)
            return Widest::broadcast(z).tanh().first();
        else
            return std::tanh(z);
    }

    /// One lane outside a full packet goes through a full packet too, for the same bits.
    template <class Packet>
    [[nodiscard]] EIGEN_ALWAYS_INLINE Packet packet(Packet z) const {
        if constexpr (vectorized && Packet::lanes > 1)
            return z.tanh();
        else
            return z.on_each_lane([this](Scalar lane) { return value(lane); });
    }

    [[nodiscard]] Scalar derivative(Scalar z) const {
        return packet_derivative(Packet<Scalar, 1>::broadcast(z)).first();
    }
    template <class Packet>
    [[nodiscard]] EIGEN_ALWAYS_INLINE Packet packet_derivative(Packet z) const {
        return packet_derivative_of_output(packet(z));
    }
    /// 1 - y^2.
    [[nodiscard]] Scalar derivative_of_output(Scalar y) const {
        return packet_derivative_of_output(Packet<Scalar, 1>::broadcast(y)).first();
    }
    template <class Packet>
    [[nodiscard]] EIGEN_ALWAYS_INLINE Packet packet_derivative_of_output(Packet y) const {
        return multiply_add(y, Packet::broadcast(Scalar(-1)) * y, Packet::broadcast(Scalar(1)));
    }

private:
    using Widest = Packet<Scalar, widest_lanes<Scalar>>;
};

}  // namespace detail

/// tanh(z).
template <class Scalar>
using Tanh = Elementwise<detail::TanhFunction<Scalar>>;

}  // namespace stochastic_depth
