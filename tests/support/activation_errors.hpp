// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <limits>

#include <stochastic_depth/kernels/epilogue.hpp>

#include "support/catch.hpp"
#include "support/every_exponent.hpp"
#include "support/matrices.hpp"

namespace stochastic_depth::test {

/// An element-wise layer over numbers of every exponent: the same bits in every lane of every
/// packet as for a single number, and no NaN but of a NaN.
/// \param visit  Called with a finite z, the layer's value and its derivative there.
template <class Layer, class Visit>
void for_every_activation(const Layer& layer, const Visit& visit) {
    using Scalar = typename Layer::Scalar;
    const auto slope = [&](auto z) {
        if constexpr (requires { layer.packet_derivative(z); })
            return layer.packet_derivative(z);
        else
            return z.on_each_lane([&](Scalar lane) { return layer.derivative(lane); });
    };
    const auto value = [&](auto z) { return detail::ApplyElementwise<Layer>{layer}(z, 0, 0); };
    bool scalars_agree = true, nan_of_nan_alone = true;
    const auto check = [&](Scalar z, Scalar y, Scalar scalar) {
        if (std::isnan(z) != std::isnan(y)) nan_of_nan_alone = false;
        if (!std::isnan(y) && !(y == scalar && std::signbit(y) == std::signbit(scalar)))
            scalars_agree = false;
    };
    for_every_exponent<Scalar>(value, [&](Scalar z, Scalar y) {
        check(z, y, layer.value(z));
        if (std::isfinite(z)) visit(z, y, layer.derivative(z));
    });
    for_every_exponent<Scalar>(slope,
                               [&](Scalar z, Scalar y) { check(z, y, layer.derivative(z)); });
    CHECK(scalars_agree);
    CHECK(nan_of_nan_alone);
}

/// A smooth step from the left to the right: 0 at minus infinity, itself at infinity.
template <class Layer>
void check_limits(const Layer& layer) {
    using Scalar = typename Layer::Scalar;
    constexpr Scalar infinity = std::numeric_limits<Scalar>::infinity();
    CHECK(layer.value(-infinity) == 0);
    CHECK(layer.value(infinity) == infinity);
    CHECK(layer.derivative(-infinity) == 0);
    CHECK(layer.derivative(infinity) == 1);
    CHECK(layer.value(-std::numeric_limits<Scalar>::max()) == 0);
    CHECK(layer.value(std::numeric_limits<Scalar>::max()) == std::numeric_limits<Scalar>::max());
    CHECK(layer.value(Scalar(0)) == 0);
    CHECK(layer.derivative(Scalar(0)) == Scalar(0.5));
}

}  // namespace stochastic_depth::test
