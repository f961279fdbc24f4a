// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <stochastic_depth/random/shuffle.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Batches of sequences of similar lengths, for data sets of token ids, [positions x samples], -1
/// past the end of a shorter sequence: each batch is cut to its longest sequence, so that little
/// padding is computed.
///
/// An epoch's random order of samples is taken in windows of some batches; within one, samples are
/// sorted by length and cut into batches; then these batches come in random order. Samples that
/// fill no batch are the last ones of the random order, and the last batch. All of it is a function of
/// seed and epoch.
struct SimilarLengths {
    /// Batches of a window, at least 1. One: random batches, cut. More: less padding, and batches
    /// whose samples have less chance to meet others.
    Index window = 32;
};

namespace detail {

/// Changes a random order of samples into one of batches of similar lengths.
/// \param order    Of an epoch, each sample once.
/// \param lengths  One for each sample.
/// \param key      Of a stream that nothing else draws from.
inline void sort_by_lengths(std::vector<Index>& order, const std::vector<Index>& lengths,
                            Index batch_size, const SimilarLengths& options,
                            std::array<std::uint32_t, 2> key, std::uint64_t epoch) {
    const Index batches = static_cast<Index>(order.size()) / batch_size;
    const auto begin_of = [&](Index batch) { return order.begin() + batch * batch_size; };
    for (Index first = 0; first < batches;) {
        // Not first + window, which may be out of range.
        const Index end = options.window < batches - first ? first + options.window : batches;
        std::stable_sort(begin_of(first), begin_of(end), [&](Index a, Index b) {
            return lengths[static_cast<std::size_t>(a)] < lengths[static_cast<std::size_t>(b)];
        });
        first = end;
    }
    const std::vector<Index> sorted = order;
    Index place = 0;
    for (const Index batch : random_order(batches, key, epoch))
        std::copy_n(sorted.begin() + batch * batch_size, batch_size, begin_of(place++));
}

/// Leaves out rows in which no sequence has a token; at least one row stays.
template <class Scalar>
void cut_to_longest(Matrix<Scalar>& ids, Matrix<Scalar>& spare) {
    Index rows = ids.rows();
    while (rows > 1 && (ids.row(rows - 1).array() == Scalar(-1)).all()) --rows;
    if (rows == ids.rows()) return;
    spare = ids.topRows(rows);
    ids.swap(spare);
}

}  // namespace detail
}  // namespace stochastic_depth
