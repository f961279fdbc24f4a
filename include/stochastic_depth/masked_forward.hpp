// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/pass/activations.hpp>
#include <stochastic_depth/pass/mask_view.hpp>

namespace stochastic_depth {
namespace detail {

template <class Network, class Mask>
void run_masked(const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
                const Mask& mask, MatrixRef<typename Network::Scalar> y) {
    Activations<typename Network::Scalar> activations(x, widest(network, x.rows()));
    propagate(network, activations, mask);
    copy_columns(activations.current(), y);
}

}  // namespace detail

/// y = NN(x, S) with one mask for the whole batch.
///
/// A skipped layer runs no instruction and hands its input on. A call like one before it on the
/// same thread allocates nothing.
///
/// \param x     [features x batch].
/// \param mask  S, network.depth() layers.
/// \param y     [outputs x batch], overwritten; must not overlap x.
/// \throws std::invalid_argument  if sizes don't match; y is untouched then.
/// \complexity  The layers that the mask keeps.
template <MaskedNetwork Network>
void masked_forward(const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
                    const SurvivalMask& mask, MatrixRef<typename Network::Scalar> y) {
    detail::check_forward("masked_forward", network, x, y);
    detail::check_mask("masked_forward", network, mask);
    detail::run_masked(network, x, detail::MaskView{mask}, y);
}

/// y(:, j) = NN(x(:, j), S_j), one mask for each sample: each layer gathers the columns that keep
/// it, runs on them alone, and scatters the result.
///
/// \param x      [features x batch].
/// \param masks  network.depth() layers, batch samples.
/// \param y      [outputs x batch], overwritten; must not overlap x.
/// \throws std::invalid_argument  if sizes don't match; y is untouched then.
/// \complexity   For each layer, the samples that keep it.
template <MaskedNetwork Network>
void masked_forward(const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
                    const SurvivalMasks& masks, MatrixRef<typename Network::Scalar> y) {
    detail::check_forward("masked_forward", network, x, y);
    detail::check_masks("masked_forward", network, masks, x.cols());
    detail::run_masked(network, x, detail::MaskView{masks}, y);
}

/// NN(x, S), [outputs x batch]: what `network(x, mask)` calls.
template <MaskedNetwork Network, class Mask>
[[nodiscard]] Matrix<typename Network::Scalar> masked_forward(
    const Network& network, const ConstMatrixRef<typename Network::Scalar>& x, const Mask& mask) {
    Matrix<typename Network::Scalar> y(network.output_size(x.rows()), x.cols());
    masked_forward(network, x, mask, y);
    return y;
}

}  // namespace stochastic_depth
