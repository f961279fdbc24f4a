// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/training/loss.hpp>
#include <stochastic_depth/training/target_slices.hpp>
#include <stochastic_depth/training/weighted_targets.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// A loss with a weight for each sample:
///
///     loss = 1/n sum_j w_j loss(y_j, t_j)
///
/// The sum is divided by n, not by the sum of the weights: weights of mean 1 keep the loss's size,
/// a weight of 2 is the sample twice among n, and parts of a batch add up. A sample of weight 0 is
/// left out, whatever its output.
///
///     step.differentiate(network, x, {labels, weights}, t);  // of a SampleWeighted loss
///
/// \tparam Loss  Any loss, of which this asks the samples one by one: the mean over one sample is
///               that sample's loss.
template <class Loss>
class SampleWeighted {
public:
    using Targets = WeightedTargets<typename Loss::Targets>;

    explicit SampleWeighted(Loss loss) : loss_(std::move(loss)) {}

    /// \throws std::invalid_argument  as the loss itself, and unless there is a weight for each
    ///                                sample, finite and at least 0.
    void check_targets(Index outputs, const Targets& targets) const {
        check_weights(targets);
        detail::check_targets(loss_, outputs, targets.targets);
    }

    /// \param output    [outputs x batch].
    /// \param targets   Of the loss, and weights [batch].
    /// \param gradient  Out, [outputs x batch].
    /// \throws std::invalid_argument  as above; nothing is written then.
    template <class Output, class Gradient>
    [[nodiscard]] double value_and_gradient(const Output& output, const Targets& targets,
                                            Gradient&& gradient) const {
        const Index n = output.cols();
        check_weights(targets);
        if (targets.weights.size() != n)
            detail::refuse("SampleWeighted: targets must be for ", n, " samples, got ",
                           targets.weights.size());
        detail::check_targets(loss_, output.rows(), targets.targets);
        if (gradient.rows() != output.rows() || gradient.cols() != n)
            detail::refuse("SampleWeighted: gradient must be ", output.rows(), " x ", n,
                           " like the output, got ", gradient.rows(), " x ", gradient.cols());
        using Scalar = typename std::remove_cvref_t<Gradient>::Scalar;
        double total = 0.0;
        for (Index j = 0; j < n; ++j) {
            const double weight = targets.weights(j) / static_cast<double>(n);
            if (weight == 0.0) {
                gradient.col(j).setZero();
                continue;
            }
            total += weight * loss_.value_and_gradient(output.middleCols(j, 1),
                                                       of_sample(targets.targets, j),
                                                       gradient.middleCols(j, 1));
            gradient.col(j) *= static_cast<Scalar>(weight);
        }
        return total;
    }

private:
    static constexpr bool takes_vector = Loss::Targets::ColsAtCompileTime == 1;

    static void check_weights(const Targets& targets) {
        detail::check_sample_weights("SampleWeighted", targets.weights,
                                     detail::samples_of(targets.targets));
    }
    [[nodiscard]] static auto of_sample(const typename Loss::Targets& targets, Index j) {
        if constexpr (takes_vector)
            return targets.segment(j, 1);
        else
            return targets.middleCols(j, 1);
    }

    Loss loss_;
};

}  // namespace stochastic_depth
