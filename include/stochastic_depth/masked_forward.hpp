// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/pass/run_into.hpp>

namespace stochastic_depth {

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
    detail::check_mask("masked_forward", network, mask, x.cols());
    detail::run_into(network, x, detail::MaskView{mask}, y);
}

/// y(:, j) = NN(x(:, j), S_j), one mask for each sample: each layer gathers the columns that keep
/// it, runs on them alone, and stores the result in their places.
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
    detail::check_mask("masked_forward", network, masks, x.cols());
    detail::run_into(network, x, detail::MaskView{masks}, y);
}

/// NN(x, S), [outputs x batch], as `network(x, mask)`.
template <MaskedNetwork Network, class Mask>
[[nodiscard]] Matrix<typename Network::Scalar> masked_forward(
    const Network& network, const ConstMatrixRef<typename Network::Scalar>& x, const Mask& mask) {
    Matrix<typename Network::Scalar> y(network.output_size(x.rows()), x.cols());
    masked_forward(network, x, mask, y);
    return y;
}

}  // namespace stochastic_depth
