// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include <stochastic_depth/numerics/sort_by_key.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>

namespace stochastic_depth::detail {

/// The distinct ones among some masks, so sorted that masks with a common prefix stand together,
/// those that keep the next layer first. What a mask says of layers inside a skipped one is
/// ignored.
class SortedMasks {
public:
    /// \param enclosing  For each layer the innermost skippable layer around it; -1: none.
    SortedMasks(const std::vector<Index>& enclosing, const SurvivalMasks& masks)
        : words_((enclosing.size() + 63) / 64) {
        const auto count = static_cast<std::size_t>(masks.batch_size());
        std::vector<std::uint64_t> bits(count * words_);
        for (std::size_t l = 0; l < enclosing.size(); ++l)
            for (std::size_t j = 0; j < count; ++j) {
                std::uint64_t* const mask = bits.data() + j * words_;
                if (masks(static_cast<Index>(l), static_cast<Index>(j)) &&
                    (enclosing[l] < 0 || bit(mask, static_cast<std::size_t>(enclosing[l]))))
                    mask[l / 64] |= std::uint64_t{1} << (63 - l % 64);
            }
        // By the last word first, and then by those before it, which keeps the order among equals.
        std::vector<std::size_t> order(count), order_before(count);
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::vector<KeyedNumber> keyed(count);
        for (std::size_t w = words_; w-- > 0;) {
            order.swap(order_before);
            for (std::size_t k = 0; k < count; ++k)
                keyed[k] = {~bits[order_before[k] * words_ + w], k};
            sort_by_key(keyed);
            for (std::size_t k = 0; k < count; ++k) order[k] = order_before[keyed[k].second];
        }
        place_.resize(count);
        for (std::size_t k = 0; k < count; ++k) {
            const std::uint64_t* const mask = bits.data() + order[k] * words_;
            if (k == 0 || !std::equal(mask, mask + words_, bits.data() + order[k - 1] * words_)) {
                bits_.insert(bits_.end(), mask, mask + words_);
                ++size_;
            }
            place_[order[k]] = size_ - 1;
        }
    }

    /// Number of distinct masks.
    [[nodiscard]] Index size() const { return size_; }

    /// Where the mask that was given as number j stands.
    [[nodiscard]] Index place(Index j) const { return place_[static_cast<std::size_t>(j)]; }

    /// s_l of the k-th mask.
    [[nodiscard]] bool keeps(Index k, Index l) const {
        return bit(bits_.data() + static_cast<std::size_t>(k) * words_,
                   static_cast<std::size_t>(l));
    }

    /// Layer evaluations if each prefix that masks share runs once.
    [[nodiscard]] double layer_evaluations() const {
        double count = 0;
        for (std::size_t k = 0; k < static_cast<std::size_t>(size_); ++k) {
            const std::uint64_t* const mask = bits_.data() + k * words_;
            bool shared = k > 0;
            for (std::size_t w = 0; w < words_; ++w) {
                std::uint64_t fresh = mask[w];
                if (shared) {
                    const std::uint64_t differences = mask[w] ^ (mask - words_)[w];
                    shared = differences == 0;
                    fresh =
                        shared ? 0 : fresh & (~std::uint64_t{0} >> std::countl_zero(differences));
                }
                count += std::popcount(fresh);
            }
        }
        return count;
    }

private:
    static bool bit(const std::uint64_t* mask, std::size_t l) {
        return (mask[l / 64] >> (63 - l % 64)) & 1u;
    }

    /// Words for each mask; layer 0 is the most significant bit of the first.
    std::size_t words_;
    std::vector<std::uint64_t> bits_;
    std::vector<Index> place_;
    Index size_ = 0;
};

}  // namespace stochastic_depth::detail
