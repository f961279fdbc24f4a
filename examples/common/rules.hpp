// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/analysis/classification.hpp>
#include <stochastic_depth/analysis/roc.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>
#include <stochastic_depth/expectation/options_within_budget.hpp>
#include <stochastic_depth/expectation/predictive_uncertainty.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/text/length_blocks.hpp>
#include <stochastic_depth/training/dataset.hpp>

#include "progress.hpp"
#include "text.hpp"

/// The rules for using a network that was trained with stochastic depth, side by side.
namespace common {

namespace sd = stochastic_depth;

/// What one rule came to on the test data.
struct Row {
    std::string rule = {};
    double layer_evaluations = 0;  // for each sample
    double error = 0;
    double negative_log_likelihood = 0;
    double calibration_error = 0;
    /// Mean over the samples of the L1 distance, in [0, 2], between the rule's class probabilities
    /// and the exact ones; none without the exact answer.
    std::optional<double> distance = std::nullopt;
    /// Area under the ROC of the mutual information of class and mask, wrong predictions being the
    /// positives; none for a rule of one mask, or where all predictions are right.
    std::optional<double> disagreement_auroc = std::nullopt;
    double seconds = 0;
    std::string skipped = {};  // why there are no figures; empty: there are
};

/// Every layer runs, as if none had been skipped in training.
struct FullDepth {
    template <sd::MaskedNetwork Network>
    [[nodiscard]] sd::ExpectationResult<float> operator()(
        const Network& network, const sd::ConstMatrixRef<float>& x) const {
        sd::ExpectationResult<float> result;
        result.mean = network(x, sd::SurvivalMask::all(network.depth()));
        result.layer_evaluations = static_cast<double>(network.depth());
        return result;
    }
};

/// What the samples are.
enum class Samples {
    images,
    /// Sequences of token ids, of which similarly long ones go through a rule together.
    texts,
};

struct EvaluationOptions {
    /// Plain Monte Carlo with so many masks, and the best estimate for as many layer evaluations.
    std::vector<sd::Index> masks = {10, 100};
    /// Layer evaluations for each sample that the exact expectation may take; 0: no such row.
    std::uint64_t exact_evaluations = 0;
    /// What to say behind the refusal of more.
    std::string hint = {};
    Samples samples = Samples::images;
    /// Samples that go through a rule in one call: of memory, and of progress. A sample's answer has
    /// the same bits in any batch.
    sd::Index samples_at_once = 1000;
    std::uint64_t seed = 0;
    unsigned threads = 1;
};

/// Answers with the class probabilities of all test data by each rule.
template <sd::MaskedNetwork Network>
class Evaluation {
public:
    Evaluation(const Network& network, const sd::Dataset<float>& test, EvaluationOptions options,
               Progress& progress)
        : network_(network), test_(test), options_(std::move(options)), progress_(progress) {}

    [[nodiscard]] std::vector<Row> run() {
        const Eigen::VectorXd p = network_.survival_probabilities();
        evaluate("full depth", FullDepth{}, Masks::one);
        evaluate("weight scaling", sd::WeightScaling{}, Masks::one);
        for (const sd::Index masks : options_.masks) {
            const std::string number = std::to_string(masks) + " masks";
            evaluate("Monte Carlo, " + number,
                     sd::MonteCarloExpectation{{.samples = masks,
                                                .seed = options_.seed,
                                                .threads = options_.threads}},
                     Masks::many);
            // As many layer evaluations as plain samples take when each mask runs by itself.
            auto best = sd::options_within_budget(
                std::max(static_cast<double>(masks) * p.sum(), 1.0), p, options_.seed);
            best.threads = options_.threads;
            evaluate("best sampled, as " + number, sd::MonteCarloExpectation{best}, Masks::many);
        }
        if (options_.exact_evaluations > 0) evaluate_exactly();
        return std::move(rows_);
    }

private:
    /// Whether a rule knows how far masks disagree.
    enum class Masks { one, many };

    void evaluate_exactly() {
        try {
            evaluate("exact expectation",
                     sd::ExactExpectation{{.threads = options_.threads,
                                           .max_layer_evaluations = options_.exact_evaluations}},
                     Masks::many);
            for (std::size_t i = 0; i < rows_.size(); ++i)
                rows_[i].distance =
                    (probabilities_[i] - probabilities_.back()).colwise().template lpNorm<1>().mean();
        } catch (const std::length_error& refusal) {
            rows_.push_back({.rule = "exact expectation", .skipped = refusal.what() + options_.hint});
        }
    }

    template <class Rule>
    void evaluate(const std::string& name, const Rule& rule, Masks masks) {
        const auto start = std::chrono::steady_clock::now();
        sd::Matrix<float> probabilities(test_.classes(), test_.size());
        sd::Vector<float> disagreement(test_.size());
        Row row{.rule = name};
        for_each_part([&](const sd::ConstMatrixRef<float>& inputs, sd::Index done,
                          const auto& sample_of) {
            progress_.now(name + ": " + std::to_string(done) + " of " +
                          std::to_string(test_.size()) + noun());
            const auto answer = sd::predictive_uncertainty(rule, network_, inputs);
            for (sd::Index j = 0; j < inputs.cols(); ++j) {
                probabilities.col(sample_of(j)) = answer.probabilities.col(j);
                disagreement(sample_of(j)) = answer.mutual_information(j);
            }
            row.layer_evaluations = answer.layer_evaluations;
        });
        row.seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        row.error = sd::error_rate(probabilities, test_.labels());
        row.negative_log_likelihood = sd::negative_log_likelihood(probabilities, test_.labels());
        row.calibration_error = sd::expected_calibration_error(probabilities, test_.labels());
        const double auroc = sd::area_under_roc(disagreement, wrong(probabilities));
        if (masks == Masks::many && !std::isnan(auroc)) row.disagreement_auroc = auroc;
        progress_.done(name + ": " + std::to_string(test_.size()) + noun() + " in " +
                       fixed(row.seconds, 2) + " s");
        rows_.push_back(std::move(row));
        probabilities_.push_back(std::move(probabilities));
    }

    /// Calls visit(inputs, done, sample_of) for parts of the test data, of which column j is sample
    /// sample_of(j); `done` samples went before.
    template <class Visit>
    void for_each_part(const Visit& visit) const {
        sd::Index done = 0;
        if (options_.samples == Samples::texts) {
            for (const auto& block : sd::length_blocks(test_.inputs(), options_.samples_at_once)) {
                visit(block.inputs, done,
                      [&](sd::Index j) { return block.samples[static_cast<std::size_t>(j)]; });
                done += block.inputs.cols();
            }
            return;
        }
        for (; done < test_.size(); done += options_.samples_at_once) {
            const sd::Index count = std::min(options_.samples_at_once, test_.size() - done);
            visit(test_.inputs().middleCols(done, count), done,
                  [&](sd::Index j) { return done + j; });
        }
    }

    [[nodiscard]] const char* noun() const {
        return options_.samples == Samples::texts ? " texts" : " images";
    }

    /// 1 for each sample whose most probable class is not its label.
    [[nodiscard]] Eigen::VectorXi wrong(const sd::Matrix<float>& probabilities) const {
        Eigen::VectorXi flags(test_.size());
        for (sd::Index j = 0; j < test_.size(); ++j) {
            sd::Index top = 0;
            probabilities.col(j).maxCoeff(&top);
            flags(j) = top != test_.labels()(j);
        }
        return flags;
    }

    const Network& network_;
    const sd::Dataset<float>& test_;
    EvaluationOptions options_;
    Progress& progress_;
    std::vector<Row> rows_;
    std::vector<sd::Matrix<float>> probabilities_;  // one for each row
};

}  // namespace common
