// SPDX-License-Identifier: MIT
#include <stochastic_depth/kernels/exponential.hpp>

#include <cmath>
#include <limits>

#include "support/catch.hpp"
#include "support/every_exponent.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

// About 0.9 where multiply_add rounds once, 1.2 elsewhere.
constexpr double bound = detail::has_fused_multiply_add ? 1.0 : 1.3;

TEMPLATE_TEST_CASE("exponential: at most an ulp off for every exponent, in every lane",
                   "[exponential]", float, double) {
    using Scalar = TestType;
    Largest error;
    for_every_exponent<Scalar>([](auto x) { return detail::exponential(x); },
                               [&](Scalar x, Scalar y) {
                                   if (std::isnan(x)) return error.see(std::isnan(y) ? 0 : 1e9, 0);
                                   const auto exact = std::exp(static_cast<long double>(x));
                                   error.see(error_in_ulps(y, exact), static_cast<double>(x));
                               });
    CAPTURE(error.at());
    CHECK(error.error() <= bound);
    CHECK(error.error() > 0.5);
}

TEMPLATE_TEST_CASE("exponential: at most an ulp off from underflow to overflow", "[exponential]",
                   float, double) {
    using Scalar = TestType;
    using P = detail::Packet<Scalar, 1>;
    const auto exponential = [](Scalar x) { return detail::exponential(P::broadcast(x)).first(); };
    using Constants = detail::ExponentialConstants<Scalar>;
    constexpr int steps = 200'000;
    Largest error;
    for (int k = 0; k <= steps; ++k) {
        const Scalar x = Constants::lowest +
                         (Constants::highest - Constants::lowest) / steps * static_cast<Scalar>(k);
        error.see(error_in_ulps(exponential(x), std::exp(static_cast<long double>(x))),
                  static_cast<double>(x));
    }
    CAPTURE(error.at());
    CHECK(error.error() <= bound);
    CHECK(exponential(Scalar(0)) == 1);
    CHECK(exponential(Constants::lowest) == 0);
    CHECK(std::isinf(exponential(Constants::highest)));
    // Numbers below the smallest normal one come out too.
    const Scalar small = std::log(std::numeric_limits<Scalar>::denorm_min()) + Scalar(2);
    CHECK(exponential(small) > 0);
    CHECK(exponential(small) < std::numeric_limits<Scalar>::min());
}

TEST_CASE("exponential: a low part counts as if the exponent had more digits", "[exponential]") {
    using P = detail::Packet<float, detail::widest_lanes<float>>;
    Largest error;
    for (float high = -80; high < 80; high += 0.0371F) {
        const float low = high * 0x1p-25F;
        const float y = detail::exponential_in_range(P::broadcast(high), P::broadcast(low)).first();
        const auto exact = std::exp(static_cast<long double>(high) + static_cast<long double>(low));
        error.see(error_in_ulps(y, exact), static_cast<double>(high));
    }
    CHECK(error.error() <= bound);
}

}  // namespace
