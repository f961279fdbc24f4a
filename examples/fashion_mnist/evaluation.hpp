// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../common/progress.hpp"
#include "../common/text.hpp"
#include "network.hpp"
#include "report.hpp"

namespace fashion_mnist {

using common::fixed;
using common::Progress;

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

/// Answers with the class probabilities of all test images by each rule.
class Evaluation {
public:
    Evaluation(const Network& network, const sd::Dataset<float>& test, const Options& options,
               Progress& progress)
        : network_(network), test_(test), options_(options), progress_(progress) {}

    [[nodiscard]] std::vector<Row> run() {
        const Eigen::VectorXd p = network_.survival_probabilities();
        const auto plain = [&](sd::Index samples) {
            return sd::MonteCarloExpectation{
                {.samples = samples, .seed = options_.seed, .threads = options_.threads}};
        };
        // As many layer evaluations as plain samples take when each mask runs by itself.
        const auto best = [&](double samples) {
            auto best_options = sd::options_within_budget(samples * p.sum(), p, options_.seed);
            best_options.threads = options_.threads;
            return sd::MonteCarloExpectation{best_options};
        };
        const sd::ExactExpectation exact{
            {.threads = options_.threads,
             .max_layer_evaluations = most_evaluations / static_cast<std::uint64_t>(test_.size())}};

        evaluate("full depth", FullDepth{}, Masks::one);
        evaluate("weight scaling", sd::WeightScaling{}, Masks::one);
        evaluate("Monte Carlo, 10 masks", plain(10), Masks::many);
        evaluate("best sampled, as 10 masks", best(10), Masks::many);
        evaluate("Monte Carlo, 100 masks", plain(100), Masks::many);
        evaluate("best sampled, as 100 masks", best(100), Masks::many);
        try {
            evaluate("exact expectation", exact, Masks::many);
            for (std::size_t i = 0; i < rows_.size(); ++i)
                rows_[i].distance =
                    (probabilities_[i] - probabilities_.back()).colwise().lpNorm<1>().mean();
        } catch (const std::length_error& refusal) {
            rows_.push_back(
                {.rule = "exact expectation",
                 .skipped = std::string(refusal.what()) + " (here it grows as --test shrinks)"});
        }
        return std::move(rows_);
    }

private:
    /// Layer evaluations that the exact answer may take, over all images: a minute or two.
    static constexpr std::uint64_t most_evaluations = std::uint64_t{1} << 28;
    /// Images that go through a rule in one call, for the sake of progress. An image's answer has
    /// the same bits in any batch, so this changes nothing else.
    static constexpr sd::Index images_at_once = 1000;

    /// Whether a rule knows how far masks disagree.
    enum class Masks { one, many };

    template <class Rule>
    void evaluate(const std::string& name, const Rule& rule, Masks masks) {
        const auto start = std::chrono::steady_clock::now();
        sd::Matrix<float> probabilities(classes, test_.size());
        sd::Vector<float> disagreement(test_.size());
        Row row{.rule = name};
        for (sd::Index first = 0; first < test_.size(); first += images_at_once) {
            progress_.now(name + ": " + std::to_string(first) + " of " +
                          std::to_string(test_.size()) + " images");
            const sd::Index images = std::min(images_at_once, test_.size() - first);
            const auto answer = sd::predictive_uncertainty(
                rule, network_, test_.inputs().middleCols(first, images));
            probabilities.middleCols(first, images) = answer.probabilities;
            disagreement.segment(first, images) = answer.mutual_information;
            row.layer_evaluations = answer.layer_evaluations;
        }
        row.seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        row.error = sd::error_rate(probabilities, test_.labels());
        row.negative_log_likelihood = sd::negative_log_likelihood(probabilities, test_.labels());
        row.calibration_error = sd::expected_calibration_error(probabilities, test_.labels());
        const double auroc = sd::area_under_roc(disagreement, wrong(probabilities));
        if (masks == Masks::many && !std::isnan(auroc)) row.disagreement_auroc = auroc;
        progress_.done(name + ": " + std::to_string(test_.size()) + " images in " +
                       fixed(row.seconds, 2) + " s");
        rows_.push_back(std::move(row));
        probabilities_.push_back(std::move(probabilities));
    }

    /// 1 for each image whose most probable class is not its label.
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
    const Options& options_;
    Progress& progress_;
    std::vector<Row> rows_;
    std::vector<sd::Matrix<float>> probabilities_;  // one for each row
};

}  // namespace fashion_mnist
