// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/types.hpp>

/// A batch and its targets, some samples at a time.
namespace stochastic_depth {
namespace detail {

/// A vector or matrix with one target for each of any number of samples.
template <class Targets>
inline constexpr bool is_target_matrix = false;
template <class Scalar, int rows, int columns>
inline constexpr bool is_target_matrix<Eigen::Matrix<Scalar, rows, columns>> =
    columns == Eigen::Dynamic || (columns == 1 && rows == Eigen::Dynamic);

}  // namespace detail

/// Targets of which those of some samples are targets too: what shards, ranks and slices of tokens
/// need. Vectors and matrices with one for each sample; of another type, which can be made without
/// arguments, two members:
///
///     Index samples() const;                                     // how many
///     void take(const Targets& from, Index first, Index count);  // becomes those of some samples
///
/// `take` of as many samples as before should allocate nothing.
///
/// Models: WeightedTargets of such targets; a user's type that has the members.
template <class Targets>
concept SliceableTargets =
    detail::is_target_matrix<Targets> ||
    (std::default_initializable<Targets> &&
     requires(const Targets& targets, Targets& some, Index i) {
         { targets.samples() } -> std::convertible_to<Index>;
         some.take(targets, i, i);
     });

namespace detail {

/// Columns that go through the network at once, forward and back: what is kept of so many tokens
/// stays in a near cache. Their number depends on nothing but the shape. Where a normalisation
/// needs the whole batch, it goes at once, and so do columns that are no sequences.
template <class Targets, class Network>
[[nodiscard]] Index columns_at_once(const Network& network, Index rows, Index columns) {
    constexpr Index tokens_at_once = 256;
    if constexpr (!has_statistics<Network> && SliceableTargets<Targets>)
        if (rows > 0 && takes_tokens(network)) return std::max<Index>(1, tokens_at_once / rows);
    return std::max<Index>(1, columns);
}

template <SliceableTargets Targets>
[[nodiscard]] Index samples_of(const Targets& targets) {
    if constexpr (!is_target_matrix<Targets>)
        return targets.samples();
    else
        return Targets::ColsAtCompileTime == 1 ? targets.rows() : targets.cols();
}

/// to = those of `count` samples from `first` on.
template <SliceableTargets Targets>
void take_slice(const Targets& targets, Index first, Index count, Targets& to) {
    if constexpr (!is_target_matrix<Targets>)
        to.take(targets, first, count);
    else if constexpr (Targets::ColsAtCompileTime == 1)
        to = targets.segment(first, count);
    else
        to = targets.middleCols(first, count);
}

/// \throws std::invalid_argument  unless there is one for each of so many samples.
template <SliceableTargets Targets>
void check_samples_of_targets(Index samples, const Targets& targets) {
    const Index count = samples_of(targets);
    if (count != samples)
        refuse("TrainingStep: targets must be of ", samples, " samples, got ", count);
}

}  // namespace detail
}  // namespace stochastic_depth
