// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// How many positions of each column of a batch belong to its sequence. What is behind them is
/// padding: it holds zeros. The numbers are somebody else's.
///
/// They repeat, as a tree puts the columns of a batch side by side again and again.
class SequenceLengths {
public:
    /// Every position of every column belongs to its sequence.
    SequenceLengths() = default;
    /// \param lengths  Of columns 0, ..., count - 1, and of those behind them from the start again.
    SequenceLengths(const Index* lengths, Index count) : lengths_(lengths), count_(count) {}

    /// Whether there are lengths.
    [[nodiscard]] explicit operator bool() const { return lengths_ != nullptr; }
    /// Where there are.
    [[nodiscard]] Index operator[](Index column) const {
        const Index place = first_ + column;
        return lengths_[place < count_ ? place : place % count_];
    }

    /// The lengths of the columns from `first` on.
    [[nodiscard]] SequenceLengths from_column(Index first) const {
        SequenceLengths part = *this;
        if (lengths_) part.first_ = (first_ + first) % count_;
        return part;
    }

    /// Those of columns[0], ..., columns[count - 1], which are written to `to`, if there are any.
    [[nodiscard]] SequenceLengths gathered(const Index* columns, Index count, Index* to) const {
        if (!lengths_) return {};
        for (Index k = 0; k < count; ++k) to[k] = (*this)[columns[k]];
        return {to, count};
    }

private:
    const Index* lengths_ = nullptr;
    Index count_ = 0;
    Index first_ = 0;
};

/// Positions of a column's sequence, of `in_column` with its padding.
[[nodiscard]] inline Index length_of_sequence(const SequenceLengths& lengths, Index column,
                                              Index in_column) {
    return lengths ? std::min(lengths[column], in_column) : in_column;
}

}  // namespace stochastic_depth::detail
