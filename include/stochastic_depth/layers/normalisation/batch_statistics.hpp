// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/pass/memory_kinds.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

struct BatchNormOptions {
    /// Added to the variance, finite and above 0.
    double epsilon = 1e-5;
    /// Share of the newest batch in the running statistics, in (0, 1].
    double momentum = 0.1;
};

template <class Scalar>
class BatchNorm2d;

namespace detail {

/// Mean, variance and 1 / sqrt(variance + epsilon), [features] each.
struct BatchStatistics {
    double* mean = nullptr;
    double* variance = nullptr;
    double* inverse_deviation = nullptr;

    BatchStatistics() = default;
    BatchStatistics(double* memory, Index features)
        : mean(memory), variance(memory + features), inverse_deviation(variance + features) {}
};

/// What a batch normalisation leaves of a pass.
template <class Scalar>
struct BatchNormRecord {
    RecordedMatrix<Scalar> input;
    BatchStatistics statistics;
    /// Whether these are the statistics of the batch, and how they are taken over.
    bool of_batch = false;
    StatisticsUpdate update = StatisticsUpdate::moving;
};

}  // namespace detail
}  // namespace stochastic_depth
