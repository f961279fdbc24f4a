// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/elementwise/silu.hpp>

#include <cmath>
#include <limits>

#include "support/activation_errors.hpp"
#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

TEMPLATE_TEST_CASE("SiLU: at most 4 ulp off for every exponent, in every lane", "[silu]", float,
                   double) {
    using Scalar = TestType;
    using Limits = std::numeric_limits<Scalar>;
    // exp(z) is a normal number above.
    const Scalar normal = std::log(Limits::min());
    Largest value, tail, slope;
    for_every_activation(SiLU<Scalar>{}, [&](Scalar z, Scalar y, Scalar dy) {
        const auto exact = static_cast<long double>(z);
        const long double sigmoid = 1 / (1 + std::exp(-exact)), rest = 1 / (1 + std::exp(exact));
        const auto at = static_cast<double>(z);
        if (z > normal)
            value.see(error_in_ulps(y, exact * sigmoid), at);
        else
            tail.see(static_cast<double>(std::abs(static_cast<long double>(y) - exact * sigmoid) /
                                         static_cast<long double>(Limits::denorm_min())),
                     at);
        const long double derivative = sigmoid * (1 + exact * rest);
        slope.see(static_cast<double>(std::abs(static_cast<long double>(dy) - derivative) /
                                      static_cast<long double>(Limits::epsilon() / 2)),
                  at);
    });
    CAPTURE(value.at(), tail.at(), slope.at());
    CHECK(value.error() <= 4);
    CHECK(tail.error() <= (sizeof(Scalar) == 4 ? 100 : 1000));
    CHECK(slope.error() <= 4);
}

TEMPLATE_TEST_CASE("SiLU: goes to its limits", "[silu]", float, double) {
    check_limits(SiLU<TestType>{});
}

}  // namespace
