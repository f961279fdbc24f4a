// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/survival/scaling.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>

/// What a network hands down to its layers: the mask from the layer's own place on, and where in
/// the network, the batch and the training that is.
namespace stochastic_depth::detail {

/// How layers that keep running statistics take those of a step over.
enum class StatisticsUpdate {
    moving,     ///< With the share that the layer's options say.
    cumulative  ///< All steps with one record count alike, by their samples.
};

/// What a training step says beside its masks.
struct StepContext {
    Scaling scaling = Scaling::none;
    /// p_l of this step, of all layers; null: the network's own.
    const double* survival_probabilities = nullptr;
    /// What other random decisions of the step are a function of, beside the sample and the layer.
    std::uint64_t seed = 0;
    std::uint64_t step = 0;
    /// The number of the batch's first sample, where it is a part of a larger one.
    Index first_sample = 0;
    StatisticsUpdate statistics = StatisticsUpdate::moving;
};

/// The mask of a pass in which every layer runs.
struct EveryLayer {
    static constexpr bool takes_means = false;
    [[nodiscard]] constexpr EveryLayer inside() const { return {}; }
    template <class Layer>
    [[nodiscard]] constexpr EveryLayer behind(const Layer&) const {
        return {};
    }
    [[nodiscard]] constexpr EveryLayer of_samples(const Index*) const { return {}; }
    [[nodiscard]] constexpr bool renumbers() const { return false; }
    [[nodiscard]] constexpr Index sample(Index column) const { return column; }
    [[nodiscard]] constexpr bool is_one_for_all() const { return true; }
    [[nodiscard]] constexpr bool keeps(Index) const { return true; }
    [[nodiscard]] constexpr Index list_survivors(Index columns, Index*) const { return columns; }
    [[nodiscard]] constexpr double scale(double) const { return 1; }
    [[nodiscard]] constexpr const StepContext* step() const { return nullptr; }
    [[nodiscard]] constexpr Index random_layer() const { return 0; }
};

/// The "mask" S = p of weight scaling: each skippable layer is replaced by its mean given its
/// input, which is p times its branch, added to its shortcut.
class MeanOfMasks : public EveryLayer {
public:
    static constexpr bool takes_means = true;

    /// \param p  Of the layers from this one on, where they are reached, one of p = 0 being skipped;
    ///           null: the layers' own.
    explicit constexpr MeanOfMasks(const double* p = nullptr) : p_(p) {}

    [[nodiscard]] constexpr MeanOfMasks inside() const {
        return MeanOfMasks(p_ ? p_ + 1 : nullptr);
    }
    template <class Layer>
    [[nodiscard]] MeanOfMasks behind(const Layer& layer) const {
        return MeanOfMasks(p_ ? p_ + depth(layer) : nullptr);
    }
    [[nodiscard]] constexpr MeanOfMasks of_samples(const Index*) const { return *this; }
    [[nodiscard]] constexpr bool keeps(Index) const { return !p_ || *p_ > 0; }
    [[nodiscard]] constexpr double scale(double p) const { return p_ ? *p_ : p; }

private:
    const double* p_;
};

/// One mask for the whole batch, or one for each sample, from layer `first` on. Where an outer
/// layer has left samples out, column j of the batch is sample samples[j].
class MaskView {
public:
    static constexpr bool takes_means = false;

    /// \param step  Null outside of training; read as long as the view is used.
    explicit MaskView(const SurvivalMask& mask, const StepContext* step = nullptr)
        : mask_(&mask), step_(step) {}
    explicit MaskView(const SurvivalMasks& masks, const StepContext* step = nullptr)
        : masks_(&masks), step_(step) {}

    /// The view of what is inside the skippable layer at hand.
    [[nodiscard]] MaskView inside() const {
        MaskView view = *this;
        ++view.first_;
        return view;
    }

    /// The view of what follows a layer that begins at this place.
    template <class Layer>
    [[nodiscard]] MaskView behind(const Layer& layer) const {
        MaskView view = *this;
        view.first_ += depth(layer);
        view.random_layer_ += random_layers(layer);
        return view;
    }

    /// The view of the batch that is left: its column k is sample samples[k].
    [[nodiscard]] MaskView of_samples(const Index* samples) const {
        MaskView view = *this;
        view.samples_ = samples;
        return view;
    }

    /// Whether columns have other numbers than their samples.
    [[nodiscard]] bool renumbers() const { return samples_ != nullptr; }
    [[nodiscard]] Index sample(Index column) const { return samples_ ? samples_[column] : column; }

    /// Whether one bit decides for all columns: the answer of keeps(0).
    [[nodiscard]] bool is_one_for_all() const { return mask_ != nullptr; }

    /// Whether a column keeps the layer at hand.
    [[nodiscard]] bool keeps(Index column) const {
        return mask_ ? (*mask_)[first_] : (*masks_)(first_, sample(column));
    }

    /// The training step that this mask is for; null: the network is only evaluated.
    [[nodiscard]] const StepContext* step() const { return step_; }

    /// Which of the network's layers that draw random numbers of their own is at hand.
    [[nodiscard]] Index random_layer() const { return random_layer_; }

    /// What the branch of the layer at hand is multiplied by where it is kept.
    /// \param p  The layer's own survival probability.
    [[nodiscard]] double scale(double p) const {
        if (!step_ || step_->scaling == Scaling::none) return 1;
        return 1 / (step_->survival_probabilities ? step_->survival_probabilities[first_] : p);
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
    const StepContext* step_ = nullptr;
    Index first_ = 0;
    Index random_layer_ = 0;
    const Index* samples_ = nullptr;
};

/// Refuses a mask of another depth than the network's, and masks of another batch.
template <class Network>
void check_mask(std::string_view name, const Network& network, const SurvivalMask& mask,
                [[maybe_unused]] Index batch) {
    if (mask.size() != network.depth())
        refuse(name, ": mask must have ", network.depth(), " layers, got ", mask.size());
}
template <class Network>
void check_mask(std::string_view name, const Network& network, const SurvivalMasks& masks,
                Index batch) {
    if (masks.depth() != network.depth())
        refuse(name, ": masks must have ", network.depth(), " layers, got ", masks.depth());
    if (masks.batch_size() != batch)
        refuse(name, ": masks must be for ", batch, " samples, got ", masks.batch_size());
}

}  // namespace stochastic_depth::detail
