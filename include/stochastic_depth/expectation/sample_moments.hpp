// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/mask_sample.hpp>

namespace stochastic_depth::detail {

/// Estimates for each output and each sample of a batch, in double.
struct SampleMoments {
    Eigen::MatrixXd mean;
    Eigen::MatrixXd variance;
    /// Of the mean.
    Eigen::MatrixXd squared_error;
    Index samples = 0;
    /// Sum of samples^2 / degrees of freedom over the parts that were merged.
    double spread = 0;

    SampleMoments() = default;
    SampleMoments(Index outputs, Index batch)
        : mean(outputs, batch), variance(outputs, batch), squared_error(outputs, batch) {}

    /// \source Satterthwaite 1946, for parts whose samples have equal variances.
    [[nodiscard]] double degrees_of_freedom() const {
        const auto count = static_cast<double>(samples);
        return count * count / spread;
    }

    /// Adds an independent sample.
    void merge(SampleMoments other) {
        if (samples == 0) {
            *this = std::move(other);
            return;
        }
        const auto total = static_cast<double>(samples + other.samples);
        const double share = static_cast<double>(other.samples) / total;
        for (Index k = 0; k < mean.size(); ++k) {
            const auto mix = [&](Eigen::MatrixXd& here, const Eigen::MatrixXd& there, double a,
                                 double b) {
                here.data()[k] = a * here.data()[k] + b * there.data()[k];
            };
            mix(mean, other.mean, 1 - share, share);
            mix(variance, other.variance, 1 - share, share);
            mix(squared_error, other.squared_error, (1 - share) * (1 - share), share * share);
        }
        samples += other.samples;
        spread += other.spread;
    }
};

/// Moments of a number of outputs.
///
/// \param sample   The masks.
/// \param outputs  Mask k's outputs stand at `outputs + k count`.
/// \param count    Outputs of one mask.
/// \param first    Where they belong in `to`, counted in entries.
template <class Scalar>
void estimate_moments(const MaskSample& sample, const Scalar* outputs, Index count,
                      SampleMoments& to, Index first) {
    const auto size = static_cast<std::size_t>(count);
    const SampleWeights& weights = sample.weights;
    const std::size_t items = weights.mean.size();
    const auto terms = static_cast<Index>(sample.terms.size());
    // Distances from one of the outputs: their squares lose no digits to a large mean.
    const std::vector<double> reference(outputs, outputs + size);
    std::vector<double> value(size), mean(size), running_mean(size), deviations(size),
        term_squares(size);
    std::vector<double> sums(size * weights.sums.size());
    const auto take_item = [&](std::size_t i, bool with_squares) {
        std::fill(value.begin(), value.end(), 0.0);
        for (Index t = 0; t < terms; ++t) {
            const double weight = sample.terms[static_cast<std::size_t>(t)];
            const Scalar* const y =
                outputs + sample.masks.place(static_cast<Index>(i) * terms + t) * count;
            for (std::size_t e = 0; e < size; ++e) {
                const double distance = static_cast<double>(y[e]) - reference[e];
                value[e] += weight * distance;
                if (with_squares) term_squares[e] += weight * (distance * distance);
            }
        }
    };
    for (std::size_t i = 0; i < items; ++i) {
        take_item(i, true);
        const double weight = weights.mean[i], share = 1 / static_cast<double>(i + 1);
        for (std::size_t e = 0; e < size; ++e) {
            mean[e] += weight * value[e];
            // Welford 1962.
            const double before = value[e] - running_mean[e];
            running_mean[e] += share * before;
            deviations[e] += before * (value[e] - running_mean[e]);
        }
        for (std::size_t b = 0; b < weights.sums.size(); ++b) {
            const double coordinate = weights.sums[b][i];
            if (coordinate == 0) continue;
            double* const sum = sums.data() + b * size;
            for (std::size_t e = 0; e < size; ++e) sum[e] += coordinate * value[e];
        }
    }
    const auto sum_of = [&](std::size_t b, std::size_t e) { return sums[b * size + e]; };
    std::vector<double> error(size);
    if (weights.are_replicates) {
        const auto parts = static_cast<double>(weights.sums.size());
        for (std::size_t b = 0; b < weights.sums.size(); ++b)
            for (std::size_t e = 0; e < size; ++e) {
                const double difference = sum_of(b, e) - mean[e];
                error[e] += difference * difference / (parts * (parts - 1));
            }
    } else if (weights.sums.size() == 1) {
        // 0 / 0 is NaN: a single item tells nothing of the error. A NaN among the outputs stays
        // one.
        const auto count_of_items = static_cast<double>(items);
        for (std::size_t e = 0; e < size; ++e)
            error[e] = deviations[e] / (count_of_items - 1) / count_of_items;
    } else {
        // Layers that are seldom skipped or seldom kept have few items, and often those of larger
        // variance: each item's residual counts by itself, made unbiased by its leverage (MacKinnon
        // & White 1985, HC2).
        for (std::size_t i = 0; i < items; ++i) {
            take_item(i, false);
            double leverage = 0;
            for (std::size_t b = 0; b < weights.sums.size(); ++b) {
                const double coordinate = weights.sums[b][i];
                leverage += coordinate * coordinate;
                for (std::size_t e = 0; e < size; ++e) value[e] -= coordinate * sum_of(b, e);
            }
            const double factor =
                leverage < 1 - 1e-9 ? weights.mean[i] / std::sqrt(1 - leverage) : 0;
            for (std::size_t e = 0; e < size; ++e)
                error[e] += factor * factor * (value[e] * value[e]);
        }
    }
    const bool plain = terms == 1 && weights.sums.size() == 1;
    for (std::size_t e = 0; e < size; ++e) {
        // E[y^2] - (E[y])^2, with the square of the mean's error taken from the square of the mean.
        const double total =
            term_squares[e] / static_cast<double>(items) - mean[e] * mean[e] + error[e];
        const Index at = first + static_cast<Index>(e);
        to.mean.data()[at] = reference[e] + mean[e];
        to.variance.data()[at] =
            plain ? error[e] * static_cast<double>(items) : (total < 0 ? 0 : total);
        to.squared_error.data()[at] = error[e];
    }
}

}  // namespace stochastic_depth::detail
