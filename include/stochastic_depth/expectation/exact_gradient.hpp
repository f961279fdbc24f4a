// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/gradient_tree.hpp>
#include <stochastic_depth/expectation/tree_law.hpp>
#include <stochastic_depth/expectation/tree_sweep.hpp>
#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/work.hpp>
#include <stochastic_depth/survival/independent_law.hpp>
#include <stochastic_depth/survival/mask_law.hpp>

namespace stochastic_depth {

struct ExactGradientOptions {
    /// Threads to share the work, at least 1; no more begin than find enough to do. The result has
    /// the same bits for any number.
    unsigned threads = 1;
    /// The most evaluations of skippable layers that one column may take, each forward and
    /// backward.
    std::uint64_t max_layer_evaluations = std::uint64_t{1} << 20;
    /// Told of the progress; when it asks to stop, Cancelled is thrown.
    ProgressCallback progress = nullptr;
};

/// Exact gradients through the ensemble of all 2^L masks, by input and parameters: backward through
/// the tree of mask prefixes, depth first, with the activations of one path at a time in memory.
///
/// They train on the true ensemble where L is moderate, and they are what stochastic gradients
/// estimate: the mean over all masks of the gradient of one masked pass is the gradient of the
/// expected loss.
class ExactGradient {
public:
    ExactGradient() = default;

    /// \throws std::invalid_argument  if options.threads is 0.
    explicit ExactGradient(ExactGradientOptions options) : options_(std::move(options)) {
        if (options_.threads < 1)
            detail::refuse("ExactGradient: threads must be at least 1, got 0");
    }

    /// Gradient of a loss of the mean, loss(f_SD(x)).
    ///
    /// \param network   L skippable layers.
    /// \param x         Inputs, [features x batch].
    /// \param slopes    Gradient of the loss by f_SD(x), [outputs x batch].
    /// \param gradient  The gradient by the parameters is added to it.
    /// \param dx        Gradient by x, [features x batch], overwritten.
    /// \throws std::invalid_argument  if sizes don't match.
    /// \throws std::length_error      if the evaluations exceed the budget; nothing has run then.
    /// \throws Cancelled              if the progress callback asks to stop; part of the gradient
    ///                                has been added then.
    /// \complexity     2^L - 1 layer evaluations for each column, forward and backward; the
    ///                 activations of one path for each thread.
    template <MaskedNetwork Network>
        requires DifferentiableLayer<Network>
    void of_mean(const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
                 const ConstMatrixRef<typename Network::Scalar>& slopes,
                 typename Network::Gradient& gradient,
                 MatrixRef<typename Network::Scalar> dx) const {
        of_mean(network, x, slopes, gradient, dx, IndependentLaw{network.survival_probabilities()});
    }

    /// The same over the masks of a law: a MaskLaw of L layers.
    /// \throws  Besides, as ExactExpectation under a law.
    template <MaskedNetwork Network, MaskLaw Law>
        requires DifferentiableLayer<Network>
    void of_mean(const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
                 const ConstMatrixRef<typename Network::Scalar>& slopes,
                 typename Network::Gradient& gradient, MatrixRef<typename Network::Scalar> dx,
                 const Law& law) const {
        using Scalar = typename Network::Scalar;
        detail::check_backward("ExactGradient", network, x, slopes, dx);
        run(
            network, x, gradient, law,
            [&](Matrix<Scalar>& y, double weight, Index first) {
                y = static_cast<Scalar>(weight) * slopes.middleCols(first, y.cols());
            },
            [&](const Matrix<Scalar>& d, Index first) { dx.middleCols(first, d.cols()) = d; });
    }

    /// Expected loss E[loss(NN(x, S), targets)] and its gradient.
    ///
    /// \param network   L skippable layers.
    /// \param x         Inputs, [features x batch].
    /// \param targets   As the loss takes them, for each column of x.
    /// \param loss      SoftmaxCrossEntropy, MeanSquaredError or a type with their members: a mean
    ///                  over the batch.
    /// \param gradient  The gradient by the parameters is added to it.
    /// \returns         The expected loss; 0 for an empty batch.
    /// \throws          As `of_mean`, and as the loss does.
    /// \complexity      As `of_mean`, and 2^L evaluations of the loss.
    template <MaskedNetwork Network, class Loss>
        requires DifferentiableLayer<Network>
    double of_expected_loss(const Network& network,
                            const ConstMatrixRef<typename Network::Scalar>& x,
                            const typename Loss::Targets& targets, const Loss& loss,
                            typename Network::Gradient& gradient) const {
        return of_expected_loss(network, x, targets, loss, gradient,
                                IndependentLaw{network.survival_probabilities()});
    }

    /// The same over the masks of a law: a MaskLaw of L layers.
    /// \throws  Besides, as ExactExpectation under a law.
    template <MaskedNetwork Network, class Loss, MaskLaw Law>
        requires DifferentiableLayer<Network>
    double of_expected_loss(const Network& network,
                            const ConstMatrixRef<typename Network::Scalar>& x,
                            const typename Loss::Targets& targets, const Loss& loss,
                            typename Network::Gradient& gradient, const Law& law) const {
        using Scalar = typename Network::Scalar;
        std::vector<double> losses(static_cast<std::size_t>(blocks(x.cols())), 0.0);
        run(
            network, x, gradient, law,
            [&](Matrix<Scalar>& y, double weight, Index first) {
                const double share =
                    weight * static_cast<double>(y.cols()) / static_cast<double>(x.cols());
                Matrix<Scalar> slopes(y.rows(), y.cols());
                losses[static_cast<std::size_t>(first / block_columns)] +=
                    share * loss.value_and_gradient(y, detail::targets_of(targets, first, y.cols()),
                                                    slopes);
                y = static_cast<Scalar>(share) * slopes;
            },
            [](const Matrix<Scalar>&, Index) {});
        double sum = 0;
        for (const double part : losses) sum += part;
        return sum;
    }

private:
    /// Columns that go through the tree together, and blocks of them that have a gradient of their
    /// own at a time: fixed, so that the order of the sums does not depend on the threads.
    static constexpr Index block_columns = 64;
    static constexpr Index blocks_at_once = 8;

    [[nodiscard]] static Index blocks(Index batch) {
        return (batch + block_columns - 1) / block_columns;
    }

    /// \param at_output  at_output(y, weight, first column): replaces the outputs under one mask by
    ///                   weight times the gradient by them.
    /// \param store      store(d, first column): is given the gradient by x.
    template <class Network, class Law, class AtOutput, class Store>
    void run(const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
             typename Network::Gradient& gradient, const Law& law, const AtOutput& at_output,
             const Store& store) const {
        (void)network.output_size(x.rows());
        detail::check_law("ExactGradient", law, network.depth());
        if constexpr (std::is_same_v<Law, IndependentLaw>) {
            const Eigen::Ref<const Eigen::VectorXd> p = law.survival_probabilities();
            run_tree(network, x, gradient, detail::IndependentBits{p},
                     detail::evaluations_of_tree(network, p), at_output, store);
        } else {
            const detail::TreeLaw<Network, Law> tree_law{law};
            run_tree(network, x, gradient, tree_law, detail::evaluations_under(tree_law, network),
                     at_output, store);
        }
    }

    template <class Network, class Law, class AtOutput, class Store>
    void run_tree(const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
                  typename Network::Gradient& gradient, const Law& law, double evaluations,
                  const AtOutput& at_output, const Store& store) const {
        using Scalar = typename Network::Scalar;
        using Gradient = typename Network::Gradient;
        detail::check_budget("ExactGradient", network.depth(), evaluations,
                             options_.max_layer_evaluations);
        detail::ProgressMeter meter(options_.progress, evaluations * static_cast<double>(x.cols()));
        const auto run_block = [&](Index b, Gradient& sum) {
            const Index first = b * block_columns;
            Matrix<Scalar> h = x.middleCols(first, std::min(block_columns, x.cols() - first));
            const detail::GradientTree<Scalar, Law> tree(law, options_.progress ? &meter : nullptr);
            tree.walk(network, sum, h,
                      [&](Matrix<Scalar>& y, double weight) { at_output(y, weight, first); });
            store(h, first);
        };
        const Index count = blocks(x.cols());
        if (count == 0) return;
        // The first block adds to the caller's gradient itself, which then knows what was reached.
        std::vector<Gradient> sums(static_cast<std::size_t>(std::min(blocks_at_once, count) - 1),
                                   network.zero_gradient());
        for (Index round = 0; round < count; round += blocks_at_once) {
            const Index here = std::min(blocks_at_once, count - round);
            // Back as well, and twice there.
            const unsigned threads = detail::threads_for(
                network, x.rows(), here * std::min(block_columns, x.cols()), 3 * evaluations,
                options_.threads);
            detail::parallel_for(here, threads, [&](Index k) {
                run_block(round + k, k == 0 ? gradient : sums[static_cast<std::size_t>(k - 1)]);
            });
            for (Index k = 1; k < here; ++k) {
                Gradient& part = sums[static_cast<std::size_t>(k - 1)];
                detail::visit_parameters(
                    network, [](const char*, const auto&, auto& from, auto& to) { to += from; },
                    part, gradient);
                part.set_zero();
            }
        }
    }

    ExactGradientOptions options_;
};

}  // namespace stochastic_depth
