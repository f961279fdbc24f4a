// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include <stochastic_depth/expectation/expectation_result.hpp>
#include <stochastic_depth/expectation/progress.hpp>
#include <stochastic_depth/expectation/tree_sweep.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/survival/independent_law.hpp>
#include <stochastic_depth/survival/mask_law.hpp>

namespace stochastic_depth {

struct ExactExpectationOptions {
    /// Threads to share the work, at least 1; no more begin than find enough to do. The result has
    /// the same bits for any number.
    unsigned threads = 1;
    /// The most evaluations of skippable layers that one column may take: 2^L - 1 for L layers with
    /// p < 1.
    std::uint64_t max_layer_evaluations = std::uint64_t{1} << 28;
    /// Told of the progress; when it asks to stop, Cancelled is thrown.
    ProgressCallback progress = nullptr;
};

/// Exact mean and variance of the network output over all 2^L survival masks,
///     f_SD(x) = E[NN(x, S)] = sum_S P(S) NN(x, S).
///
/// Masks that share a prefix share its work, layers with p = 1 do not branch, and what a mask
/// cannot reach is not computed. The moments are built from convex combinations, so rounding errors
/// grow with L and not with 2^L. A column's bits depend neither on the batch that it stands in nor
/// on the threads, if that holds for each layer: it does for the library's own; a callable of yours
/// has to see to it (`Function`).
///
/// A network with a NaN on any path that a mask can take has a NaN mean.
///
/// \source Huang et al. 2016, Deep Networks with Stochastic Depth: Eq. (5) is the rule that this
///         makes exact.
class ExactExpectation {
public:
    ExactExpectation() = default;

    /// \throws std::invalid_argument  if options.threads is 0.
    explicit ExactExpectation(ExactExpectationOptions options) : options_(std::move(options)) {
        if (options_.threads < 1)
            detail::refuse("ExactExpectation: threads must be at least 1, got 0");
    }

    /// \param network  L skippable layers.
    /// \param x        Inputs, [features x batch].
    /// \returns        Mean and variance, [outputs x batch]; standard errors of 0.
    /// \throws std::invalid_argument  if the network cannot take x.
    /// \throws std::length_error      if the evaluations exceed the budget; nothing has run then.
    /// \throws Cancelled              if the progress callback asks to stop.
    /// \complexity     2^L - 1 layer evaluations for each column, and one of the layers after the
    ///                 last skippable one for each mask; O(L) blocks of memory for each thread.
    ///                 Twice that, from the first column to the last one of which a mean or variance
    ///                 is not finite: differences may have overflowed where these need not.
    template <MaskedNetwork Network>
    [[nodiscard]] ExpectationResult<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) const {
        ExpectationResult<typename Network::Scalar> result;
        (*this)(network, x, result);
        return result;
    }

    /// The same into the caller's result, whose memory is used again: with threads = 1, a call like
    /// one before it allocates nothing.
    template <MaskedNetwork Network>
    void operator()(const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
                    ExpectationResult<typename Network::Scalar>& result) const {
        const detail::ScratchArray<double> probabilities(network.depth());
        double* first = probabilities.data();
        detail::write_survival_probabilities(network, first);
        const Eigen::Map<const Eigen::VectorXd> p(probabilities.data(), network.depth());
        of_independent(network, x, p, result);
    }

    /// The same over the masks of a law, in place of independent ones of the network's p_l.
    ///
    /// Where a layer is skipped that has skippable layers inside, their bits decide nothing, but the
    /// law may depend on them: what follows then has the law's probabilities, summed over them.
    ///
    /// \param law  A MaskLaw of L layers.
    /// \throws std::invalid_argument  besides, if the law has another depth or a probability outside
    ///                                [0, 1].
    /// \throws std::length_error      besides, if more than 2^20 of its states differ behind a layer.
    /// \complexity  A layer evaluation for each prefix of positive probability that keeps the layer.
    ///              IndependentLaw as above; under other laws few columns run at less speed, as
    ///              what follows a layer kept and a layer skipped no longer runs side by side.
    template <MaskedNetwork Network, MaskLaw Law>
    [[nodiscard]] ExpectationResult<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
        const Law& law) const {
        ExpectationResult<typename Network::Scalar> result;
        (*this)(network, x, law, result);
        return result;
    }
    template <MaskedNetwork Network, MaskLaw Law>
    void operator()(const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
                    const Law& law, ExpectationResult<typename Network::Scalar>& result) const {
        (void)network.output_size(x.rows());
        detail::check_law("ExactExpectation", law, network.depth());
        if constexpr (std::is_same_v<Law, IndependentLaw>) {
            of_independent(network, x, law.survival_probabilities(), result);
        } else {
            const detail::TreeLaw<Network, Law> tree_law{law};
            compute(network, x, tree_law, detail::evaluations_under(tree_law, network), result);
        }
    }

private:
    template <class Network, class Scalar = typename Network::Scalar>
    void of_independent(const Network& network, const ConstMatrixRef<Scalar>& x,
                        const Eigen::Ref<const Eigen::VectorXd>& p,
                        ExpectationResult<Scalar>& result) const {
        (void)network.output_size(x.rows());
        compute(network, x, detail::IndependentBits{p}, detail::evaluations_of_tree(network, p),
                result);
    }

    template <class Network, class Law, class Scalar = typename Network::Scalar>
    void compute(const Network& network, const ConstMatrixRef<Scalar>& x, const Law& law,
                 double evaluations, ExpectationResult<Scalar>& result) const {
        detail::check_budget("ExactExpectation", law.depth(), evaluations,
                             options_.max_layer_evaluations);
        const Index outputs = network.output_size(x.rows());
        result.method = ExpectationMethod::exact;
        result.samples = 0;
        result.layer_evaluations = evaluations;
        result.degrees_of_freedom = std::numeric_limits<double>::infinity();
        result.mean.resize(outputs, x.cols());
        result.variance.resize(outputs, x.cols());
        result.standard_error.setConstant(outputs, x.cols(), Scalar(0));
        detail::sweep_tree_of<detail::Sweep::moments, Scalar>(
            law, network, x, evaluations, options_.threads, options_.progress,
            {result.mean.data(), result.variance.data(), outputs});
    }

    ExactExpectationOptions options_;
};

}  // namespace stochastic_depth
