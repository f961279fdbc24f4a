// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/training/entrywise_loss.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

struct BinaryCrossEntropyOptions {
    /// What the loss of target 1 is multiplied by, finite and above 0: where ones are rare, the
    /// number of zeros over that of ones balances them.
    double positive_weight = 1.0;
};

namespace detail {

struct LogisticError {
    static constexpr std::string_view name = "BinaryCrossEntropy";
    static constexpr std::string_view range = "lie in [0, 1]";
    double positive_weight = 1.0;

    [[nodiscard]] static bool accepts(double target) { return target >= 0.0 && target <= 1.0; }

    /// With e = exp(-|z|): no exponential overflows, and neither a loss nor a slope close to 0
    /// loses its digits.
    [[nodiscard]] EntryLoss operator()(double logit, double target) const {
        const double e = std::exp(-std::abs(logit));
        const double rest = std::log1p(e), near = e / (1.0 + e), far = 1.0 / (1.0 + e);
        // -log sigmoid(z) and -log sigmoid(-z); sigmoid(-z) and sigmoid(z).
        const double of_one = std::max(-logit, 0.0) + rest, of_zero = std::max(logit, 0.0) + rest;
        const bool above = logit > 0.0;
        const double miss_one = above ? near : far, miss_zero = above ? far : near;
        const double one = positive_weight * target, zero = 1.0 - target;
        return {one * of_one + zero * of_zero, zero * miss_zero - one * miss_one};
    }
};

}  // namespace detail

/// Cross-entropy of sigmoid(z) = 1 / (1 + exp(-z)) against targets t in [0, 1], from the logits z,
/// mean over all entries, of d outputs and n samples alike:
///
///     loss = 1/(d n) sum_ij -(w t_ij log sigmoid(z_ij) + (1 - t_ij) log sigmoid(-z_ij))
///     d loss / d z_ij = ((1 - t_ij) sigmoid(z_ij) - w t_ij sigmoid(-z_ij)) / (d n)
///
/// with w the weight of the positive. Targets are labels 0 and 1 for a network of one output, as
/// Dataset{x, labels, 2} has them; with Targets = Matrix<Scalar> a matrix like the output's, for
/// several yes-or-no questions at once or for probabilities.
///
/// Computed in double, whatever the scalar: no exponential overflows, and what is close to 0 keeps
/// its digits. An empty batch has loss 0. A NaN logit makes the loss and its own slope NaN. What is
/// called: detail::EntrywiseLoss.
template <std::floating_point Scalar, class Targets = Eigen::VectorXi>
class BinaryCrossEntropy : public detail::EntrywiseLoss<Scalar, detail::LogisticError, Targets> {
public:
    BinaryCrossEntropy() = default;

    /// \throws std::invalid_argument  if the weight lies outside its range.
    explicit BinaryCrossEntropy(BinaryCrossEntropyOptions options)
        : detail::EntrywiseLoss<Scalar, detail::LogisticError, Targets>(checked(options)) {}

private:
    [[nodiscard]] static detail::LogisticError checked(BinaryCrossEntropyOptions options) {
        const double weight = options.positive_weight;
        if (!(weight > 0.0 && std::isfinite(weight)))
            detail::refuse("BinaryCrossEntropy: positive_weight must be finite and above 0, got ",
                           weight);
        return {weight};
    }
};

}  // namespace stochastic_depth
