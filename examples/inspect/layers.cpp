// SPDX-License-Identifier: MIT
#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <utility>

#include <stochastic_depth/expectation/exact_sensitivity.hpp>
#include <stochastic_depth/expectation/layer_values.hpp>
#include <stochastic_depth/expectation/sampled_layer_values.hpp>

#include "findings.hpp"

namespace inspect {
namespace {

/// Where the skippable layers stand, in the order of a mask's bits.
std::vector<std::string> paths_of(const Network& network) {
    std::vector<std::string> paths;
    std::istringstream lines(describe(network));
    for (std::string line; std::getline(lines, line);) {
        const std::string kind = "StochasticDepth,";
        if (line.starts_with(kind)) paths.push_back("the network");
        const std::size_t at = line.find(": " + kind);
        if (at != std::string::npos) paths.push_back(line.substr(0, at));
    }
    return paths;
}

/// A scalar of the outputs: the mean over the inputs of one of them, or of all.
struct Judge {
    std::string name;
    sd::Matrix<float> slopes;  // [outputs x batch]
};

Judge judge_of(const Question& question, const Ensemble& ensemble, const Options& options) {
    const sd::Matrix<float>& mean = ensemble.moments.mean;
    const sd::Index batch = mean.cols();
    const float share = 1.0f / static_cast<float>(batch);
    Judge judge{"", sd::Matrix<float>::Zero(mean.rows(), batch)};
    if (options.output) {
        judge.name = (question.is_classifier ? "the probability of class " : "output ") +
                     std::to_string(*options.output);
        judge.slopes.row(*options.output).setConstant(share);
    } else if (question.is_classifier) {
        judge.name = question.labels ? "the probability of the label"
                                     : "the probability of the most probable class";
        for (sd::Index j = 0; j < batch; ++j) {
            sd::Index at = 0;
            if (question.labels)
                at = (*question.labels)(j);
            else
                mean.col(j).maxCoeff(&at);
            judge.slopes(at, j) = share;
        }
    } else {
        judge.name = mean.rows() == 1 ? "the output" : "the mean of the outputs";
        judge.slopes.setConstant(share / static_cast<float>(mean.rows()));
    }
    return judge;
}

/// So many pairs of samples as take the evaluations.
sd::SampledLayerValueOptions sampling(const Options& options, double evaluations_of_pair) {
    const double pairs = static_cast<double>(options.budget) / std::max(1.0, evaluations_of_pair);
    return {.pairs = static_cast<sd::Index>(std::clamp(pairs, 2.0, 1e6)),
            .seed = options.seed,
            .threads = options.threads};
}

/// What each layer does for a scalar of the outputs.
struct Sums {
    Eigen::VectorXd values;
    /// The standard errors of all inputs come from the same masks: at most they add up.
    Eigen::VectorXd errors;
    double evaluations = 0;
};

/// Adds up exact(inputs, callback), or where it takes more than the budget sampled(inputs).
template <class Exact, class Sampled>
Sums add_up(const Question& question, const Judge& judge, const std::string& name,
            common::Progress& progress, const Exact& exact, const Sampled& sampled) {
    const Eigen::VectorXd zero = Eigen::VectorXd::Zero(question.depth());
    Sums sums{zero, zero};
    for_each_part(
        question.x, name, progress,
        [&](const sd::ConstMatrixRef<float>& x, sd::Index first, const sd::ProgressCallback& tell) {
            const auto slopes = judge.slopes.middleCols(first, x.cols());
            const auto add = [&](const sd::LayerValues<float>& values) {
                sums.values += values.value.contract(slopes);
                if (values.standard_error.layers() > 0)
                    sums.errors += values.standard_error.contract(slopes);
                sums.evaluations = values.layer_evaluations;
            };
            try {
                add(exact(x, tell));
            } catch (const std::length_error&) {
                add(sampled(x));
            }
        });
    return sums;
}

Sums sensitivities(const Question& question, const Judge& judge, const Options& options,
                   common::Progress& progress) {
    const auto exact = [&](const sd::ConstMatrixRef<float>& x, const sd::ProgressCallback& tell) {
        auto answer = sd::ExactSensitivity{{.threads = options.threads,
                                            .max_layer_evaluations = options.budget,
                                            .progress = tell}}(question.asked, x, question.law);
        return sd::LayerValues<float>{
            std::move(answer.by_layer), {}, answer.expectation.layer_evaluations};
    };
    const double masks = 2.0 * static_cast<double>(question.depth() + 1);
    const auto pairs = sampling(options, masks * question.law.survival_probabilities().sum());
    const auto sampled = [&](const sd::ConstMatrixRef<float>& x) {
        return sd::sampled_sensitivities(question.asked, x, question.law, pairs);
    };
    return add_up(question, judge, "sensitivities of the layers", progress, exact, sampled);
}

Sums shapley(const Question& question, const Judge& judge, const Options& options,
             common::Progress& progress) {
    const auto exact = [&](const sd::ConstMatrixRef<float>& x, const sd::ProgressCallback& tell) {
        return sd::shapley_values(question.asked, x,
                                  {.threads = options.threads,
                                   .max_layer_evaluations = options.budget,
                                   .progress = tell});
    };
    const auto depth = static_cast<double>(question.depth());
    const auto pairs = sampling(options, depth * (depth + 1));
    const auto sampled = [&](const sd::ConstMatrixRef<float>& x) {
        return sd::sampled_shapley_values(question.asked, x, pairs);
    };
    return add_up(question, judge, "Shapley values of the layers", progress, exact, sampled);
}

}  // namespace

LayerFindings ask_layers(const Question& question, const Ensemble& ensemble, const Options& options,
                         common::Progress& progress) {
    const Judge judge = judge_of(question, ensemble, options);
    LayerFindings findings{.judged_by = judge.name};
    if (question.depth() == 0) return findings;
    const Sums by_p = sensitivities(question, judge, options, progress);
    const Sums values = shapley(question, judge, options, progress);
    findings.sensitivity_evaluations = by_p.evaluations;
    findings.shapley_evaluations = values.evaluations;
    const std::vector<std::string> paths = paths_of(question.network);
    for (sd::Index l = 0; l < question.depth(); ++l)
        findings.layers.push_back({paths.at(static_cast<std::size_t>(l)),
                                   question.law.survival_probabilities()(l), by_p.values(l),
                                   values.values(l), by_p.errors(l), values.errors(l)});
    progress.done("layers: " + common::fixed(by_p.evaluations + values.evaluations, 0) +
                  " layer evaluations for each input");
    return findings;
}

}  // namespace inspect
