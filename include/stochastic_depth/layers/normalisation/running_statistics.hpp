// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <limits>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/normalisation/batch_statistics.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Refuses values of a batch normalisation that are not one for each feature, finite and at least
/// `least`.
template <class Scalar>
void check_feature_values(const char* name, Index features,
                          const Eigen::Ref<const Vector<Scalar>>& values,
                          Scalar least = -std::numeric_limits<Scalar>::max()) {
    if (values.size() != features)
        refuse("BatchNorm: ", name, " must have ", features, " entries, got ", values.size());
    for (Index i = 0; i < values.size(); ++i)
        if (!(values(i) >= least && std::isfinite(values(i))))
            refuse("BatchNorm: ", name, "(", i, ") must be finite",
                   least == 0 ? " and at least 0" : "", ", got ", values(i));
}

/// The statistics that a batch normalisation takes over from training steps, and which of a pass it
/// normalises by.
template <class Scalar>
class RunningStatistics {
public:
    /// Mean 0, variance 1.
    /// \throws std::invalid_argument  if features or an option lie outside their range.
    RunningStatistics(Index features, const BatchNormOptions& options) : options_(options) {
        if (features < 1) refuse("BatchNorm: features must be at least 1, got ", features);
        if (!(options.epsilon > 0 && std::isfinite(options.epsilon)))
            refuse("BatchNorm: epsilon must be finite and above 0, got ", options.epsilon);
        if (!(options.momentum > 0 && options.momentum <= 1))
            refuse("BatchNorm: momentum must lie in (0, 1], got ", options.momentum);
        mean_.setZero(features);
        variance_.setOnes(features);
    }

    [[nodiscard]] const BatchNormOptions& options() const { return options_; }
    [[nodiscard]] const Vector<Scalar>& mean() const { return mean_; }
    [[nodiscard]] const Vector<Scalar>& variance() const { return variance_; }

    /// \throws std::invalid_argument  unless there are as many, all finite, and the variances at
    ///                                least 0; nothing is changed then.
    void set(const Eigen::Ref<const Vector<Scalar>>& mean,
             const Eigen::Ref<const Vector<Scalar>>& variance) {
        check_feature_values<Scalar>("running mean", features(), mean);
        check_feature_values<Scalar>("running variance", features(), variance, Scalar(0));
        mean_ = mean;
        variance_ = variance;
    }

    /// As what to normalise by outside of a training step.
    void write(const BatchStatistics& to) const {
        read(to);
        invert(to);
    }

    /// What x, [features x batch], is normalised by in a recorded pass, in memory for 3 features
    /// numbers: in a training step the statistics of x, whose mean and variance
    /// take_moments(statistics) finds, else the running ones.
    template <class X, class Mask, class TakeMoments>
    BatchStatistics of_pass(const X& x, const Mask& mask, double* memory,
                            BatchNormRecord<Scalar>& record,
                            const TakeMoments& take_moments) const {
        const BatchStatistics by{memory, features()};
        const bool of_batch = mask.step() != nullptr && x.cols() > 1;
        if (of_batch)
            take_moments(by);
        else
            read(by);
        invert(by);
        record.input = {x.data(), x.rows(), x.cols(), x.outerStride()};
        record.statistics = by;
        record.of_batch = of_batch;
        if (of_batch) record.update = mask.step()->statistics;
        return by;
    }

    /// Before a pass over the data with cumulative statistics: the first batch counts alone.
    void begin() { samples_ = 0; }

    /// Takes those of a recorded training step over.
    void update(const BatchNormRecord<Scalar>& record) {
        if (!record.of_batch) return;
        const auto n = static_cast<double>(record.input.columns);
        samples_ += n;
        const double share =
            record.update == StatisticsUpdate::moving ? options_.momentum : n / samples_;
        const auto move = [share](Scalar& running, double batch) {
            const auto old = static_cast<double>(running);
            // With the whole share nothing of the old one stays, not even a NaN.
            running = static_cast<Scalar>(share < 1 ? old + share * (batch - old) : batch);
        };
        for (Index i = 0; i < features(); ++i) {
            move(mean_(i), record.statistics.mean[i]);
            move(variance_(i), record.statistics.variance[i] * (n / (n - 1)));
        }
    }

    /// As state, which no gradient belongs to.
    template <class Self, class Visit>
    static void visit_state(Self& self, Visit& visit) {
        visit("running_mean", self.mean_);
        visit("running_variance", self.variance_);
    }

private:
    [[nodiscard]] Index features() const { return mean_.size(); }

    void read(const BatchStatistics& by) const {
        for (Index i = 0; i < features(); ++i) {
            by.mean[i] = static_cast<double>(mean_(i));
            by.variance[i] = static_cast<double>(variance_(i));
        }
    }

    void invert(const BatchStatistics& by) const {
        for (Index i = 0; i < features(); ++i)
            by.inverse_deviation[i] = 1 / std::sqrt(by.variance[i] + options_.epsilon);
    }

    BatchNormOptions options_;
    Vector<Scalar> mean_;
    Vector<Scalar> variance_;
    /// Behind cumulative statistics.
    double samples_ = 0;
};

}  // namespace stochastic_depth::detail
