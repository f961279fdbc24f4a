// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <string_view>

#include <stochastic_depth/training/entrywise_loss.hpp>

namespace stochastic_depth {
namespace detail {

struct SquaredError {
    static constexpr std::string_view name = "MeanSquaredError";

    [[nodiscard]] EntryLoss operator()(double output, double target) const {
        const double difference = output - target;
        return {difference * difference, 2.0 * difference};
    }
};

}  // namespace detail

/// Mean squared error over all entries, of d outputs and n samples alike:
///
///     loss = 1/(d n) sum_ij (y_ij - t_ij)^2,  d loss / d y_ij = 2 (y_ij - t_ij) / (d n)
///
/// Targets are a matrix like the output's. Computed in double, whatever the scalar. An empty batch
/// has loss 0. What is called: detail::EntrywiseLoss.
template <std::floating_point Scalar>
class MeanSquaredError : public detail::EntrywiseLoss<Scalar, detail::SquaredError> {};

}  // namespace stochastic_depth
