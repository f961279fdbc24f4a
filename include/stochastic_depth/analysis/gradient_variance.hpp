// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include <stochastic_depth/analysis/flat_gradient.hpp>
#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/survival/scaling.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/training/training_step.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Variance E|g - grad|^2 of a stochastic gradient g about the gradient of the expected loss,
/// summed over all parameters.
struct GradientVariance {
    double variance = 0;
    /// variance / |grad|^2.
    double relative = 0;
    /// The variance by where it lies, [L + 1]: in the parameters that run only where layer l is
    /// kept (and no layer inside it need be), and last in all others. Sums to the variance.
    Eigen::VectorXd by_layer;
    /// The variance by what causes it, [L + 1]: the bit s_l alone, and last what several bits cause
    /// together. Sums to the variance.
    Eigen::VectorXd by_bit;
};

/// Variances of a step's gradient under each mask scope.
struct GradientVariances {
    /// The mean of g over all masks, in the order of the network's parameters: the gradient of the
    /// expected loss.
    Eigen::VectorXd gradient;
    /// |gradient|^2.
    double squared_norm = 0;
    GradientVariance batch;
    GradientVariance sample;
    GradientVariance subset;
};

struct GradientVarianceOptions {
    Scaling scaling = Scaling::none;
    /// The most gradients of one sample under one mask that may be computed.
    std::uint64_t max_gradients = std::uint64_t{1} << 20;
    /// The most numbers that may be held at a time.
    std::uint64_t max_numbers = std::uint64_t{1} << 27;
};

namespace detail {

/// The gradients of one sample under all masks, and what is made of them. With R layers of p < 1,
/// column m of a table is for the mask that keeps layer gates[i] if bit i of m is set, and all
/// others.
template <class Network, class Loss>
class GradientTable {
public:
    using Scalar = typename Network::Scalar;
    using Targets = typename Loss::Targets;

    GradientTable(const Network& network, const Loss& loss, Scaling scaling)
        : network_(network),
          flat_(network),
          step_(network, loss, {.scaling = scaling}),
          p_(network.survival_probabilities()) {
        for (Index l = 0; l < p_.size(); ++l)
            if (p_(l) < 1.0) gates_.push_back(l);
    }

    [[nodiscard]] Index parameters() const { return flat_.size(); }
    /// The layers that may be skipped.
    [[nodiscard]] const std::vector<Index>& gates() const { return gates_; }
    [[nodiscard]] double p(Index layer) const { return p_(layer); }

    /// For each parameter the innermost skippable layer without which it doesn't run, or L.
    [[nodiscard]] std::vector<Index> owners(const ConstMatrixRef<Scalar>& x,
                                            const Targets& targets) {
        std::vector<Index> owners(static_cast<std::size_t>(parameters()), p_.size());
        std::vector<bool> runs(owners.size());
        for (Index l = 0; l < p_.size(); ++l) {
            SurvivalMask mask = SurvivalMask::all(p_.size());
            mask.skip(l);
            differentiate(x, targets, mask);
            runs.assign(runs.size(), false);
            flat_.for_each(step_.gradient(), [&](Index first, const auto& slope) {
                for (Index i = first; i < first + slope.size(); ++i)
                    runs[static_cast<std::size_t>(i)] = true;
            });
            for (std::size_t i = 0; i < runs.size(); ++i)
                if (!runs[i]) owners[i] = l;
        }
        return owners;
    }

    /// Writes the columns c_T, T a set of gates as the bits of m are, of
    ///
    ///     weight g(S) = sum over T of c_T prod_{l in T} (s_l - p_l):
    ///
    /// the differences by the bits in T, averaged over the others. c_0 is the mean.
    void fill(const ConstMatrixRef<Scalar>& x, const Targets& targets, double weight,
              Eigen::MatrixXd& table) {
        for (Index m = 0; m < table.cols(); ++m) {
            SurvivalMask mask = SurvivalMask::all(p_.size());
            for (std::size_t i = 0; i < gates_.size(); ++i)
                if ((m >> i & 1) == 0) mask.skip(gates_[i]);
            differentiate(x, targets, mask);
            flat_.write(step_.gradient(), table.col(m));
        }
        table *= weight;
        for (std::size_t i = 0; i < gates_.size(); ++i) {
            const Index bit = Index{1} << i;
            for (Index m = 0; m < table.cols(); ++m) {
                if ((m & bit) != 0) continue;
                table.col(m + bit) -= table.col(m);
                table.col(m) += p_(gates_[i]) * table.col(m + bit);
            }
        }
    }

private:
    void differentiate(const ConstMatrixRef<Scalar>& x, const Targets& targets,
                       const SurvivalMask& mask) {
        step_.gradient().set_zero();
        (void)step_.differentiate(network_, x, targets, mask);
    }

    const Network& network_;
    FlatGradient<Network> flat_;
    TrainingStep<Network, Loss> step_;
    Eigen::VectorXd p_;
    std::vector<Index> gates_;
};

/// The covariance of a layer's bits of two samples of a batch of n, of which floor(p n) or one more
/// keep the layer, p n on average.
[[nodiscard]] inline double covariance_in_subset(double p, Index n) {
    if (n < 2) return 0;
    const double size = static_cast<double>(n), least = std::floor(p * size);
    const double pairs = least * (least - 1) + 2 * (p * size - least) * least;
    return pairs / (size * (size - 1)) - p * p;
}

}  // namespace detail

/// How far the gradient of a training step is from the gradient of the expected loss on the same
/// batch, for each mask scope, computed over all masks: not an estimate.
///
/// For one sample j of n, g_j(S) / n = sum over sets T of layers of c_jT prod_{l in T} (s_l - p_l),
/// the terms being uncorrelated with variances |c_jT|^2 v_T, v_T = prod_{l in T} p_l (1 - p_l).
/// Then
///
///     batch:   sum_T v_T |sum_j c_jT|^2
///     sample:  sum_T v_T sum_j |c_jT|^2
///     subset:  sum_T w_T |sum_j c_jT|^2 + (v_T - w_T) sum_j |c_jT|^2
///
/// where w_T = prod_{l in T} Cov(s_l of one sample, s_l of another), which is negative for one
/// layer.
///
/// \param network  L skippable layers; of its other random decisions it must have none, and its
///                 columns must not depend on each other in training.
/// \param x        Inputs, [features x batch], at least one column.
/// \param targets  As the loss takes them, for each column of x.
/// \param loss     A mean over the batch: SoftmaxCrossEntropy, MeanSquaredError or another.
/// \throws std::invalid_argument  if sizes don't match.
/// \throws std::length_error      if the gradients or the numbers in memory exceed the budget,
///                                before any of them is computed.
/// \complexity  2^R gradients for each sample, and two numbers for each mask and parameter in
///              memory; R is the number of layers with p < 1.
/// \source      Hoeffding 1948, A Class of Statistics with Asymptotically Normal Distribution, for
///              the decomposition.
template <MaskedNetwork Network, class Loss>
    requires DifferentiableLayer<Network>
[[nodiscard]] GradientVariances gradient_variance(const Network& network,
                                                  const ConstMatrixRef<typename Network::Scalar>& x,
                                                  const typename Loss::Targets& targets,
                                                  const Loss& loss,
                                                  const GradientVarianceOptions& options = {}) {
    const Index n = x.cols(), depth = network.depth();
    if (n < 1) detail::refuse("gradient_variance: x must have at least 1 column, got 0");
    constexpr bool one_number = Loss::Targets::ColsAtCompileTime == 1;
    const Index given = one_number ? targets.rows() : targets.cols();
    if (given != n)
        detail::refuse("gradient_variance: targets must be for ", n, " samples, got ", given);
    detail::GradientTable<Network, Loss> gradients(network, loss, options.scaling);
    const auto& gates = gradients.gates();
    const double masks = std::ldexp(1.0, static_cast<int>(gates.size()));
    const double computed = masks * static_cast<double>(n);
    const double held = 2 * masks * static_cast<double>(gradients.parameters());
    if (!(computed <= static_cast<double>(options.max_gradients)))
        throw std::length_error(
            detail::message("gradient_variance: the masks of ", gates.size(), " layers for ", n,
                            " samples take ", computed, " gradients, which must be at most ",
                            options.max_gradients, "; use sampled_gradient_variance"));
    if (!(held <= static_cast<double>(options.max_numbers)))
        throw std::length_error(
            detail::message("gradient_variance: the masks of ", gates.size(), " layers for ",
                            gradients.parameters(), " parameters take ", held,
                            " numbers in memory, which must be at most ", options.max_numbers,
                            "; use sampled_gradient_variance"));

    const std::vector<Index> owners =
        gradients.owners(x.leftCols(1), detail::targets_of(targets, 0, 1));
    GradientVariances result;
    for (GradientVariance* scope : {&result.batch, &result.sample, &result.subset}) {
        scope->by_layer = Eigen::VectorXd::Zero(depth + 1);
        scope->by_bit = Eigen::VectorXd::Zero(depth + 1);
    }
    const auto columns = static_cast<Index>(masks);
    std::vector<double> v(static_cast<std::size_t>(columns), 1.0), w = v;
    for (std::size_t m = 1; m < v.size(); ++m)
        for (std::size_t i = 0; i < gates.size(); ++i)
            if ((m >> i & 1) != 0) {
                const double p = gradients.p(gates[i]);
                v[m] *= p * (1 - p);
                w[m] *= detail::covariance_in_subset(p, n);
            }
    const auto add = [&](GradientVariance& scope, std::size_t set, double weight,
                         const Eigen::VectorXd& squares) {
        scope.variance += weight * squares.sum();
        scope.by_layer += weight * squares;
        const bool alone = std::has_single_bit(set);
        scope.by_bit(alone ? gates[static_cast<std::size_t>(std::countr_zero(set))] : depth) +=
            weight * squares.sum();
    };
    const auto squares_by_layer = [&](const auto& column) {
        Eigen::VectorXd squares = Eigen::VectorXd::Zero(depth + 1);
        for (Index i = 0; i < column.size(); ++i)
            squares(owners[static_cast<std::size_t>(i)]) += column(i) * column(i);
        return squares;
    };

    Eigen::MatrixXd sum = Eigen::MatrixXd::Zero(gradients.parameters(), columns);
    Eigen::MatrixXd one(gradients.parameters(), columns);
    for (Index j = 0; j < n; ++j) {
        gradients.fill(x.middleCols(j, 1), detail::targets_of(targets, j, 1),
                       1.0 / static_cast<double>(n), one);
        sum += one;
        for (std::size_t set = 1; set < v.size(); ++set) {
            const Eigen::VectorXd squares = squares_by_layer(one.col(static_cast<Index>(set)));
            add(result.sample, set, v[set], squares);
            add(result.subset, set, v[set] - w[set], squares);
        }
    }
    for (std::size_t set = 1; set < v.size(); ++set) {
        const Eigen::VectorXd squares = squares_by_layer(sum.col(static_cast<Index>(set)));
        add(result.batch, set, v[set], squares);
        add(result.subset, set, w[set], squares);
    }
    result.gradient = sum.col(0);
    result.squared_norm = result.gradient.squaredNorm();
    for (GradientVariance* scope : {&result.batch, &result.sample, &result.subset})
        scope->relative = scope->variance / result.squared_norm;
    return result;
}

}  // namespace stochastic_depth
