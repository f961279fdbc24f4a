// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/text/lengths.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Sequences in blocks of similar lengths, each cut to its longest one: a pass over all of them with
/// little padding.
///
///     for (const auto& block : length_blocks(test.inputs(), 256)) {
///         const Matrix<float> y = network(block.inputs, mask);
///         for (Index j = 0; j < y.cols(); ++j) all.col(block.samples[j]) = y.col(j);
///     }
template <std::floating_point Scalar>
struct LengthBlock {
    /// Columns of the whole, in the order of the block's.
    std::vector<Index> samples;
    /// [longest of the block, at least 1 x samples], -1 past the end of a shorter one.
    Matrix<Scalar> inputs;
};

/// \param ids              [positions x samples], -1 past the end of a shorter sequence.
/// \param samples_at_once  Columns of a block, the last one's fewer; at least 1.
/// \returns  Blocks from short to long; of equally long ones the earlier column comes first.
/// \throws std::invalid_argument  if samples_at_once is below 1.
template <class Derived>
    requires std::floating_point<typename Derived::Scalar>
[[nodiscard]] std::vector<LengthBlock<typename Derived::Scalar>> length_blocks(
    const Eigen::MatrixBase<Derived>& ids, Index samples_at_once) {
    if (samples_at_once < 1)
        detail::refuse("length_blocks: samples_at_once must be at least 1, got ", samples_at_once);
    const std::vector<Index> lengths = lengths_of(ids);
    const auto length = [&](Index j) { return lengths[static_cast<std::size_t>(j)]; };
    std::vector<Index> order(lengths.size());
    std::iota(order.begin(), order.end(), Index{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](Index a, Index b) { return length(a) < length(b); });
    std::vector<LengthBlock<typename Derived::Scalar>> blocks;
    for (Index first = 0; first < ids.cols(); first += samples_at_once) {
        const auto count = static_cast<std::size_t>(std::min(samples_at_once, ids.cols() - first));
        const std::span samples = std::span(order).subspan(static_cast<std::size_t>(first), count);
        auto& block = blocks.emplace_back();
        block.samples.assign(samples.begin(), samples.end());
        // A sequence without a token is its taker's to refuse.
        const Index rows = std::min(std::max(length(samples.back()), Index{1}), ids.rows());
        block.inputs.resize(rows, static_cast<Index>(count));
        for (std::size_t j = 0; j < count; ++j)
            block.inputs.col(static_cast<Index>(j)) = ids.col(samples[j]).head(rows);
    }
    return blocks;
}

}  // namespace stochastic_depth
