// SPDX-License-Identifier: MIT
#include <algorithm>
#include <functional>
#include <stdexcept>
#include <string>

#include <stochastic_depth/analysis/best_subnetworks.hpp>
#include <stochastic_depth/analysis/subnetwork_search.hpp>

#include "findings.hpp"

namespace inspect {
namespace {

/// The masks that a beam keeps of each size, for no more evaluations than the budget allows.
sd::Index beam_width(double budget, sd::Index depth) {
    const auto layers = static_cast<double>(depth);
    // One that is kept loses each of its layers in turn, at every size.
    const double of_one = (layers * layers * layers - layers) / 3 + layers;
    return static_cast<sd::Index>(std::clamp(budget / of_one, 1.0, 64.0));
}

}  // namespace

Subnetworks ask_subnetworks(const Question& question, const Ensemble& ensemble,
                            const Options& options, common::Progress& progress) {
    Subnetworks subnetworks{.judged_by = question.labels    ? "negative log-likelihood"
                                         : question.targets ? "mean squared error"
                                                            : "squared distance from the mean over "
                                                              "the masks"};
    const sd::Matrix<float>& mean = ensemble.moments.mean;
    const std::function<double(const sd::ConstMatrixRef<float>&)> score =
        [&](const sd::ConstMatrixRef<float>& outputs) {
            if (!question.labels && !question.targets)
                return -(outputs.cast<double>() - mean.cast<double>()).squaredNorm() /
                       static_cast<double>(mean.size());
            const Score of = score_of(question, outputs);
            return -(of.negative_log_likelihood ? *of.negative_log_likelihood : *of.squared_error);
        };
    const auto tell = [&](double done) {
        progress.now("best sub-networks: " + common::fixed(100 * done, 0) + " %");
        return true;
    };
    (void)tell(0);
    const sd::BestSubnetworksOptions search{
        .threads = options.threads, .max_layer_evaluations = options.budget, .progress = tell};
    try {
        subnetworks.found = sd::best_subnetworks(question.asked, question.x, score, search);
    } catch (const std::length_error&) {
        try {
            const auto budget = static_cast<double>(options.budget);
            subnetworks.found = sd::beam_search_subnetworks(
                question.asked, question.x, score, beam_width(budget, question.depth()), search);
        } catch (const std::length_error& refusal) {
            subnetworks.skipped = std::string(refusal.what()) + " (here it is --budget)";
            return subnetworks;
        }
    }
    for (const sd::Subnetwork& best : subnetworks.found->by_size)
        subnetworks.scores.push_back(score_of(question, question.asked(question.x, best.mask)));
    progress.done("best sub-networks: " + common::fixed(subnetworks.found->layer_evaluations, 0) +
                  " layer evaluations for each input");
    return subnetworks;
}

}  // namespace inspect
