// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <string>
#include <unordered_map>
#include <vector>

#include <stochastic_depth/analysis/classification.hpp>
#include <stochastic_depth/types.hpp>

#include "rules.hpp"

namespace common {

using stochastic_depth::Index;

/// Multinomial naive Bayes on the n-grams of tokens, n = 1, ..., longest, which a network has to
/// stand beside:
///
///     P(c | text) ~ P(c) prod_g P(g | c),  P(g | c) = (count of g in c + 1) / (all of c + n-grams).
///
/// Each occurrence of an n-gram counts. Those that no training text has are left out.
class NaiveBayes {
public:
    /// \param texts    Tokens of the training texts.
    /// \param labels   [texts], each in [0, classes).
    /// \param longest  At least 1.
    NaiveBayes(const std::vector<std::vector<std::string>>& texts, const Eigen::VectorXi& labels,
               Index classes, std::size_t longest)
        : longest_(longest), log_prior_(classes), log_rest_(classes) {
        Eigen::VectorXd samples = Eigen::VectorXd::Zero(classes);
        Eigen::VectorXd total = Eigen::VectorXd::Zero(classes);
        for (std::size_t i = 0; i < texts.size(); ++i) {
            const int label = labels(static_cast<Index>(i));
            ++samples(label);
            for_each_gram(texts[i], [&](const std::string& gram) {
                auto& counts = counts_[gram];
                counts.resize(static_cast<std::size_t>(classes));
                ++counts[static_cast<std::size_t>(label)];
                ++total(label);
            });
        }
        log_prior_ = (samples.array() / samples.sum()).log();
        log_rest_ = (total.array() + static_cast<double>(counts_.size())).log();
    }

    /// Different n-grams of the training texts.
    [[nodiscard]] Index grams() const { return static_cast<Index>(counts_.size()); }

    /// [classes].
    [[nodiscard]] Eigen::VectorXd probabilities(const std::vector<std::string>& text) const {
        Eigen::VectorXd score = log_prior_;
        for_each_gram(text, [&](const std::string& gram) {
            const auto found = counts_.find(gram);
            if (found == counts_.end()) return;
            for (Index c = 0; c < score.size(); ++c)
                score(c) += std::log1p(found->second[static_cast<std::size_t>(c)]) - log_rest_(c);
        });
        const Eigen::VectorXd relative = (score.array() - score.maxCoeff()).exp();
        return relative / relative.sum();
    }

    /// What it comes to on test texts, as a rule among others.
    [[nodiscard]] Row evaluate(const std::string& name,
                               const std::vector<std::vector<std::string>>& texts,
                               const Eigen::VectorXi& labels) const {
        const auto start = std::chrono::steady_clock::now();
        Eigen::MatrixXd answers(log_prior_.size(), labels.size());
        for (Index j = 0; j < labels.size(); ++j)
            answers.col(j) = probabilities(texts[static_cast<std::size_t>(j)]);
        Row row{.rule = name};
        row.seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        row.error = stochastic_depth::error_rate(answers, labels);
        row.negative_log_likelihood = stochastic_depth::negative_log_likelihood(answers, labels);
        row.calibration_error = stochastic_depth::expected_calibration_error(answers, labels);
        return row;
    }

private:
    template <class Visit>
    void for_each_gram(const std::vector<std::string>& text, const Visit& visit) const {
        std::string gram;
        for (std::size_t first = 0; first < text.size(); ++first) {
            gram.clear();
            for (std::size_t n = 0; n < std::min(longest_, text.size() - first); ++n) {
                // A byte that stands in no token of UTF-8.
                gram += '\xFF';
                gram += text[first + n];
                visit(gram);
            }
        }
    }

    std::size_t longest_;
    std::unordered_map<std::string, std::vector<double>> counts_;
    Eigen::VectorXd log_prior_, log_rest_;
};

}  // namespace common
