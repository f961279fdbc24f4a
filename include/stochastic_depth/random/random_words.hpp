// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <stochastic_depth/random/philox.hpp>

namespace stochastic_depth::detail {

/// One sequence of random words of a stream, for draws of which nobody knows beforehand how many
/// words they take. Sequences of different places are independent.
class RandomWords {
public:
    /// \param key    Of `stream_key`.
    /// \param place  Which sequence: the upper three words of the counter of its blocks.
    RandomWords(std::array<std::uint32_t, 2> key, std::array<std::uint32_t, 3> place)
        : key_{key}, counter_{0, place[0], place[1], place[2]} {}

    /// The next 32 bits.
    [[nodiscard]] std::uint32_t operator()() {
        if (used_ == block_.size()) {
            block_ = philox4x32_10(counter_, key_);
            ++counter_[0];
            used_ = 0;
        }
        return block_[used_++];
    }

    /// Uniform on 0, ..., bound - 1, exactly: words that would favour some numbers are rejected.
    /// \param bound   At least 1.
    /// \complexity    Less than two words on average, whatever the bound.
    /// \source        Lemire 2019, "Fast Random Integer Generation in an Interval".
    [[nodiscard]] std::uint32_t below(std::uint32_t bound) {
        std::uint64_t product = std::uint64_t{(*this)()} * bound;
        if (static_cast<std::uint32_t>(product) < bound) {
            const std::uint32_t surplus = (0 - bound) % bound;
            while (static_cast<std::uint32_t>(product) < surplus)
                product = std::uint64_t{(*this)()} * bound;
        }
        return static_cast<std::uint32_t>(product >> 32);
    }

private:
    std::array<std::uint32_t, 2> key_;
    std::array<std::uint32_t, 4> counter_;
    std::array<std::uint32_t, 4> block_{};
    std::size_t used_ = 4;
};

}  // namespace stochastic_depth::detail
