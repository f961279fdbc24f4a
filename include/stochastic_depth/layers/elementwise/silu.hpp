// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

#include <stochastic_depth/kernels/sigmoid.hpp>
#include <stochastic_depth/layers/elementwise/elementwise.hpp>

namespace stochastic_depth {
namespace detail {

template <class Scalar_>
struct SiLUFunction {
    using Scalar = Scalar_;
    static constexpr std::string_view name = "SiLU";

    [[nodiscard]] Scalar value(Scalar z) const {
        return packet(Packet<Scalar, 1>::broadcast(z)).first();
    }
    template <class Packet>
    [[nodiscard]] EIGEN_ALWAYS_INLINE Packet packet(Packet numbers) const {
        return numbers.on_each_packet([]<class P>(P z) {
            const Sigmoid<P> sigmoid(z);
            // Minus infinity gives 0, as the numbers before it do.
            const P bounded = max(z, P::broadcast(ExponentialConstants<Scalar>::lowest));
            return bounded * sigmoid.numerator / sigmoid.denominator;
        });
    }

    [[nodiscard]] Scalar derivative(Scalar z) const {
        return packet_derivative(Packet<Scalar, 1>::broadcast(z)).first();
    }
    template <class Packet>
    [[nodiscard]] EIGEN_ALWAYS_INLINE Packet packet_derivative(Packet numbers) const {
        return numbers.on_each_packet([]<class P>(P z) {
            return Sigmoid<P>(z).slope_of_product(within_range_of_exponential(z));
        });
    }
};

}  // namespace detail

/// z / (1 + exp(-z)), also called swish.
///
/// At most 4 ulp off where exp(z) is a normal number; what comes below, of floats at most 100 of the
/// smallest number. The error of the derivative is at most 4 roundings of 1.
/// \source Elfwing et al. 2018, Sigmoid-Weighted Linear Units; Ramachandran et al. 2017.
template <class Scalar>
using SiLU = Elementwise<detail::SiLUFunction<Scalar>>;

}  // namespace stochastic_depth
