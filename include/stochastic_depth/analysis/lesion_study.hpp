// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/pass/work.hpp>
#include <stochastic_depth/threads/parallel.hpp>

namespace stochastic_depth {

struct LesionStudyOptions {
    /// The layers from the one to keep longest to the one to give up first, each once; empty: by
    /// the score that the network has without them, the worst first (of equal ones the earlier
    /// layer).
    std::vector<Index> ranking = {};
    /// Threads to share each forward pass, at least 1; no more begin than find enough to do. The
    /// result has the same bits for any number.
    unsigned threads = 1;
};

/// Scores of a network with layers cut out.
struct LesionStudy {
    /// Of the whole network.
    double full_score = 0;
    /// Of the network without layer l, [L].
    Eigen::VectorXd score_without;
    /// The order in which the curve keeps layers, L entries.
    std::vector<Index> ranking;
    /// curve(k): with the first k layers of the ranking kept and the others skipped, [L + 1].
    Eigen::VectorXd curve;
};

/// What a network is worth without some of its layers: each skippable layer removed alone, and the
/// k best layers kept for k = 0, ..., L.
///
/// A removed layer is one that the mask skips, whatever its survival probability; it takes the
/// layers inside it along. Layers that look worthless alone may stand in for each other: a ranking
/// by Shapley values sees that, the one by removal does not.
///
/// \param network  L skippable layers.
/// \param x        Inputs, [features x batch].
/// \param score    score(outputs) with outputs [outputs x batch], a number, the higher the better:
///                 accuracy on a labelled set, say, or minus a loss. Called on the caller's thread
///                 alone.
/// \throws std::invalid_argument  if threads is 0, ranking no order of the L layers, a score NaN,
///                                or the network cannot take x.
/// \complexity     2 L masked forward passes and scores; one for L = 0.
/// \source         Veit, Wilber & Belongie 2016, Residual Networks Behave Like Ensembles of
///                 Relatively Shallow Networks: the lesion study.
template <MaskedNetwork Network, class Score>
    requires(std::is_invocable_r_v<double, const Score&, const Matrix<typename Network::Scalar>&>)
[[nodiscard]] LesionStudy lesion_study(const Network& network,
                                       const ConstMatrixRef<typename Network::Scalar>& x,
                                       const Score& score, const LesionStudyOptions& options = {}) {
    const Index depth = network.depth();
    if (options.threads < 1) detail::refuse("lesion_study: threads must be at least 1, got 0");
    if (!options.ranking.empty()) {
        if (static_cast<Index>(options.ranking.size()) != depth)
            detail::refuse("lesion_study: ranking must have one entry for each of ", depth,
                           " layers, got ", options.ranking.size());
        std::vector<bool> ranked(options.ranking.size(), false);
        for (const Index layer : options.ranking) {
            if (!(layer >= 0 && layer < depth))
                detail::refuse("lesion_study: ranking must hold layers in [0, ", depth, "), got ",
                               layer);
            if (ranked[static_cast<std::size_t>(layer)])
                detail::refuse("lesion_study: ranking must hold each layer once, got ", layer,
                               " twice");
            ranked[static_cast<std::size_t>(layer)] = true;
        }
    }

    Matrix<typename Network::Scalar> outputs(network.output_size(x.rows()), x.cols());
    constexpr Index block_columns = 96;
    const auto score_under = [&](const SurvivalMask& mask) {
        const unsigned threads = detail::threads_for(
            network, x.rows(), x.cols(), static_cast<double>(mask.count()), options.threads);
        detail::parallel_blocks(
            x.cols(), block_columns, threads, [&](Index first, Index columns) {
                masked_forward(network, x.middleCols(first, columns), mask,
                               outputs.middleCols(first, columns));
            });
        const double value = score(std::as_const(outputs));
        if (!(value == value)) detail::refuse("lesion_study: score must be a number, got ", value);
        return value;
    };

    LesionStudy study;
    study.full_score = score_under(SurvivalMask::all(depth));
    study.score_without.resize(depth);
    for (Index l = 0; l < depth; ++l) {
        SurvivalMask mask = SurvivalMask::all(depth);
        mask.skip(l);
        study.score_without(l) = score_under(mask);
    }
    study.ranking = options.ranking;
    if (study.ranking.empty()) {
        study.ranking.resize(static_cast<std::size_t>(depth));
        std::iota(study.ranking.begin(), study.ranking.end(), Index{0});
        std::stable_sort(study.ranking.begin(), study.ranking.end(), [&](Index a, Index b) {
            return study.score_without(a) < study.score_without(b);
        });
    }
    study.curve.resize(depth + 1);
    study.curve(depth) = study.full_score;
    SurvivalMask mask = SurvivalMask::none(depth);
    for (Index k = 0; k < depth; ++k) {
        // All layers but the last of the ranking: that score is known.
        const Index last = study.ranking.back();
        study.curve(k) = k + 1 == depth ? study.score_without(last) : score_under(mask);
        mask.keep(study.ranking[static_cast<std::size_t>(k)]);
    }
    return study;
}

}  // namespace stochastic_depth
