// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <numbers>
#include <string_view>

#include <stochastic_depth/layers/elementwise/elementwise.hpp>

namespace stochastic_depth {
namespace detail {

template <class Scalar_>
struct GELUFunction {
    using Scalar = Scalar_;
    static constexpr std::string_view name = "GELU";

    [[nodiscard]] Scalar value(Scalar z) const { return z * normal_distribution(z); }

    [[nodiscard]] Scalar derivative(Scalar z) const {
        const Scalar density = std::exp(-z * z / Scalar(2)) * std::numbers::inv_sqrtpi_v<Scalar> /
                               std::numbers::sqrt2_v<Scalar>;
        return normal_distribution(z) + z * density;
    }

private:
    /// Phi(z), by erfc so that it keeps its relative precision for large negative z.
    [[nodiscard]] static Scalar normal_distribution(Scalar z) {
        return std::erfc(-z / std::numbers::sqrt2_v<Scalar>) / Scalar(2);
    }
};

}  // namespace detail

/// z Phi(z), with the normal distribution function Phi itself, not its tanh approximation.
/// \source Hendrycks & Gimpel 2016, Gaussian Error Linear Units, Section 2.
template <class Scalar>
using GELU = Elementwise<detail::GELUFunction<Scalar>>;

}  // namespace stochastic_depth
