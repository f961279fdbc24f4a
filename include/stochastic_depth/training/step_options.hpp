// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/any_mask_law.hpp>
#include <stochastic_depth/survival/scaling.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Who shares a survival mask in a training step.
enum class MaskScope {
    /// One mask for the whole batch.
    batch,
    /// One mask for each sample.
    sample,
    /// One mask for each sample, and of every layer the same number of samples in each step: equal
    /// work.
    subset,
};

struct TrainingStepOptions {
    MaskScope mask_scope = MaskScope::sample;
    Scaling scaling = Scaling::none;
    /// Fixes the masks.
    std::uint64_t seed = 0;
    /// At least 1, the caller's among them. Their number changes no bit.
    unsigned threads = 1;
    /// Where masks come from: none, independent layers with the network's survival probabilities; or
    /// a MaskLaw of the network's depth, for MaskScope::batch and ::sample.
    AnyMaskLaw law = {};
    /// A batch is cut into so many parts, each of which one thread computes alone, with a gradient of
    /// its own: with several threads faster than to share each layer's work, and of other bits. It is
    /// this number that they depend on, and layers that normalise take the statistics of a shard. 0:
    /// of TrainingStep 1, of DataParallel 8.
    Index shards = 0;
};

/// The part of a step's batch that a call is given. Samples keep the numbers, and so the masks, that
/// they have in the whole batch, and the parts' gradients and losses add up to the whole batch's.
struct BatchPart {
    /// The number of the first sample in the whole batch.
    Index first = 0;
    /// Samples of the whole batch; 0: what the call is given is the whole batch.
    Index of = 0;
};

namespace detail {

/// Returns the size of the whole batch.
/// \throws std::invalid_argument  unless a part of so many columns lies in it.
[[nodiscard]] inline Index check_part(const BatchPart& part, Index columns) {
    if (part.of == 0 && part.first == 0) return columns;
    if (part.first < 0 || part.of < 1 || part.first > part.of - columns)
        refuse("TrainingStep: part must lie in a batch of ", part.of, ", got ", columns,
               " samples from sample ", part.first, " on");
    return part.of;
}

}  // namespace detail

/// What a step came to.
struct StepLedger {
    /// Mean over the batch, under the masks of the step; of a part its share in that.
    double loss = 0;
    /// Evaluations of skippable layers, over all samples: expected (of given masks those done), done,
    /// and at full depth.
    double expected_layer_evaluations = 0;
    double layer_evaluations = 0;
    double full_depth_evaluations = 0;
    /// Of the masks, the forward pass and the loss; of the backward pass.
    double forward_seconds = 0;
    double backward_seconds = 0;
};

}  // namespace stochastic_depth
