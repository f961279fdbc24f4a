// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <concepts>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/training/dataset.hpp>
#include <stochastic_depth/training/target_slices.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

namespace detail {

inline void check_weight_count(std::string_view who, const Eigen::VectorXd& weights,
                               Index samples) {
    if (weights.size() != samples)
        refuse(who, ": weights must have one entry for each of ", samples, " samples, got ",
               weights.size());
}
inline void check_sample_weights(std::string_view who, const Eigen::VectorXd& weights,
                                 Index samples) {
    check_weight_count(who, weights, samples);
    for (Index j = 0; j < samples; ++j)
        if (!(weights(j) >= 0.0 && std::isfinite(weights(j))))
            refuse(who, ": weights must be finite and at least 0, got ", weights(j), " for sample ",
                   j);
}

}  // namespace detail

/// Targets with a weight for each sample, as SampleWeighted takes them.
template <class Targets_>
struct WeightedTargets {
    Targets_ targets;
    Eigen::VectorXd weights;

    /// \throws std::invalid_argument  unless there is a weight for each.
    [[nodiscard]] Index samples() const
        requires SliceableTargets<Targets_>
    {
        const Index count = detail::samples_of(targets);
        detail::check_weight_count("WeightedTargets", weights, count);
        return count;
    }
    /// Becomes those of some samples.
    void take(const WeightedTargets& from, Index first, Index count)
        requires SliceableTargets<Targets_>
    {
        detail::take_slice(from.targets, first, count, targets);
        weights = from.weights.segment(first, count);
    }
};

/// Samples with a weight for each:
///
///     Dataset data{Dataset{x, labels, 10}, weights};
///     Trainer{}.fit(network, data, SampleWeighted{SoftmaxCrossEntropy<float>{}});
template <std::floating_point Scalar_, class Targets_>
class Dataset<Scalar_, WeightedTargets<Targets_>> {
public:
    using Scalar = Scalar_;
    using Targets = WeightedTargets<Targets_>;

    /// \param weights  [samples], finite and at least 0.
    /// \throws std::invalid_argument  otherwise.
    Dataset(Dataset<Scalar, Targets_> samples, Eigen::VectorXd weights)
        : samples_(std::move(samples)), weights_(std::move(weights)) {
        detail::check_sample_weights("Dataset", weights_, size());
    }

    [[nodiscard]] Index size() const { return samples_.size(); }
    [[nodiscard]] Index features() const { return samples_.features(); }
    [[nodiscard]] Index outputs() const { return samples_.outputs(); }
    [[nodiscard]] const Matrix<Scalar>& inputs() const { return samples_.inputs(); }
    /// A copy.
    [[nodiscard]] Targets targets() const { return {samples_.targets(), weights_}; }

    void gather(const std::vector<Index>& order, Index first, Index count, MatrixRef<Scalar> x,
                Targets& targets) const {
        samples_.gather(order, first, count, x, targets.targets);
        for (Index j = 0; j < count; ++j)
            targets.weights(j) = weights_(order[static_cast<std::size_t>(first + j)]);
    }

    void resize_targets(Targets& targets, Index count) const {
        samples_.resize_targets(targets.targets, count);
        targets.weights.resize(count);
    }

private:
    Dataset<Scalar, Targets_> samples_;
    Eigen::VectorXd weights_;
};

template <class Scalar, class Targets>
Dataset(Dataset<Scalar, Targets>, Eigen::VectorXd) -> Dataset<Scalar, WeightedTargets<Targets>>;

}  // namespace stochastic_depth
