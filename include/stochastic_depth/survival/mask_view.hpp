// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>

/// What a network hands down to its layers: the mask from the layer's own place on.
namespace stochastic_depth::detail {

/// One mask for the whole batch, or one for each sample, from layer `first` on. Where an outer
/// layer has left samples out, column j of the batch is sample samples[j].
class MaskView {
public:
    explicit MaskView(const SurvivalMask& mask) : mask_(&mask) {}
    explicit MaskView(const SurvivalMasks& masks) : masks_(&masks) {}

    /// The view of the layer that stands `layers` further on.
    [[nodiscard]] MaskView from(Index layers) const {
        MaskView view = *this;
        view.first_ += layers;
        return view;
    }

    /// The view of the batch that is left: its column k is sample samples[k].
    [[nodiscard]] MaskView with(const Index* samples) const {
        MaskView view = *this;
        view.samples_ = samples;
        return view;
    }

    [[nodiscard]] Index sample(Index column) const { return samples_ ? samples_[column] : column; }

    /// Whether one bit decides for all columns: the answer of keeps(0).
    [[nodiscard]] bool is_one_for_all() const { return mask_ != nullptr; }

    /// Whether a column keeps the layer at hand.
    [[nodiscard]] bool keeps(Index column) const {
        return mask_ ? (*mask_)[first_] : (*masks_)(first_, sample(column));
    }

    /// Lists the columns that keep the layer at hand, in order, and returns their number.
    Index list_survivors(Index columns, Index* survivors) const {
        Index count = 0;
        if (mask_ || samples_) {
            for (Index j = 0; j < columns; ++j)
                if (keeps(j)) survivors[count++] = j;
            return count;
        }
        Index begin = 0;
        for (std::uint64_t word : masks_->words(first_)) {
            for (; word != 0; word &= word - 1) survivors[count++] = begin + std::countr_zero(word);
            begin += 64;
        }
        return count;
    }

private:
    const SurvivalMask* mask_ = nullptr;
    const SurvivalMasks* masks_ = nullptr;
    Index first_ = 0;
    const Index* samples_ = nullptr;
};

template <class Network>
void check_mask(std::string_view name, const Network& network, const SurvivalMask& mask) {
    if (mask.size() != network.depth())
        refuse(name, ": mask must have ", network.depth(), " layers, got ", mask.size());
}

template <class Network>
void check_masks(std::string_view name, const Network& network, const SurvivalMasks& masks,
                 Index batch) {
    if (masks.depth() != network.depth())
        refuse(name, ": masks must have ", network.depth(), " layers, got ", masks.depth());
    if (masks.batch_size() != batch)
        refuse(name, ": masks must be for ", batch, " samples, got ", masks.batch_size());
}

}  // namespace stochastic_depth::detail
