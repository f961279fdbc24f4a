// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <concepts>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/training/entrywise_loss.hpp>

namespace stochastic_depth {

struct HuberOptions {
    /// Where the parabola ends, finite and above 0.
    double delta = 1.0;
};

namespace detail {

struct HuberError {
    static constexpr std::string_view name = "Huber";
    double delta = 1.0;

    [[nodiscard]] EntryLoss operator()(double output, double target) const {
        const double difference = output - target, size = std::abs(difference);
        // Written so that a NaN goes on.
        if (size > delta) return {delta * (size - 0.5 * delta), std::copysign(delta, difference)};
        return {0.5 * difference * difference, difference};
    }
};

}  // namespace detail

/// Huber's loss, a parabola near 0 and straight beyond, so that outliers pull no harder than delta:
///
///     loss = 1/(d n) sum_ij h(y_ij - t_ij),  h(r) = r^2 / 2 where |r| <= delta,
///                                            delta (|r| - delta / 2) elsewhere
///
/// over d outputs and n samples; h' is r, held in [-delta, delta]. Targets are a matrix like the
/// output's. Computed in double, whatever the scalar. An empty batch has loss 0. What is called:
/// detail::EntrywiseLoss.
///
/// \source Huber 1964, Robust Estimation of a Location Parameter.
template <std::floating_point Scalar>
class Huber : public detail::EntrywiseLoss<Scalar, detail::HuberError> {
public:
    Huber() = default;

    /// \throws std::invalid_argument  if delta lies outside its range.
    explicit Huber(HuberOptions options)
        : detail::EntrywiseLoss<Scalar, detail::HuberError>(checked(options)) {}

private:
    [[nodiscard]] static detail::HuberError checked(HuberOptions options) {
        if (!(options.delta > 0.0 && std::isfinite(options.delta)))
            detail::refuse("Huber: delta must be finite and above 0, got ", options.delta);
        return {options.delta};
    }
};

}  // namespace stochastic_depth
