// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "network.hpp"
#include "progress.hpp"
#include "report.hpp"

namespace fashion_mnist {

/// Every layer runs, as if none had been skipped in training.
struct FullDepth {
    template <sd::MaskedNetwork Network>
    [[nodiscard]] sd::ExpectationResult<float> operator()(const Network& network,
                                                    const sd::ConstMatrixRef<float>& x) const {
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
        : classifier_(network, sd::Softmax<float>{}),
          test_(test),
          options_(options),
          progress_(progress) {}

    [[nodiscard]] std::vector<Row> run() {
        const auto monte_carlo = [&](sd::Index samples) {
            return sd::MonteCarloExpectation{
                {.samples = samples, .seed = options_.seed, .threads = options_.threads}};
        };
        const sd::ExactExpectation exact{
            {.threads = options_.threads,
             .max_layer_evaluations = most_evaluations / static_cast<std::uint64_t>(test_.size())}};

        evaluate("full depth", FullDepth{});
        evaluate("weight scaling", sd::WeightScaling{});
        evaluate("Monte Carlo, 10 masks", monte_carlo(10));
        evaluate("Monte Carlo, 100 masks", monte_carlo(100));
        try {
            evaluate("exact expectation", exact);
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

    template <class Rule>
    void evaluate(const std::string& name, const Rule& rule) {
        const auto start = std::chrono::steady_clock::now();
        sd::Matrix<float> probabilities(classes, test_.size());
        Row row{.rule = name};
        for (sd::Index first = 0; first < test_.size(); first += images_at_once) {
            progress_.now(name + ": " + std::to_string(first) + " of " +
                          std::to_string(test_.size()) + " images");
            const sd::Index images = std::min(images_at_once, test_.size() - first);
            const auto answer = rule(classifier_, test_.inputs().middleCols(first, images));
            probabilities.middleCols(first, images) = answer.mean;
            row.layer_evaluations = answer.layer_evaluations;
        }
        row.seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        row.error = sd::error_rate(probabilities, test_.labels());
        row.negative_log_likelihood = sd::negative_log_likelihood(probabilities, test_.labels());
        row.calibration_error = sd::expected_calibration_error(probabilities, test_.labels());
        progress_.done(name + ": " + std::to_string(test_.size()) + " images in " +
                       fixed(row.seconds, 2) + " s");
        rows_.push_back(std::move(row));
        probabilities_.push_back(std::move(probabilities));
    }

    Classifier classifier_;
    const sd::Dataset<float>& test_;
    const Options& options_;
    Progress& progress_;
    std::vector<Row> rows_;
    std::vector<sd::Matrix<float>> probabilities_;  // one for each row
};

}  // namespace fashion_mnist
