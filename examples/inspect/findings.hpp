// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <stochastic_depth/analysis/best_subnetworks.hpp>
#include <stochastic_depth/expectation/certified_interval.hpp>
#include <stochastic_depth/expectation/expectation_result.hpp>

#include "question.hpp"

namespace inspect {

/// How far outputs are from what they should be, means over the inputs; none where nobody says what
/// they should be.
struct Score {
    std::optional<double> error = std::nullopt;                    // of a classifier
    std::optional<double> negative_log_likelihood = std::nullopt;  // of a classifier
    std::optional<double> squared_error = std::nullopt;
};

/// A rule for using the network, beside the mean over the masks.
struct Rule {
    std::string name;
    sd::Matrix<float> outputs;  // [outputs x batch]
    /// Mean and largest distance of an output from the mean over the masks.
    double mean_gap = 0;
    double largest_gap = 0;
    Score score = {};
};

/// What the masks answer together.
struct Ensemble {
    sd::ExpectationResult<float> moments;
    Score score = {};
    std::vector<Rule> rules = {};  // full depth, weight scaling
    /// Of a classifier, [batch], in nats; else empty.
    sd::Vector<float> predictive_entropy = {}, expected_entropy = {}, mutual_information = {};
    std::optional<sd::CertifiedBounds> bounds = std::nullopt;
};

/// What one skippable layer does.
struct LayerRow {
    std::string path;
    double survival_probability = 1;
    double sensitivity = 0;
    double shapley = 0;
    /// Standard errors are at most these; 0 where the figure is exact.
    double sensitivity_error = 0;
    double shapley_error = 0;
};

struct LayerFindings {
    std::string judged_by;  // "the probability of the label"
    std::vector<LayerRow> layers = {};
    double sensitivity_evaluations = 0;
    double shapley_evaluations = 0;
};

struct Subnetworks {
    std::string judged_by;  // of which less is better
    std::optional<sd::BestSubnetworks> found = std::nullopt;
    std::vector<Score> scores = {};  // of found->by_size
    std::string skipped = {};        // why nothing was found
};

[[nodiscard]] Ensemble ask_ensemble(const Question& question, const Options& options,
                                    common::Progress& progress);

[[nodiscard]] LayerFindings ask_layers(const Question& question, const Ensemble& ensemble,
                                       const Options& options, common::Progress& progress);

[[nodiscard]] Subnetworks ask_subnetworks(const Question& question, const Ensemble& ensemble,
                                          const Options& options, common::Progress& progress);

/// \param outputs  [outputs x batch].
[[nodiscard]] Score score_of(const Question& question, const sd::ConstMatrixRef<float>& outputs);

}  // namespace inspect
