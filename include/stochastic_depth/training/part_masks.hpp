// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/pass/evaluations.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>
#include <stochastic_depth/training/step_options.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The masks of some samples of a step, and how many evaluations of layers they come to. Allocates
/// nothing once warmed.
class PartMasks {
public:
    template <class Network>
    explicit PartMasks(const Network& network) : evaluations_(network) {}

    /// Those of so many samples from `first` on, until the next call.
    [[nodiscard]] const SurvivalMask& of(const SurvivalMask& mask, Index, Index) { return mask; }
    [[nodiscard]] const SurvivalMasks& of(const SurvivalMasks& masks, Index first, Index samples) {
        if (samples == masks.batch_size()) return masks;
        part_masks_.resize(masks.depth(), samples);
        for (Index l = 0; l < masks.depth(); ++l)
            for (Index j = 0; j < samples; ++j)
                if (masks(l, first + j)) part_masks_.keep(l, j);
        return part_masks_;
    }

    /// What the masks come to, of a ledger its evaluations but those expected; a single one stands
    /// for all samples.
    [[nodiscard]] StepLedger count(const SurvivalMask& mask, Index samples) {
        one_mask_.resize(mask.size(), 1);
        one_mask_.set_mask(0, mask);
        StepLedger ledger = count(one_mask_, samples);
        ledger.layer_evaluations *= static_cast<double>(samples);
        return ledger;
    }
    [[nodiscard]] StepLedger count(const SurvivalMasks& masks, Index samples) {
        StepLedger ledger;
        ledger.layer_evaluations = evaluations_(masks);
        ledger.full_depth_evaluations =
            static_cast<double>(samples) * static_cast<double>(masks.depth());
        return ledger;
    }

private:
    SurvivalMasks part_masks_, one_mask_;
    EvaluationsUnderMasks evaluations_;
};

}  // namespace stochastic_depth::detail
