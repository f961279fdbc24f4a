// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/types.hpp>

/// Targets of a batch, some samples at a time.
namespace stochastic_depth::detail {

/// Whether targets of some samples are targets too: a vector or matrix with one for each of any
/// number of samples.
template <class Targets>
inline constexpr bool has_slices = false;
template <class Scalar, int rows, int columns>
inline constexpr bool has_slices<Eigen::Matrix<Scalar, rows, columns>> =
    columns == Eigen::Dynamic || (columns == 1 && rows == Eigen::Dynamic);

/// to = those of `count` samples from `first` on.
template <class Targets>
void take_slice(const Targets& targets, Index first, Index count, Targets& to) {
    if constexpr (Targets::ColsAtCompileTime == 1)
        to = targets.segment(first, count);
    else
        to = targets.middleCols(first, count);
}

/// \throws std::invalid_argument  unless there is one for each of so many samples.
template <class Targets>
void check_samples_of_targets(Index samples, const Targets& targets) {
    const Index count = Targets::ColsAtCompileTime == 1 ? targets.rows() : targets.cols();
    if (count != samples)
        refuse("TrainingStep: targets must be of ", samples, " samples, got ", count);
}

}  // namespace stochastic_depth::detail
