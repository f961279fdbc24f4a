// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>

#include <stochastic_depth/expectation/exact_sensitivity.hpp>
#include <stochastic_depth/numerics/gauss_legendre.hpp>

namespace stochastic_depth {

/// What each skippable layer is worth, for each output of each sample.
template <class Scalar>
struct LayerValues {
    ByLayer<Scalar> value;
    /// Standard error of the value; 0 where it is exact.
    ByLayer<Scalar> standard_error;
    /// Evaluations of skippable layers that it took for each column of x.
    double layer_evaluations = 0;
};

struct LayerValueOptions {
    /// Threads to share the work, at least 1; no more begin than find enough to do. The result has
    /// the same bits for any number.
    unsigned threads = 1;
    /// The most evaluations of skippable layers that one column may take.
    std::uint64_t max_layer_evaluations = std::uint64_t{1} << 28;
    /// Told of the progress; when it asks to stop, Cancelled is thrown.
    ProgressCallback progress = nullptr;
};

namespace detail {

/// Nodes t and weights of a quadrature over p = (t, ..., t).
struct SlopeRule {
    Eigen::VectorXd nodes, weights;

    [[nodiscard]] static SlopeRule banzhaf() {
        return {Eigen::VectorXd::Constant(1, 0.5), Eigen::VectorXd::Constant(1, 1.0)};
    }
    [[nodiscard]] static SlopeRule shapley(Index depth) {
        GaussLegendre rule(std::max<Index>(1, (depth + 1) / 2));
        return {std::move(rule.nodes), std::move(rule.weights)};
    }
};

/// The mean of the slopes d E[NN] / d p_l at the nodes of a rule.
///
/// \param slopes  slopes(k, p) are those at node k, a ByLayer.
template <class Scalar, class Slopes>
[[nodiscard]] LayerValues<Scalar> mean_slopes_by(Index outputs, Index batch, Index depth,
                                                 double evaluations, const SlopeRule& rule,
                                                 const Slopes& slopes) {
    LayerValues<Scalar> result{ByLayer<Scalar>(outputs, batch, depth),
                               ByLayer<Scalar>(outputs, batch, depth), evaluations};
    for (Index k = 0; k < rule.nodes.size(); ++k)
        result.value.values() += static_cast<Scalar>(rule.weights(k)) *
                                 slopes(k, Eigen::VectorXd::Constant(depth, rule.nodes(k))).values();
    return result;
}

template <class Network, class Scalar = typename Network::Scalar>
[[nodiscard]] LayerValues<Scalar> mean_slopes(std::string_view name, const Network& network,
                                              const ConstMatrixRef<Scalar>& x,
                                              const SlopeRule& rule,
                                              const LayerValueOptions& options) {
    if (options.threads < 1) refuse(name, ": threads must be at least 1, got 0");
    const Index outputs = network.output_size(x.rows()), depth = network.depth();
    const double sweeps = static_cast<double>(rule.nodes.size());
    const double evaluations = sweeps * evaluations_of_whole_tree(network);
    check_budget(name, depth, evaluations, options.max_layer_evaluations);
    return mean_slopes_by<Scalar>(
        outputs, x.cols(), depth, evaluations, rule, [&](Index k, const Eigen::VectorXd& p) {
            ExactSensitivityOptions sweep{.threads = options.threads};
            if (options.progress)
                sweep.progress = [&](double done) {
                    return options.progress((static_cast<double>(k) + done) / sweeps);
                };
            return differentiate(network, x, p, evaluations / sweeps, sweep).by_layer;
        });
}

}  // namespace detail

/// Banzhaf value of each skippable layer in the game whose players are the layers: what keeping it
/// adds to an output, mean over all 2^(L - 1) masks of the others, each counting the same:
///     B_l = 2^-(L - 1) sum_(S without l) NN(x, S + l) - NN(x, S).
/// That is d E[NN] / d p_l at p = (1/2, ..., 1/2). The network's own survival probabilities play no
/// part.
///
/// The value is linear in the game: what layers are worth for a sum of outputs is
/// `value.contract(slopes)`; for another scalar of the output (a loss, an entropy), make it the
/// network's last layer.
///
/// \param network  L skippable layers.
/// \param x        Inputs, [features x batch].
/// \throws std::invalid_argument  if the network cannot take x, or options.threads is 0.
/// \throws std::length_error      if the evaluations exceed the budget; nothing has run then.
/// \throws Cancelled              if the progress callback asks to stop.
/// \complexity     2^L - 1 layer evaluations for each column.
/// \source         Owen 1975, Multilinear Extensions and the Banzhaf Value.
template <MaskedNetwork Network>
[[nodiscard]] LayerValues<typename Network::Scalar> banzhaf_values(
    const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
    const LayerValueOptions& options = {}) {
    return detail::mean_slopes("banzhaf_values", network, x, detail::SlopeRule::banzhaf(), options);
}

/// Shapley value of each skippable layer: what keeping it adds to an output, mean over all orders
/// in which the layers may be added. The values of all layers sum to NN(x, all kept) - NN(x, all
/// skipped).
///
/// They are the integral over t in [0, 1] of d E[NN] / d p_l at p = (t, ..., t), a polynomial in t
/// of degree L - 1, which a Gauss-Legendre rule of L / 2 nodes, rounded up, integrates exactly.
///
/// \param network  L skippable layers; linear in the game as `banzhaf_values` is.
/// \param x        Inputs, [features x batch].
/// \throws std::invalid_argument  if the network cannot take x, or options.threads is 0.
/// \throws std::length_error      if the evaluations exceed the budget; nothing has run then.
/// \throws Cancelled              if the progress callback asks to stop.
/// \complexity     ceil(L / 2) sweeps of 2^L - 1 layer evaluations for each column.
/// \source         Shapley 1953; Owen 1972, Multilinear Extensions of Games, Section 5.
template <MaskedNetwork Network>
[[nodiscard]] LayerValues<typename Network::Scalar> shapley_values(
    const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
    const LayerValueOptions& options = {}) {
    return detail::mean_slopes("shapley_values", network, x,
                               detail::SlopeRule::shapley(network.depth()), options);
}

}  // namespace stochastic_depth
