// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/memory/tape.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/pass/run.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/survival/scaling.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>
#include <stochastic_depth/threads/thread_team.hpp>

namespace stochastic_depth {

struct RecalibrationOptions {
    /// Samples of a batch, at least 2.
    Index batch_size = 256;
    /// As the network was trained.
    Scaling scaling = Scaling::none;
    /// Fixes the survival masks, one for each sample.
    std::uint64_t seed = 0;
    /// At least 1, the caller's among them. Their number changes no bit.
    unsigned threads = 1;
};

/// Sets the running statistics of a network's BatchNorm layers anew: one pass over the data as in
/// training, under survival masks drawn with the network's own probabilities, in which the running
/// statistics become the averages of the batches' ones, each weighted by the samples that reached
/// the layer.
///
/// To be called when the weights have changed without their statistics: after averaging weights,
/// or with other survival probabilities than in training. Batches of which one sample reaches a
/// layer don't count there, and a layer that none reaches keeps its statistics.
///
/// \param network  Only running statistics change.
/// \param x        [features x samples], at least 2 samples.
/// \throws std::invalid_argument  if an option or x lie outside their ranges, or the network cannot
///                                take x; the network is unchanged then.
/// \complexity     One forward pass.
/// \source Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization,
///         section 3.2, recomputes the statistics of averaged weights so.
template <MaskedNetwork Network>
    requires(DifferentiableLayer<Network>)
void recalibrate(Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
                 RecalibrationOptions options = {}) {
    if (options.batch_size < 2)
        detail::refuse("recalibrate: batch_size must be at least 2, got ", options.batch_size);
    if (options.threads < 1) detail::refuse("recalibrate: threads must be at least 1, got 0");
    if (x.cols() < 2) detail::refuse("recalibrate: x must have at least 2 columns, got ", x.cols());
    (void)network.output_size(x.rows());
    const MaskSampler sampler(network.survival_probabilities(), options.seed);
    const detail::ThreadTeam team(options.threads);
    detail::Tape tape;
    detail::RecordOf<Network, detail::Records> record;
    detail::begin_statistics(network);
    std::uint64_t batch = 0;
    for (Index first = 0; first < x.cols(); first += options.batch_size, ++batch) {
        const Index count = std::min(options.batch_size, x.cols() - first);
        const SurvivalMasks masks = sampler.sample(batch, count);
        detail::StepContext draw;
        draw.scaling = options.scaling;
        draw.seed = options.seed;
        draw.step = batch;
        draw.statistics = detail::StatisticsUpdate::cumulative;
        tape.clear();
        detail::Batch<typename Network::Scalar, detail::Records> pass(
            team, tape, detail::const_view(x.middleCols(first, count)));
        detail::run(network, pass, record, detail::MaskView{masks, &draw});
        detail::update_statistics(network, record);
    }
}

}  // namespace stochastic_depth
