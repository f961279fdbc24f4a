// SPDX-License-Identifier: MIT
#include <limits>
#include <stdexcept>

#include <stochastic_depth/analysis/classification.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/options_within_budget.hpp>
#include <stochastic_depth/expectation/predictive_uncertainty.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>

#include "findings.hpp"

namespace inspect {
namespace {

/// Mean and variance over the masks, exact where the budget allows it.
sd::ExpectationResult<float> moments_of(const Network& network, const sd::ConstMatrixRef<float>& x,
                                        const Question& question, const Options& options,
                                        const sd::ProgressCallback& progress) {
    try {
        return sd::ExactExpectation{{.threads = options.threads,
                                     .max_layer_evaluations = options.budget,
                                     .progress = progress}}(network, x, question.law);
    } catch (const std::length_error&) {
        auto sampled =
            sd::options_within_budget(static_cast<double>(options.budget),
                                      question.law.survival_probabilities(), options.seed);
        sampled.threads = options.threads;
        return sd::MonteCarloExpectation{sampled}(network, x, question.law);
    }
}

/// Estimates of probabilities may be a little below 0.
/// \param mean  The first rows are probabilities.
void make_probabilities(sd::Matrix<float>& mean, sd::Index classes) {
    auto probabilities = mean.topRows(classes);
    probabilities = probabilities.cwiseMax(0.0f).eval();
    for (sd::Index j = 0; j < mean.cols(); ++j) probabilities.col(j) /= probabilities.col(j).sum();
}

/// Puts what came out for some inputs into what comes out for all.
void put(const sd::ExpectationResult<float>& part, sd::Index outputs, sd::Index first,
         sd::ExpectationResult<float>& all) {
    const auto put_in = [&](const sd::Matrix<float>& from, sd::Matrix<float>& to) {
        to.middleCols(first, from.cols()) = from.topRows(outputs);
    };
    put_in(part.mean, all.mean);
    put_in(part.variance, all.variance);
    put_in(part.standard_error, all.standard_error);
    all.method = part.method;
    all.degrees_of_freedom = part.degrees_of_freedom;
    all.layer_evaluations = part.layer_evaluations;
    all.samples = part.samples;
}

void add_moments(const Question& question, const Options& options, common::Progress& progress,
                 Ensemble& ensemble) {
    const sd::Index outputs = question.outputs(), batch = question.batch();
    auto& moments = ensemble.moments;
    for (auto* const matrix : {&moments.mean, &moments.variance, &moments.standard_error})
        matrix->resize(outputs, batch);
    if (question.is_classifier)
        for (auto* const vector : {&ensemble.predictive_entropy, &ensemble.expected_entropy,
                                   &ensemble.mutual_information})
            vector->resize(batch);
    for_each_part(
        question.x, "mean over the masks", progress,
        [&](const sd::ConstMatrixRef<float>& x, sd::Index first, const sd::ProgressCallback& tell) {
            // Moments of probabilities and entropy come from one sweep.
            const auto rule = [&](const auto& network, const sd::ConstMatrixRef<float>& inputs) {
                auto part = moments_of(network, inputs, question, options, tell);
                if (question.is_classifier && part.method == sd::ExpectationMethod::sampled)
                    make_probabilities(part.mean, outputs);
                put(part, outputs, first, moments);
                return part;
            };
            if (!question.is_classifier) {
                (void)rule(question.asked, x);
                return;
            }
            const auto known = sd::predictive_uncertainty(
                [&](const auto& network, const sd::ConstMatrixRef<float>& inputs) {
                    return rule(Network{network}, inputs);
                },
                question.network, x);
            ensemble.predictive_entropy.segment(first, x.cols()) = known.predictive_entropy;
            ensemble.expected_entropy.segment(first, x.cols()) = known.expected_entropy;
            ensemble.mutual_information.segment(first, x.cols()) = known.mutual_information;
        });
}

void add_bounds(const Question& question, const Options& options, common::Progress& progress,
                Ensemble& ensemble) {
    sd::CertifiedBounds all;
    all.lower.resize(question.outputs(), question.batch());
    all.upper = all.lower;
    for_each_part(
        question.x, "bounds of the mean", progress,
        [&](const sd::ConstMatrixRef<float>& x, sd::Index first, const sd::ProgressCallback&) {
            const auto part = sd::CertifiedInterval{{.uncovered = 0,
                                                     .max_layer_evaluations = options.budget,
                                                     .threads = options.threads}}(question.asked, x,
                                                                                  question.law);
            all.lower.middleCols(first, x.cols()) = part.lower;
            all.upper.middleCols(first, x.cols()) = part.upper;
            all.covered = part.covered;
            all.masks = part.masks;
            all.layer_evaluations = part.layer_evaluations;
        });
    ensemble.bounds = std::move(all);
}

void add_rule(const Question& question, const char* name, sd::Matrix<float> outputs,
              Ensemble& ensemble) {
    Rule rule{.name = name, .outputs = std::move(outputs)};
    const Eigen::ArrayXXd gaps =
        (rule.outputs.cast<double>() - ensemble.moments.mean.cast<double>()).array().abs();
    rule.mean_gap = gaps.mean();
    rule.largest_gap = gaps.maxCoeff();
    rule.score = score_of(question, rule.outputs);
    ensemble.rules.push_back(std::move(rule));
}

}  // namespace

Score score_of(const Question& question, const sd::ConstMatrixRef<float>& outputs) {
    Score score;
    if (question.labels) {
        score.error = sd::error_rate(outputs, *question.labels);
        score.negative_log_likelihood = sd::negative_log_likelihood(outputs, *question.labels);
    }
    if (question.targets)
        score.squared_error = sd::MeanSquaredError<float>{}.value(outputs, *question.targets);
    return score;
}

Ensemble ask_ensemble(const Question& question, const Options& options,
                      common::Progress& progress) {
    Ensemble ensemble;
    add_moments(question, options, progress, ensemble);
    ensemble.score = score_of(question, ensemble.moments.mean);
    add_rule(question, "full depth", question.asked(question.x), ensemble);
    add_rule(question, "weight scaling",
             sd::WeightScaling{}(question.asked, question.x, question.law).mean, ensemble);
    progress.done("mean over the masks: " + common::fixed(ensemble.moments.layer_evaluations, 0) +
                  " layer evaluations for each input");
    const bool is_exact = ensemble.moments.method == sd::ExpectationMethod::exact;
    if (options.bounds && question.is_classifier && !is_exact)
        add_bounds(question, options, progress, ensemble);
    return ensemble;
}

}  // namespace inspect
