// SPDX-License-Identifier: MIT
#include <stochastic_depth/random/normal.hpp>

#include <cmath>
#include <limits>
#include <numbers>
#include <random>

#include <stochastic_depth/random/philox.hpp>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;

TEST_CASE("portable_log: within two units in the last place of the logarithm", "[normal]") {
    Philox random{4};
    const auto check = [](double x) {
        const long double exact = std::log(static_cast<long double>(x));
        const double got = detail::portable_log(x);
        CAPTURE(x, got);
        CHECK(std::abs(static_cast<double>(got - exact)) <=
              2 * 0x1p-52 * std::abs(static_cast<double>(exact)));
    };
    for (int i = 0; i < 2000; ++i) {
        const double u = uniform<double>(random, 0.5, 1.0);
        check(u);
        check(1 - 0x1p-20 * u);
        check(1 + 0x1p-30 * u);
        check(std::ldexp(u, -(i % 110)));
    }
    check(std::nextafter(1.0, 0.0));
    check(0x1p-104);
    check(std::numeric_limits<double>::min());
    check(std::numeric_limits<double>::denorm_min());
    check(std::numeric_limits<double>::max());
    CHECK(detail::portable_log(1.0) == 0.0);
}

TEST_CASE("normal: is the polar method on the generator's uniforms", "[normal]") {
    Philox random{11}, uniforms{11};
    int rejected = 0;
    for (int i = 0; i < 1000; ++i) {
        long double u = 0, s = 0;
        while (true) {
            u = 2 * static_cast<long double>(uniform<double>(uniforms)) - 1;
            const long double v = 2 * static_cast<long double>(uniform<double>(uniforms)) - 1;
            s = u * u + v * v;
            if (s < 1) break;
            ++rejected;
        }
        const auto expected = static_cast<double>(u * std::sqrt(-2 * std::log(s) / s));
        const double got = normal<double>(random);
        // s near 1 loses digits in its logarithm: half a unit of s is 2^-54 / (1 - s) of it.
        const double tolerance = 0x1p-51 + 0x1p-53 / static_cast<double>(1 - s);
        CHECK(std::abs(got - expected) <= tolerance * std::abs(expected));
    }
    CHECK(random == uniforms);
    // 1000 (4 / pi - 1) = 273 with sigma = sqrt(1000 (1 - pi / 4)) 4 / pi = 19; 6 sigma.
    CHECK(std::abs(rejected - 273) < 6 * 19);
}

TEST_CASE("normal: pinned values, the same with every compiler and standard library", "[normal]") {
    Philox random{2026};
    CHECK(normal<double>(random) == -0x1.304a20daefa14p-1);
    CHECK(normal<double>(random) == 0x1.fc8e83e4b80c4p-3);
    Philox again{2026};
    CHECK(normal<float>(again) == static_cast<float>(-0x1.304a20daefa14p-1));
    std::mt19937_64 wide{5489};
    CHECK(normal<double>(wide) == 0x1.9466b030abcf7p-1);
    double sum = 0;
    for (int i = 0; i < 100000; ++i) sum += normal<double>(random);
    CHECK(sum == 0x1.39701bd8ebc9dp+5);
}

TEST_CASE("normal: moments and shares of the normal distribution", "[normal]") {
    // n = 10^6. The mean of z^k has variance (E z^2k - (E z^k)^2) / n: 1, 2, 15, 96. A share q has
    // variance q (1 - q) / n. All within 6 sigma: false alarms 2e-9 each.
    constexpr int n = 1000000;
    Philox random{7};
    double moments[5] = {};
    const double bounds[] = {0.25, 1.0, 2.0, 3.0, 4.0};
    int below[5] = {}, below_negative[5] = {};
    double lag = 0, previous = 0;
    for (int i = 0; i < n; ++i) {
        const double z = normal<double>(random);
        double power = 1;
        for (int k = 1; k <= 4; ++k) moments[k] += power *= z;
        for (int b = 0; b < 5; ++b) {
            below[b] += z < bounds[b];
            below_negative[b] += z < -bounds[b];
        }
        lag += z * previous;
        previous = z;
    }
    const double expected[] = {0, 0, 1, 0, 3};
    const double variance[] = {0, 1, 2, 15, 96};
    for (int k = 1; k <= 4; ++k) {
        CAPTURE(k);
        CHECK(std::abs(moments[k] / n - expected[k]) < 6 * std::sqrt(variance[k] / n));
    }
    for (int b = 0; b < 5; ++b) {
        const double q = std::erfc(bounds[b] / std::numbers::sqrt2) / 2;
        const double sigma = std::sqrt(n * q * (1 - q));
        CAPTURE(bounds[b]);
        CHECK(std::abs(below_negative[b] - n * q) < 6 * sigma);
        CHECK(std::abs(below[b] - n * (1 - q)) < 6 * sigma);
    }
    // Products of neighbours: mean 0, variance 1.
    CHECK(std::abs(lag / n) < 6 * std::sqrt(1.0 / n));
}

}  // namespace
