// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/elementwise/gelu.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "support/activation_errors.hpp"
#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// Phi, and the density of the normal distribution.
long double normal_distribution(long double z) {
    return std::erfc(-z / std::numbers::sqrt2_v<long double>) / 2;
}
long double normal_density(long double z) {
    return std::exp(-z * z / 2) / std::sqrt(2 * std::numbers::pi_v<long double>);
}

TEST_CASE("GELU: at most 6 ulp off for every exponent, in every lane", "[gelu]") {
    Largest value, tail, slope, slope_of_tail;
    for_every_activation(GELU<float>{}, [&](float z, float y, float dy) {
        const auto exact = static_cast<long double>(z);
        const long double Phi = normal_distribution(exact);
        const long double derivative = Phi + exact * normal_density(exact);
        (z < -1 ? tail : value).see(error_in_ulps(y, exact * Phi), static_cast<double>(z));
        // The derivative crosses 0 at -0.75, where what it is a sum of is larger.
        if (z < -2)
            slope_of_tail.see(error_in_ulps(dy, derivative), static_cast<double>(z));
        else
            slope.see(static_cast<double>(std::abs(static_cast<long double>(dy) - derivative)),
                      static_cast<double>(z));
    });
    CAPTURE(value.at(), tail.at(), slope.at(), slope_of_tail.at());
    CHECK(value.error() <= 6);
    CHECK(tail.error() <= 6);
    CHECK(slope_of_tail.error() <= 6);
    CHECK(slope.error() <= 4 * 0x1p-24);
}

TEST_CASE("GELU: in double, a few ulp off, in every lane", "[gelu]") {
    Largest value, slope;
    for_every_activation(GELU<double>{}, [&](double z, double y, double dy) {
        const auto exact = static_cast<long double>(z);
        const long double Phi = normal_distribution(exact);
        // A rounding of z is one of z^2 in the exponent.
        const double tolerance = z < 0 ? 1 + std::min(z * z, 1500.0) : 1;
        value.see(error_in_ulps(y, exact * Phi) / tolerance, z);
        slope.see(std::abs(static_cast<double>(static_cast<long double>(dy) - Phi -
                                               exact * normal_density(exact))),
                  z);
    });
    CAPTURE(value.at(), slope.at());
    CHECK(value.error() <= 2);
    CHECK(slope.error() <= 4 * 0x1p-53);
}

TEST_CASE("GELU: keeps its digits far below 0, and goes to its limits", "[gelu]") {
    check_limits(GELU<float>{});
    check_limits(GELU<double>{});
    // 1 + erf(z / sqrt(2)) is 0 in float from here on.
    for (const float z : {-5.5F, -8.0F, -11.0F, -12.9F}) {
        const auto exact = static_cast<long double>(z) * normal_distribution(z);
        CHECK(error_in_ulps(GELU<float>{}.value(z), exact) <= 6);
    }
    CHECK(GELU<float>{}.value(-14) < 0);
    CHECK(GELU<float>{}.value(-15) == 0);
}

}  // namespace
