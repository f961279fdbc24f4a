// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>

#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// What a network is trained on: a number for its outputs, and the gradient of that.
///
/// Beyond the syntax: `value_and_gradient(output, targets, gradient)` returns the mean over the
/// batch of the samples' losses, and overwrites the gradient [outputs x batch] with its derivative
/// by the output; it throws before it writes. A mean over n samples, not a sum: parts of a batch
/// are weighted by their samples. An empty batch has loss 0. `Targets` is Eigen::VectorXi or
/// Matrix<Scalar> for a Dataset, any type for a TrainingStep, SliceableTargets for one in shards and
/// for DataParallel.
///
/// A loss may also have
///
///     void check_targets(Index outputs, const Targets& targets) const;
///
/// which throws std::invalid_argument unless a network with so many outputs can be trained on these
/// targets. Trainer asks it about all targets before the first step, TrainingStep about those of
/// its batch before the forward pass; without it only `value_and_gradient` refuses.
///
/// Models: SoftmaxCrossEntropy, BinaryCrossEntropy, MeanSquaredError, Huber, SampleWeighted; a
/// user's type that has the members. Taken by TrainingStep, Trainer::fit, gradient_error.
template <class Loss, class Scalar>
concept LossOf = requires(const Loss& loss, const ConstMatrixRef<Scalar>& output,
                          const typename Loss::Targets& targets, MatrixRef<Scalar> gradient) {
    { loss.value_and_gradient(output, targets, gradient) } -> std::convertible_to<double>;
};

namespace detail {

/// Asks a loss that can tell whether outputs and targets fit.
template <class Loss>
void check_targets(const Loss& loss, Index outputs, const typename Loss::Targets& targets) {
    if constexpr (requires { loss.check_targets(outputs, targets); })
        loss.check_targets(outputs, targets);
}

}  // namespace detail
}  // namespace stochastic_depth
