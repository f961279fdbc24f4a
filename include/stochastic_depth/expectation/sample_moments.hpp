// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include <stochastic_depth/expectation/expectation_result.hpp>
#include <stochastic_depth/expectation/mask_sample.hpp>
#include <stochastic_depth/memory/scratch.hpp>

namespace stochastic_depth::detail {

/// Where estimates go, one after another.
struct SampleMomentsView {
    double* mean;
    double* variance;
    double* squared_error;

    [[nodiscard]] SampleMomentsView from(Index first) const {
        return {mean + first, variance + first, squared_error + first};
    }
};

/// samples^2 / degrees of freedom: what adds up over independent samples.
[[nodiscard]] inline double spread_of(const MaskSample& sample) {
    const auto count = static_cast<double>(sample.samples);
    return count * count / sample.weights.degrees_of_freedom;
}

/// \source Satterthwaite 1946, for parts whose samples have equal variances.
[[nodiscard]] inline double degrees_of_freedom(Index samples, double spread) {
    const auto count = static_cast<double>(samples);
    return count * count / spread;
}

/// Estimates for each output and each sample of a batch, in double.
struct SampleMoments {
    Eigen::MatrixXd mean;
    Eigen::MatrixXd variance;
    /// Of the mean.
    Eigen::MatrixXd squared_error;
    Index samples = 0;
    /// The sum over the parts that were merged.
    double spread = 0;

    SampleMoments() = default;
    SampleMoments(Index outputs, Index batch)
        : mean(outputs, batch), variance(outputs, batch), squared_error(outputs, batch) {}

    [[nodiscard]] SampleMomentsView view() {
        return {mean.data(), variance.data(), squared_error.data()};
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

/// What a sample of masks answers.
template <class Scalar>
void write_result(const SampleMomentsView& from, Index outputs, Index batch,
                  ExpectationResult<Scalar>& to) {
    to.method = ExpectationMethod::sampled;
    to.mean.resize(outputs, batch);
    to.variance.resize(outputs, batch);
    to.standard_error.resize(outputs, batch);
    for (Index k = 0; k < outputs * batch; ++k) {
        to.mean.data()[k] = static_cast<Scalar>(from.mean[k]);
        to.variance.data()[k] = static_cast<Scalar>(from.variance[k]);
        to.standard_error.data()[k] = static_cast<Scalar>(std::sqrt(from.squared_error[k]));
    }
}

/// Numbers of this thread's pool that are 0 to begin with.
class ScratchZeros {
public:
    explicit ScratchZeros(std::size_t size) : numbers_(static_cast<Index>(size)), size_(size) {
        clear();
    }
    void clear() { std::fill_n(numbers_.data(), size_, 0.0); }
    [[nodiscard]] double* data() const { return numbers_.data(); }
    [[nodiscard]] double& operator[](std::size_t i) const { return numbers_.data()[i]; }

private:
    ScratchArray<double> numbers_;
    std::size_t size_;
};

/// Moments of a number of outputs.
///
/// \param sample   The masks.
/// \param outputs  Mask k's outputs stand at `outputs + k count`.
/// \param count    Outputs of one mask.
/// \param to       Of the same number.
template <class Scalar>
void estimate_moments(const MaskSample& sample, const Scalar* outputs, Index count,
                      const SampleMomentsView& to) {
    const auto size = static_cast<std::size_t>(count);
    const SampleWeights& weights = sample.weights;
    const std::size_t items = weights.mean.size();
    const auto terms = static_cast<Index>(sample.terms.size());
    // Distances from one of the outputs: their squares lose no digits to a large mean.
    ScratchZeros reference(size), value(size), mean(size), running_mean(size), deviations(size),
        term_squares(size), sums(size * weights.sums.size());
    for (std::size_t e = 0; e < size; ++e) reference[e] = static_cast<double>(outputs[e]);
    const auto take_item = [&](std::size_t i, bool with_squares) {
        value.clear();
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
    ScratchZeros error(size);
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
        to.mean[e] = reference[e] + mean[e];
        to.variance[e] = plain ? error[e] * static_cast<double>(items) : (total < 0 ? 0 : total);
        to.squared_error[e] = error[e];
    }
}

}  // namespace stochastic_depth::detail
