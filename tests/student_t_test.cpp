// SPDX-License-Identifier: MIT
#include <stochastic_depth/numerics/student_t.hpp>

#include <cmath>
#include <limits>
#include <numbers>

#include "support/catch.hpp"

namespace {

using stochastic_depth::detail::gamma_ratio;
using stochastic_depth::detail::student_t_tail;
using stochastic_depth::detail::student_t_two_sided;

constexpr double inf = std::numeric_limits<double>::infinity();

bool close(double a, double b, double tolerance) {
    return std::abs(a - b) <= tolerance * std::abs(b);
}

TEST_CASE("student_t: quantiles are those of the tables", "[student_t]") {
    const struct {
        double level, degrees, t;
    } rows[] = {{0.95, 1, 12.706204736174694},  {0.95, 2, 4.302652729749462},
                {0.95, 3, 3.182446305283710},   {0.95, 4, 2.776445105197793},
                {0.95, 5, 2.570581835636315},   {0.95, 9, 2.262157162798205},
                {0.95, 10, 2.228138851986274},  {0.95, 30, 2.042272456301238},
                {0.95, 100, 1.983971518523552}, {0.99, 5, 4.032142983555228},
                {0.99, 10, 3.169272672616950},  {0.99, 30, 2.749995653567236},
                {0.95, inf, 1.959963984540054}, {0.99, inf, 2.575829303548901},
                {0.5, inf, 0.674489750196082}};
    for (const auto& row : rows) {
        INFO("level " << row.level << ", degrees " << row.degrees);
        CHECK(close(student_t_two_sided(row.level, row.degrees), row.t, 1e-12));
    }
}

TEST_CASE("student_t: 1, 2 and 4 degrees of freedom have their closed forms", "[student_t]") {
    for (const double level : {1e-6, 0.01, 0.3, 0.5, 0.8, 0.95, 0.99, 0.999, 1 - 1e-6}) {
        INFO("level " << level);
        CHECK(close(student_t_two_sided(level, 1), std::tan(std::numbers::pi * level / 2), 1e-9));
        CHECK(
            close(student_t_two_sided(level, 2), level * std::sqrt(2 / (1 - level * level)), 1e-9));
        // Shaw 2006, "Sampling Student's T distribution", Section 3.
        const double a = 1 - level * level;
        const double q = std::cos(std::acos(std::sqrt(a)) / 3) / std::sqrt(a);
        CHECK(close(student_t_two_sided(level, 4), 2 * std::sqrt(q - 1), 1e-7 / level));
    }
}

TEST_CASE("student_t: quantile and tail are inverse, for whole and broken degrees of freedom",
          "[student_t]") {
    for (const double degrees : {0.3, 1.0, 2.5, 7.7, 38.0, 240.5, 9999.0})
        for (const double level : {0.05, 0.5, 0.9, 0.95, 0.999}) {
            INFO("degrees " << degrees << ", level " << level);
            const double t = student_t_two_sided(level, degrees);
            CHECK(close(2 * student_t_tail(t, degrees), 1 - level, 1e-11));
        }
}

TEST_CASE("student_t: the series for many degrees of freedom meets the exact quantile",
          "[student_t]") {
    // Between 9999 and 10001 the quantile falls by 2e-8 of itself, and its slope by 4e-4 of that.
    for (const double level : {0.5, 0.95, 0.999}) {
        const double before = student_t_two_sided(level, 9998),
                     at = student_t_two_sided(level, 9999);
        const double after = student_t_two_sided(level, 10000);
        CHECK(std::abs((at - after) / (before - at) - 1) <= 1e-3);
    }
}

TEST_CASE("student_t: the ratio of gamma functions by its recurrence and its known values",
          "[student_t]") {
    CHECK(close(gamma_ratio(0.5), std::numbers::inv_sqrtpi, 1e-14));
    CHECK(close(gamma_ratio(1), 1 / std::numbers::inv_sqrtpi / 2, 1e-14));
    // Gamma(x + 1/2) Gamma(x + 1) / (Gamma(x) Gamma(x + 1/2)) = x.
    for (const double x : {0.1, 3.0, 39.2, 39.7, 250.0, 1e9})
        CHECK(close(gamma_ratio(x) * gamma_ratio(x + 0.5), x, 1e-13));
}

}  // namespace
