// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include <stochastic_depth/numerics/sort_by_key.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The layers with p_l < 1, that of the largest variance p_l (1 - p_l) first, ties to the later
/// one.
[[nodiscard]] inline std::vector<Index> layers_by_variance(const Eigen::VectorXd& p) {
    std::vector<KeyedNumber> order;
    // Doubles that are not negative are in the order of their bits.
    for (Index l = 0; l < p.size(); ++l)
        if (p(l) < 1.0)
            order.emplace_back(std::bit_cast<std::uint64_t>(std::abs(p(l) - 0.5)), p.size() - l);
    sort_by_key(order);
    std::vector<Index> layers;
    for (const auto& [key, from_end] : order)
        layers.push_back(p.size() - static_cast<Index>(from_end));
    return layers;
}

/// Generating vector z of a rank-1 lattice of m points, for masks s_l = [frac(i z_l / m + shift_l)
/// < p_l].
///
/// With random shifts, the covariance of s_l between two points that are d apart is
///     C_l(d) = max(0, p_l - d) + max(0, p_l + d - 1) - p_l^2,
/// and the variance of the mean over the lattice is a weighted sum of (1/m) sum_i prod_{l in A}
/// C_l(i z_l / m) over sets A of layers. z minimises (1/m) sum_i prod_l (1 + weight C_l), one layer
/// after the other.
///
/// \complexity  At most 64 m evaluations of C for each layer.
/// \source      Cranley & Patterson 1976 (shifts); Sloan & Reztsov 2002 (component by component).
[[nodiscard]] inline std::vector<Index> lattice_generator(const Eigen::VectorXd& p, Index points) {
    constexpr double weight = 0.25;
    std::vector<Index> z(static_cast<std::size_t>(p.size()), 1);
    const auto size = static_cast<std::size_t>(points);
    std::vector<double> product(size, 1.0), factor(size);
    Philox random{};
    for (const Index l : layers_by_variance(p)) {
        for (std::size_t i = 0; i < size; ++i) {
            const double d = static_cast<double>(i) / static_cast<double>(points);
            // Explicit fma here and below: which masks are drawn must not depend on the compiler's
            // choice.
            const double both = std::max(0.0, p(l) - d) + std::max(0.0, p(l) + d - 1.0);
            factor[i] = std::fma(weight, std::fma(-p(l), p(l), both), 1.0);
        }
        const Index affordable = std::clamp<Index>((Index{1} << 22) / points, 8, 64);
        const Index candidates = std::min(points - 1, affordable);
        double best = std::numeric_limits<double>::infinity();
        Index chosen = 1;
        for (Index c = 0; c < candidates; ++c) {
            const bool all = candidates == points - 1;
            const Index step = all ? c + 1 : 1 + static_cast<Index>(random()) % (points - 1);
            if (std::gcd(step, points) != 1) continue;
            double sum = 0;
            for (std::size_t i = 0, at = 0; i < size; ++i) {
                sum = std::fma(product[i], factor[at], sum);
                at += static_cast<std::size_t>(step);
                if (at >= size) at -= size;
            }
            // A lead that rounding could make is none.
            if (sum < best * (1 - 1e-13)) {
                best = sum;
                chosen = step;
            }
        }
        z[static_cast<std::size_t>(l)] = chosen;
        for (std::size_t i = 0, at = 0; i < size; ++i) {
            product[i] *= factor[at];
            at = (at + static_cast<std::size_t>(chosen)) % size;
        }
    }
    return z;
}

}  // namespace stochastic_depth::detail
