// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/types.hpp>

/// A batch and its targets, some samples at a time.
namespace stochastic_depth::detail {

/// Whether targets of some samples are targets too: a vector or matrix with one for each of any
/// number of samples.
template <class Targets>
inline constexpr bool has_slices = false;
template <class Scalar, int rows, int columns>
inline constexpr bool has_slices<Eigen::Matrix<Scalar, rows, columns>> =
    columns == Eigen::Dynamic || (columns == 1 && rows == Eigen::Dynamic);

/// Columns that go through the network at once, forward and back: what is kept of so many tokens
/// stays in a near cache. Their number depends on nothing but the shape. Where a normalisation
/// needs the whole batch, it goes at once, and so do columns that are no sequences.
template <class Targets, class Network>
[[nodiscard]] Index columns_at_once(const Network& network, Index rows, Index columns) {
    constexpr Index tokens_at_once = 256;
    if constexpr (!has_statistics<Network> && has_slices<Targets>)
        if (rows > 0 && takes_tokens(network)) return std::max<Index>(1, tokens_at_once / rows);
    return std::max<Index>(1, columns);
}

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
