// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/elementwise/gelu_tanh.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include <stochastic_depth/layers/elementwise/gelu.hpp>

#include "support/activation_errors.hpp"
#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

TEMPLATE_TEST_CASE(
    "GELUTanh: as close to its formula as the exponent's rounding lets it be, in every lane",
    "[gelu_tanh]", float, double) {
    using Scalar = TestType;
    using Limits = std::numeric_limits<Scalar>;
    const long double linear = 2 * std::sqrt(2 / std::numbers::pi_v<long double>);
    Largest value, slope;
    for_every_activation(GELUTanh<Scalar>{}, [&](Scalar z, Scalar y, Scalar dy) {
        const auto exact = static_cast<long double>(z);
        const auto at = static_cast<double>(z);
        // 2 u and its derivative, where (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u)).
        const long double square = exact * exact;
        const long double exponent = linear * exact * (1 + 0.044715L * square);
        const long double by_z = linear * (1 + 3 * 0.044715L * square);
        const long double sigmoid = 1 / (1 + std::exp(-exponent));
        const long double rest = 1 / (1 + std::exp(exponent));
        const double tolerance = z < -1 ? 4 - at * at * at / 2 : 4;
        value.see(error_in_ulps(y, exact * sigmoid) / tolerance, at);
        const long double of_rest = rest == 0 ? 0 : exact * by_z * rest;
        slope.see(
            static_cast<double>(std::abs(static_cast<long double>(dy) - sigmoid * (1 + of_rest)) /
                                static_cast<long double>(Limits::epsilon() / 2)),
            at);
    });
    CAPTURE(value.at(), slope.at());
    CHECK(value.error() <= 1);
    CHECK(slope.error() <= 6);
}

TEMPLATE_TEST_CASE("GELUTanh: goes to its limits", "[gelu_tanh]", float, double) {
    check_limits(GELUTanh<TestType>{});
}

TEST_CASE("GELUTanh: another function than GELU, close to it", "[gelu_tanh]") {
    double largest = 0;
    for (double z = -6; z <= 6; z += 0x1p-8)
        largest =
            std::max(largest, std::abs(GELUTanh<double>{}.value(z) - GELU<double>{}.value(z)));
    CHECK(largest > 4.7e-4);
    CHECK(largest < 4.8e-4);
}

}  // namespace
