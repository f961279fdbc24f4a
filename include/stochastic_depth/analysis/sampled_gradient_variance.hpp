// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>

#include <stochastic_depth/analysis/flat_gradient.hpp>
#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/training/training_step.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// An estimate and its standard error, which is the root of an estimated variance itself.
struct SampledNumber {
    double value = 0;
    double standard_error = 0;
};

/// An estimated variance E|g - grad|^2 of a stochastic gradient g about its mean.
struct SampledGradientVariance {
    SampledNumber variance;
    /// |grad|^2 of the mean: unbiased, hence perhaps below 0 where the noise drowns it.
    SampledNumber squared_norm;
    Index steps = 0;
};

struct SampledGradientVarianceOptions {
    MaskScope mask_scope = MaskScope::sample;
    Scaling scaling = Scaling::none;
    std::uint64_t seed = 0;
    /// Pairs of steps, at least 2.
    Index pairs = 100;
    /// Threads to share the work of a step, at least 1. The result has the same bits for any
    /// number.
    unsigned threads = 1;
};

/// How far the gradient of a training step is from its mean over the masks, estimated from steps
/// 0, 1, ... of a TrainingStep: for a pair of steps with gradients g and h,
///
///     E|g - h|^2 / 2 = E|g - grad|^2     and     E[g^T h] = |grad|^2
///
/// so neither estimate needs the mean. For networks of any depth; of one whose 2^L masks can be
/// gone through, `gradient_variance` is not an estimate.
///
/// \param network  L skippable layers.
/// \param x        Inputs, [features x batch], at least one column.
/// \param targets  As the loss takes them, for each column of x.
/// \throws std::invalid_argument  if options are out of range or sizes don't match.
/// \complexity  2 pairs training steps; two gradients in memory.
template <MaskedNetwork Network, class Loss>
    requires DifferentiableLayer<Network>
[[nodiscard]] SampledGradientVariance sampled_gradient_variance(
    const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
    const typename Loss::Targets& targets, const Loss& loss,
    const SampledGradientVarianceOptions& options = {}) {
    if (x.cols() < 1)
        detail::refuse("sampled_gradient_variance: x must have at least 1 column, got 0");
    if (options.pairs < 2)
        detail::refuse("sampled_gradient_variance: pairs must be at least 2, got ", options.pairs);
    if (options.threads < 1)
        detail::refuse("sampled_gradient_variance: threads must be at least 1, got 0");
    TrainingStep<Network, Loss> step(network, loss,
                                     {.mask_scope = options.mask_scope,
                                      .scaling = options.scaling,
                                      .seed = options.seed,
                                      .threads = options.threads});
    const detail::FlatGradient<Network> flat(network);
    Eigen::VectorXd g(flat.size()), h(flat.size());
    const auto draw = [&](Index t, Eigen::VectorXd& into) {
        step.gradient().set_zero();
        (void)step.differentiate(network, x, targets, static_cast<std::uint64_t>(t));
        flat.write(step.gradient(), into);
    };
    double mean[2] = {}, squares[2] = {};
    for (Index pair = 0; pair < options.pairs; ++pair) {
        draw(2 * pair, g);
        draw(2 * pair + 1, h);
        const double drawn[2] = {(g - h).squaredNorm() / 2, g.dot(h)};
        for (int k = 0; k < 2; ++k) {
            const double deviation = drawn[k] - mean[k];
            mean[k] += deviation / static_cast<double>(pair + 1);
            squares[k] += deviation * (drawn[k] - mean[k]);
        }
    }
    const double pairs = static_cast<double>(options.pairs);
    const auto number = [&](int k) {
        return SampledNumber{mean[k], std::sqrt(squares[k] / (pairs * (pairs - 1)))};
    };
    return {number(0), number(1), 2 * options.pairs};
}

}  // namespace stochastic_depth
