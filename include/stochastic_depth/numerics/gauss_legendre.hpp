// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <numbers>

#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Gauss-Legendre quadrature on [0, 1]: sum_k weights(k) f(nodes(k)) is the integral of f, exactly
/// for polynomials of degree 2 n - 1.
struct GaussLegendre {
    Eigen::VectorXd nodes;
    Eigen::VectorXd weights;

    /// \param n  At least 1.
    /// \source  Press et al., Numerical Recipes, 4.6: Newton's method on the Legendre polynomial.
    explicit GaussLegendre(Index n) : nodes(n), weights(n) {
        const double order = static_cast<double>(n);
        for (Index k = 0; k < n; ++k) {
            double z = std::cos(std::numbers::pi * (static_cast<double>(k) + 0.75) / (order + 0.5));
            double slope = 0;
            for (int iteration = 0; iteration < 100; ++iteration) {
                double value = 1, before = 0;
                for (Index i = 0; i < n; ++i) {
                    const auto j = static_cast<double>(i);
                    const double next = ((2 * j + 1) * z * value - j * before) / (j + 1);
                    before = value;
                    value = next;
                }
                slope = order * (z * value - before) / (z * z - 1);
                const double step = value / slope;
                z -= step;
                if (std::abs(step) < 1e-15) break;
            }
            nodes(k) = (1 - z) / 2;
            weights(k) = 1 / ((1 - z * z) * slope * slope);
        }
    }
};

}  // namespace stochastic_depth::detail
