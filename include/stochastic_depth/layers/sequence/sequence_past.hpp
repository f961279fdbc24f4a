// SPDX-License-Identifier: MIT
#pragma once

#include <utility>
#include <vector>

#include <stochastic_depth/layers/sequence/key_value_cache.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>

namespace stochastic_depth::detail {

/// What a pass finds of the positions that earlier ones have been through: how many of each
/// sequence, and what causal attentions remember of them.
template <class Scalar>
class SequencePast {
public:
    explicit SequencePast(Index sequences)
        : positions_(static_cast<std::size_t>(sequences), Index{0}) {}

    [[nodiscard]] Index sequences() const { return static_cast<Index>(positions_.size()); }
    [[nodiscard]] Index positions(Index sequence) const {
        return positions_[static_cast<std::size_t>(sequence)];
    }

    /// Of a layer, by its address.
    [[nodiscard]] KeyValueCache<Scalar>& cache_of(const void* layer, Index width) {
        for (auto& [of, cache] : caches_)
            if (of == layer) return cache;
        return caches_.emplace_back(layer, KeyValueCache<Scalar>{sequences(), width}).second;
    }

    /// After a pass: the sequence has so many positions more. What was remembered of padding goes.
    void advance(Index sequence, Index count) {
        Index& now = positions_[static_cast<std::size_t>(sequence)];
        now += count;
        for (auto& [of, cache] : caches_)
            if (cache.length(sequence) > now) cache.truncate(sequence, now);
    }
    /// After a pass that has failed: as before it.
    void forget_pass() {
        for (Index j = 0; j < sequences(); ++j) advance(j, 0);
    }

private:
    std::vector<Index> positions_;
    std::vector<std::pair<const void*, KeyValueCache<Scalar>>> caches_;
};

/// One mask for all sequences of a pass that goes on where earlier ones have ended.
template <class Scalar>
class MaskWithPast : public EveryLayer {
public:
    MaskWithPast(const SurvivalMask& mask, SequencePast<Scalar>& past)
        : mask_(&mask), past_(&past) {}

    [[nodiscard]] MaskWithPast inside() const {
        MaskWithPast view = *this;
        ++view.first_;
        return view;
    }
    template <class Layer>
    [[nodiscard]] MaskWithPast behind(const Layer& layer) const {
        MaskWithPast view = *this;
        view.first_ += depth(layer);
        return view;
    }
    [[nodiscard]] MaskWithPast of_samples(const Index*) const { return *this; }
    [[nodiscard]] bool keeps(Index) const { return (*mask_)[first_]; }
    [[nodiscard]] SequencePast<Scalar>& past() const { return *past_; }

private:
    const SurvivalMask* mask_;
    SequencePast<Scalar>* past_;
    Index first_ = 0;
};

/// Whether a pass goes on where earlier ones have ended.
template <class Mask>
concept HasPast = requires(const Mask& mask) { mask.past(); };

}  // namespace stochastic_depth::detail
