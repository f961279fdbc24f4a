// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/evaluations.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/reached_layers.hpp>
#include <stochastic_depth/survival/any_mask_law.hpp>
#include <stochastic_depth/survival/fixed_size_mask_sampler.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/survival/scaling.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>
#include <stochastic_depth/training/step_options.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The masks of a TrainingStep: how they are drawn, and how many evaluations of layers are expected of
/// them. Drawing allocates nothing once warmed.
class StepMasks {
public:
    /// \throws std::invalid_argument  for inverted scaling of a skippable layer that is no Residual;
    ///                                for a law of another depth, or with MaskScope::subset.
    template <class Network>
    StepMasks(const Network& network, const TrainingStepOptions& options)
        : scope_(options.mask_scope),
          seed_(options.seed),
          sampler_(network.survival_probabilities(), seed_),
          subsets_(sampler_.survival_probabilities(), seed_),
          mask_(SurvivalMask::none(sampler_.depth())),
          evaluations_(network),
          expected_evaluations_(evaluations_.expected(sampler_.survival_probabilities())) {
        if (options.scaling == Scaling::inverted && skips_more_than_branches(network))
            refuse(
                "TrainingStep: scaling must be Scaling::none for a network that skips layers other "
                "than Residual, got Scaling::inverted");
        if (options.law) take_law(network, options.law);
    }

    [[nodiscard]] Index depth() const { return sampler_.depth(); }

    /// Of layers that are reached.
    [[nodiscard]] const Eigen::VectorXd& survival_probabilities() const {
        return law_ ? reached_.survival_probabilities : sampler_.survival_probabilities();
    }

    /// \throws std::invalid_argument  unless there is one in (0, 1] for each layer; under a law.
    void set_survival_probabilities(const Eigen::VectorXd& p) {
        if (law_)
            refuse("TrainingStep: survival probabilities must be left to options.law, got ",
                   p.size());
        if (p.size() != depth())
            refuse("TrainingStep: survival probabilities must be ", depth(), ", got ", p.size());
        if (p == survival_probabilities()) return;
        sampler_ = MaskSampler(p, seed_);
        subsets_ = FixedSizeMaskSampler(p, seed_);
        expected_evaluations_ = evaluations_.expected(p);
    }

    /// Returns use(masks) of those of step t: one mask, or one for each sample of the whole batch.
    template <class Use>
    auto draw(std::uint64_t t, Index batch, const Use& use) {
        if (scope_ == MaskScope::batch) {
            if (law_)
                law_->sample_one(t, mask_);
            else
                sampler_.sample(t, mask_);
            return use(std::as_const(mask_));
        }
        masks_.resize(depth(), batch);
        if (law_)
            law_->sample_each(t, masks_);
        else if (scope_ == MaskScope::sample)
            sampler_.sample(t, masks_);
        else
            subsets_.sample(t, masks_);
        return use(std::as_const(masks_));
    }

    /// The evaluations that are expected of so many samples.
    [[nodiscard]] double expected_evaluations(Index samples) const {
        return static_cast<double>(samples) * expected_evaluations_;
    }

private:
    template <class Network>
    void take_law(const Network& network, const AnyMaskLaw& law) {
        if (scope_ == MaskScope::subset)
            refuse(
                "TrainingStep: mask_scope must be MaskScope::batch or MaskScope::sample under a "
                "law, got MaskScope::subset, which takes layers one by one");
        law_ = law.with_seed(seed_);
        if (law_->marginals.size() != depth())
            refuse("TrainingStep: law must have ", depth(), " layers, got ",
                   law_->marginals.size());
        reached_ = reached_layers(network, *law_);
        expected_evaluations_ = reached_.evaluations;
    }

    MaskScope scope_;
    std::uint64_t seed_;
    MaskSampler sampler_;
    FixedSizeMaskSampler subsets_;
    std::optional<ErasedLaw> law_;
    ReachedLayers reached_;  ///< under the law
    SurvivalMask mask_;
    SurvivalMasks masks_;
    EvaluationsUnderMasks evaluations_;
    double expected_evaluations_;  ///< for a sample
};

}  // namespace stochastic_depth::detail
