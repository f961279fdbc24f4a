// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <initializer_list>
#include <numbers>

namespace stochastic_depth::detail {

/// Gamma(x + 1/2) / Gamma(x), x > 0. Not by std::lgamma, which writes a global variable.
/// \source The recurrence, and Tricomi & Erdelyi 1951 for large x.
[[nodiscard]] inline double gamma_ratio(double x) {
    double factor = 1;
    for (; x < 40; x += 1) factor *= x / (x + 0.5);
    const double r = 1 / x;
    const double series =
        1 + r * (-1.0 / 8 +
                 r * (1.0 / 128 +
                      r * (5.0 / 1024 +
                           r * (-21.0 / 32768 + r * (-399.0 / 262144 + r * (869.0 / 4194304))))));
    return factor * std::sqrt(x) * series;
}

/// The continued fraction of the incomplete beta function, for x < (a + 1) / (a + b + 2).
/// \source Press et al. 2007, Numerical Recipes, Section 6.4 (Lentz's method).
[[nodiscard]] inline double beta_fraction(double a, double b, double x) {
    constexpr double tiny = 1e-300;
    const auto nonzero = [](double value) { return std::abs(value) < tiny ? tiny : value; };
    double c = 1;
    double d = 1 / nonzero(1 - (a + b) * x / (a + 1));
    double fraction = d;
    for (int m = 1; m < 100'000; ++m) {
        const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        for (const double term : {even, odd}) {
            d = 1 / nonzero(1 + term * d);
            c = nonzero(1 + term / c);
            fraction *= d * c;
        }
        if (std::abs(d * c - 1) < 1e-16) break;
    }
    return fraction;
}

/// P(T > t) for Student's t of `degrees` degrees of freedom, t >= 0.
[[nodiscard]] inline double student_t_tail(double t, double degrees) {
    const double a = degrees / 2;
    const double square = t * t / degrees;
    // x^a (1 - x)^(1/2) / B(a, 1/2), x = 1 / (1 + square).
    const double factor = std::exp(-a * std::log1p(square)) * std::sqrt(square / (1 + square)) *
                          gamma_ratio(a) * std::numbers::inv_sqrtpi;
    const double x = 1 / (1 + square);
    if (x < (a + 1) / (a + 2.5)) return factor * beta_fraction(a, 0.5, x) / (2 * a);
    return 0.5 - factor * beta_fraction(0.5, a, square / (1 + square));
}

/// The t >= 0 that a decreasing function takes to `tail`.
template <class Tail, class Density>
[[nodiscard]] double solve_tail(double tail, const Tail& tail_of, const Density& density) {
    double low = 0, high = 1;
    while (tail_of(high) > tail) high *= 2;
    double t = high / 2;
    for (int i = 0; i < 200; ++i) {
        const double excess = tail_of(t) - tail;
        (excess > 0 ? low : high) = t;
        double next = t + excess / density(t);
        if (!(next > low && next < high)) next = (low + high) / 2;
        const double step = std::abs(next - t);
        t = next;
        if (step <= 1e-15 * t) break;
    }
    return t;
}

/// The t with P(-t <= T <= t) = level, for Student's t of `degrees` degrees of freedom; infinity:
/// the normal distribution.
/// \param level  In [0, 1).
[[nodiscard]] inline double student_t_two_sided(double level, double degrees) {
    const double tail = (1 - level) / 2;
    if (!(degrees < 1e4)) {
        const double z = solve_tail(
            tail, [](double t) { return std::erfc(t / std::numbers::sqrt2) / 2; },
            [](double t) {
                return std::exp(-t * t / 2) * std::numbers::inv_sqrtpi / std::numbers::sqrt2;
            });
        // Abramowitz & Stegun 1964, 26.7.5.
        const double s = z * z, r = 1 / degrees;
        return z + z * r *
                       ((s + 1) / 4 + r * ((5 * s * s + 16 * s + 3) / 96 +
                                           r * (((3 * s + 19) * s + 17) * s - 15) / 384));
    }
    const double height = gamma_ratio(degrees / 2) * std::numbers::inv_sqrtpi / std::sqrt(degrees);
    return solve_tail(
        tail, [&](double t) { return student_t_tail(t, degrees); },
        [&](double t) {
            return height * std::exp(-(degrees + 1) / 2 * std::log1p(t * t / degrees));
        });
}

}  // namespace stochastic_depth::detail
