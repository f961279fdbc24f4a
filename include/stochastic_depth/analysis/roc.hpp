// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <limits>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Area under the receiver operating characteristic: the chance that a positive sample scores
/// higher than a negative one, ties counting half,
///
///     AUROC = sum over (positive i, negative j) ([s_i > s_j] + [s_i = s_j] / 2) / (positives negatives)
///
/// 1: the scores separate the classes; 0.5: they tell nothing; 0: they separate them the wrong way
/// round. Does an uncertainty tell wrong predictions from right ones? Score: the uncertainty;
/// positive: wrong.
///
/// \param scores     [samples], numbers; infinities do as well, only the order matters.
/// \param positives  [samples], 1 or true for a positive sample, 0 or false for a negative one.
/// \returns          A number in [0, 1], counted exactly and rounded once; NaN if one of the two
///                   classes has no sample, no samples at all included.
/// \throws std::invalid_argument  if sizes differ, a score is NaN or an entry of positives is
///                                neither 0 nor 1.
/// \complexity       O(n log n) for n samples.
/// \source           Hanley & McNeil 1982, The Meaning and Use of the Area under a ROC Curve: its
///                   equality with the Wilcoxon statistic.
template <class Scores, class Positives>
    requires std::floating_point<typename Scores::Scalar> &&
        std::integral<typename Positives::Scalar> &&(Scores::IsVectorAtCompileTime == 1) &&
        (Positives::IsVectorAtCompileTime == 1)
            [[nodiscard]] double area_under_roc(const Eigen::DenseBase<Scores>& scores,
                                                const Eigen::DenseBase<Positives>& positives) {
        const typename Scores::PlainObject score = scores.derived();
        const typename Positives::PlainObject positive = positives.derived();
        if (positive.size() != score.size())
            detail::refuse("area_under_roc: positives must have one entry for each of ",
                           score.size(), " scores, got ", positive.size());
        struct Sample {
            typename Scores::Scalar score;
            bool positive;
        };
        std::vector<Sample> samples;
        samples.reserve(static_cast<std::size_t>(score.size()));
        for (Index i = 0; i < score.size(); ++i) {
            const auto flag = static_cast<long long>(positive(i));
            if (!(score(i) == score(i)))
                detail::refuse("area_under_roc: scores must be numbers, got ", score(i),
                               " for sample ", i);
            if (flag != 0 && flag != 1)
                detail::refuse("area_under_roc: positives must be 0 or 1, got ", flag,
                               " for sample ", i);
            samples.push_back({score(i), flag == 1});
        }
        std::sort(samples.begin(), samples.end(),
                  [](const Sample& a, const Sample& b) { return a.score < b.score; });

        // Twice the pairs in the right order, in integers.
        unsigned long long twice_right = 0, negatives = 0, all_positives = 0;
        for (std::size_t first = 0, last = 0; first < samples.size(); first = last) {
            unsigned long long here[2] = {0, 0};
            for (; last < samples.size() && samples[last].score == samples[first].score; ++last)
                ++here[samples[last].positive ? 1 : 0];
            twice_right += here[1] * (2 * negatives + here[0]);
            negatives += here[0];
            all_positives += here[1];
        }
        if (negatives == 0 || all_positives == 0) return std::numeric_limits<double>::quiet_NaN();
        return static_cast<double>(twice_right) /
               static_cast<double>(2 * negatives * all_positives);
    }

}  // namespace stochastic_depth
