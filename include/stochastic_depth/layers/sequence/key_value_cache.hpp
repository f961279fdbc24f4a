// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/kernels/attention.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

namespace detail {
template <class Scalar>
class AttentionStep;
}

/// What a causal MultiHeadAttention remembers of sequences between its steps: the keys and values
/// of their past. One for each layer and each set of sequences; a value, so that a copy goes on by
/// itself.
template <class Scalar_>
class KeyValueCache {
public:
    using Scalar = Scalar_;

    /// Of sequences without a past.
    /// \param sequences  At least 0.
    /// \param width      The layer's, at least 1.
    /// \throws std::invalid_argument  outside these ranges.
    KeyValueCache(Index sequences, Index width) : width_(width) {
        if (sequences < 0)
            detail::refuse("KeyValueCache: sequences must be at least 0, got ", sequences);
        if (width < 1) detail::refuse("KeyValueCache: width must be at least 1, got ", width);
        lengths_.assign(static_cast<std::size_t>(sequences), 0);
    }

    [[nodiscard]] Index sequences() const { return static_cast<Index>(lengths_.size()); }
    [[nodiscard]] Index width() const { return width_; }
    /// Positions of a sequence's past.
    /// \throws std::invalid_argument  unless sequence lies in [0, sequences()).
    [[nodiscard]] Index length(Index sequence) const {
        check(sequence);
        return lengths_[static_cast<std::size_t>(sequence)];
    }

    /// Forgets a sequence's positions from `length` on, as after a prompt that was padded.
    /// \throws std::invalid_argument  unless sequence lies in [0, sequences()) and length in
    ///                                [0, length(sequence)].
    void truncate(Index sequence, Index length) {
        check(sequence);
        Index& now = lengths_[static_cast<std::size_t>(sequence)];
        if (!(length >= 0 && length <= now))
            detail::refuse("KeyValueCache: length must lie in [0, ", now, "], got ", length);
        now = length;
    }

private:
    friend class detail::AttentionStep<Scalar>;

    void check(Index sequence) const {
        if (!(sequence >= 0 && sequence < sequences()))
            detail::refuse("KeyValueCache: sequence must lie in [0, ", sequences(), "), got ",
                           sequence);
    }

    [[nodiscard]] Index longest() const {
        return lengths_.empty() ? 0 : *std::max_element(lengths_.begin(), lengths_.end());
    }

    [[nodiscard]] Index shortest() const {
        return lengths_.empty() ? 0 : *std::min_element(lengths_.begin(), lengths_.end());
    }

    /// [capacity x width]: a head's keys are columns of it.
    [[nodiscard]] Scalar* keys_of(Index sequence) {
        return keys_.data() + sequence * width_ * capacity_;
    }
    /// [width x capacity].
    [[nodiscard]] Scalar* values_of(Index sequence) {
        return values_.data() + sequence * width_ * capacity_;
    }

    /// Makes room for so many positions of each sequence.
    void reserve(Index positions) {
        if (positions <= capacity_) return;
        const Index capacity = detail::padded_keys(std::max(positions, 2 * capacity_));
        Vector<Scalar> keys = Vector<Scalar>::Zero(capacity * width_ * sequences()), values = keys;
        for (Index j = 0; j < sequences(); ++j) {
            const Index length = lengths_[static_cast<std::size_t>(j)];
            for (Index i = 0; i < width_; ++i)
                std::copy_n(keys_of(j) + i * capacity_, length,
                            keys.data() + (j * width_ + i) * capacity);
            std::copy_n(values_of(j), width_ * length, values.data() + j * width_ * capacity);
        }
        keys_.swap(keys);
        values_.swap(values);
        capacity_ = capacity;
    }

    /// Adds a position to a sequence that has room for it.
    void append(Index sequence, const Scalar* key, const Scalar* value) {
        Index& length = lengths_[static_cast<std::size_t>(sequence)];
        for (Index i = 0; i < width_; ++i) keys_of(sequence)[i * capacity_ + length] = key[i];
        std::copy_n(value, width_, values_of(sequence) + width_ * length);
        ++length;
    }

    Index width_;
    Index capacity_ = 0;
    std::vector<Index> lengths_;
    Vector<Scalar> keys_;
    Vector<Scalar> values_;
};

}  // namespace stochastic_depth
