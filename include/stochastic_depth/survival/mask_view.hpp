// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>

/// What a network hands down to its layers: the mask from the layer's own place on.
namespace stochastic_depth::detail {

/// One mask for the whole batch, from layer `first` on.
struct MaskOfBatch {
    const SurvivalMask& mask;
    Index first = 0;

    [[nodiscard]] MaskOfBatch from(Index layers) const { return {mask, first + layers}; }
    /// The same mask for any selection of columns.
    [[nodiscard]] MaskOfBatch with(const Index*) const { return *this; }
    [[nodiscard]] Index sample(Index column) const { return column; }
    [[nodiscard]] bool keeps(Index) const { return mask[first]; }
};

/// One mask for each sample, from layer `first` on. Where an outer layer has left samples out, column j of
/// the batch is sample samples[j]; null: sample j.
struct MaskOfSample {
    const SurvivalMasks& masks;
    Index first = 0;
    const Index* samples = nullptr;

    [[nodiscard]] MaskOfSample from(Index layers) const { return {masks, first + layers, samples}; }
    [[nodiscard]] MaskOfSample with(const Index* survivors) const { return {masks, first, survivors}; }
    [[nodiscard]] Index sample(Index column) const { return samples ? samples[column] : column; }

    [[nodiscard]] bool keeps(Index column) const { return masks(first, sample(column)); }

    /// Lists the columns that keep layer `first`, in order, and returns their number.
    Index list_survivors(Index columns, Index* survivors) const {
        Index count = 0;
        if (samples) {
            for (Index j = 0; j < columns; ++j)
                if (masks(first, samples[j])) survivors[count++] = j;
            return count;
        }
        Index begin = 0;
        for (std::uint64_t word : masks.words(first)) {
            for (; word != 0; word &= word - 1) survivors[count++] = begin + std::countr_zero(word);
            begin += 64;
        }
        return count;
    }
};

template <class Network>
void check_mask(std::string_view name, const Network& network, const SurvivalMask& mask) {
    if (mask.size() != network.depth())
        refuse(name, ": mask must have ", network.depth(), " layers, got ", mask.size());
}

template <class Network>
void check_masks(std::string_view name, const Network& network, const SurvivalMasks& masks, Index batch) {
    if (masks.depth() != network.depth())
        refuse(name, ": masks must have ", network.depth(), " layers, got ", masks.depth());
    if (masks.batch_size() != batch)
        refuse(name, ": masks must be for ", batch, " samples, got ", masks.batch_size());
}

}  // namespace stochastic_depth::detail
