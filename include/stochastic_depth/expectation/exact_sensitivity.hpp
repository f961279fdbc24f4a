// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include <stochastic_depth/expectation/by_layer.hpp>
#include <stochastic_depth/expectation/expectation_result.hpp>
#include <stochastic_depth/expectation/tree_sweep.hpp>
#include <stochastic_depth/survival/independent_law.hpp>
#include <stochastic_depth/survival/mask_law.hpp>

namespace stochastic_depth {

/// Up to which order ExactSensitivity differentiates.
enum class SensitivityOrder {
    /// By each survival probability.
    layers,
    /// By each survival probability and by each pair of them.
    pairs,
};

struct ExactSensitivityOptions {
    SensitivityOrder order = SensitivityOrder::layers;
    /// Threads to share the work, at least 1; no more begin than find enough to do. The result has
    /// the same bits for any number.
    unsigned threads = 1;
    /// The most evaluations of skippable layers that one column may take: 2^L - 1.
    std::uint64_t max_layer_evaluations = std::uint64_t{1} << 28;
    /// Told of the progress; when it asks to stop, Cancelled is thrown.
    ProgressCallback progress = nullptr;
};

/// f_SD and its derivatives by the survival probabilities.
template <class Scalar>
struct Sensitivities {
    /// What ExactExpectation answers, with the evaluations that it took here.
    ExpectationResult<Scalar> expectation;
    /// d f_SD / d p_l.
    ByLayer<Scalar> by_layer;
    /// d^2 f_SD / d p_l d p_m; empty unless asked for.
    ByPair<Scalar> by_pair;
};

namespace detail {

/// Which sweep is to be made: an argument, as a call operator's template argument cannot be named.
template <Sweep sweep>
using SweepOf = std::integral_constant<Sweep, sweep>;

/// Mean, variance and slopes of a network of `depth` skippable layers.
///
/// \param sweep  sweep(SweepOf<...>, to) sweeps the tree, and leaves the moments in `to`.
template <class Scalar, class MakeSweep>
[[nodiscard]] Sensitivities<Scalar> differentiate_by(Index outputs, Index batch, Index depth,
                                                     double evaluations, SensitivityOrder order,
                                                     const MakeSweep& sweep) {
    const Index size = outputs * batch;
    Sensitivities<Scalar> result;
    result.expectation.mean.resize(outputs, batch);
    result.expectation.variance.resize(outputs, batch);
    result.expectation.standard_error.setConstant(outputs, batch, Scalar(0));
    result.expectation.layer_evaluations = evaluations;
    result.expectation.degrees_of_freedom = std::numeric_limits<double>::infinity();
    result.by_layer = ByLayer<Scalar>(outputs, batch, depth);
    if (order == SensitivityOrder::pairs) result.by_pair = ByPair<Scalar>(outputs, batch, depth);
    MomentsView<Scalar> to{result.expectation.mean.data(), result.expectation.variance.data(),
                           outputs};
    if (size == 0 || depth == 0) {
        sweep(SweepOf<Sweep::moments>{}, to);
        return result;
    }
    // The tree counts layers from the last one on.
    Matrix<Scalar>& by_layer = result.by_layer.values();
    if (order == SensitivityOrder::layers) {
        to.derivatives = {by_layer.col(depth - 1).data(), -size, false};
        sweep(SweepOf<Sweep::derivatives>{}, to);
        return result;
    }
    Matrix<Scalar> slopes(size, second_order(depth));
    to.derivatives = {slopes.data(), size, true};
    sweep(SweepOf<Sweep::derivatives>{}, to);
    for (Index l = 0; l < depth; ++l) {
        const Index r = depth - 1 - l;
        by_layer.col(l) = slopes.col(second_order(r));
        for (Index after = 0; after < r; ++after)
            result.by_pair.set(l, depth - 1 - after) = slopes.col(second_order(r) + 1 + after);
    }
    return result;
}

/// The same of NN(x, S) for masks of the survival probabilities p.
template <class Network, class Scalar = typename Network::Scalar>
[[nodiscard]] Sensitivities<Scalar> differentiate(const Network& network,
                                                  const ConstMatrixRef<Scalar>& x,
                                                  const Eigen::VectorXd& p, double evaluations,
                                                  const ExactSensitivityOptions& options) {
    return differentiate_by<Scalar>(
        network.output_size(x.rows()), x.cols(), p.size(), evaluations, options.order,
        [&]<Sweep sweep>(SweepOf<sweep>, const MomentsView<Scalar>& to) {
            sweep_tree<sweep, Scalar>(network, x, p, evaluations, options.threads,
                                      options.progress, to);
        });
}

}  // namespace detail

/// Exact derivatives of f_SD by the survival probabilities, in the sweep that computes f_SD itself.
///
/// f_SD is linear in each p_l, so
///     d f_SD / d p_l = E[NN(x, S) | s_l = 1] - E[NN(x, S) | s_l = 0],
/// a difference of means that the tree knows at each node of layer l. A layer with p_l = 1 is
/// walked both ways here, for its derivative alone. Derivatives by a scalar g(f_SD) follow by the
/// chain rule (`ByLayer::contract`); those of E[g(NN(x, S))] are the sensitivities of the network
/// with g as its last layer.
///
/// \source Owen 1972, Multilinear Extensions of Games: the derivative of a multilinear function.
class ExactSensitivity {
public:
    ExactSensitivity() = default;

    /// \throws std::invalid_argument  if options.threads is 0.
    explicit ExactSensitivity(ExactSensitivityOptions options) : options_(std::move(options)) {
        if (options_.threads < 1)
            detail::refuse("ExactSensitivity: threads must be at least 1, got 0");
    }

    /// \param network  L skippable layers.
    /// \param x        Inputs, [features x batch].
    /// \throws std::invalid_argument  if the network cannot take x.
    /// \throws std::length_error      if the evaluations exceed the budget; nothing has run then.
    /// \throws Cancelled              if the progress callback asks to stop.
    /// \complexity     2^L - 1 layer evaluations for each column, and 2 (pairs: 6) additions for
    ///                 each and each output; O(L^2) (pairs: O(L^3)) blocks of outputs for each
    ///                 thread.
    template <MaskedNetwork Network>
    [[nodiscard]] Sensitivities<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) const {
        return (*this)(network, x, IndependentLaw{network.survival_probabilities()});
    }

    /// The same at other survival probabilities than the network's.
    ///
    /// \param law  An IndependentLaw: masks of other laws have no p_l to differentiate by, which a
    ///             compile-time error says.
    /// \throws std::invalid_argument  besides, if the law has another depth.
    template <MaskedNetwork Network, MaskLaw Law>
    [[nodiscard]] Sensitivities<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
        const Law& law) const {
        if constexpr (std::is_same_v<Law, IndependentLaw>) {
            (void)network.output_size(x.rows());
            detail::check_law("ExactSensitivity", law, network.depth());
            const double evaluations = detail::evaluations_of_whole_tree(network);
            detail::check_budget("ExactSensitivity", network.depth(), evaluations,
                                 options_.max_layer_evaluations);
            return detail::differentiate(network, x, law.survival_probabilities(), evaluations,
                                         options_);
        } else {
            static_assert(
                std::is_same_v<Law, IndependentLaw>,
                "ExactSensitivity: derivatives by p_l are those of independent masks; the "
                "law must be an IndependentLaw");
        }
    }

private:
    ExactSensitivityOptions options_;
};

}  // namespace stochastic_depth
