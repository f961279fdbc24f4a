// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/survival/mask_law.hpp>
#include <stochastic_depth/survival/probable_masks.hpp>

namespace stochastic_depth {

/// One term of the weighted sum.
template <class Scalar>
struct MaskedOutput {
    SurvivalMask mask;
    /// P(S).
    double probability = 0;
    /// NN(x, S), [outputs x batch].
    Matrix<Scalar> output;
};

/// The deepest network that enumerate_masks lists.
inline constexpr Index max_enumerated_depth = 24;

/// Every survival mask with its probability and its output: what the exact expectation sums,
/// listed. Rows run from (1, ..., 1) to (0, ..., 0), the last layer changing fastest; masks of
/// probability 0 are among them.
///
/// For looking at small networks; ExactExpectation does not need the list.
///
/// \param network  L skippable layers.
/// \param x        Inputs, [features x batch].
/// \returns        2^L rows.
/// \throws std::invalid_argument  if the network cannot take x.
/// \throws std::length_error      if L > max_enumerated_depth, before any work.
/// \complexity     2^L masked forward passes, 2^L outputs in memory.
template <MaskedNetwork Network>
[[nodiscard]] std::vector<MaskedOutput<typename Network::Scalar>> enumerate_masks(
    const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) {
    const Index depth = network.depth();
    if (depth > max_enumerated_depth)
        throw std::length_error(detail::message("enumerate_masks: depth must be at most ",
                                                max_enumerated_depth, ", got ", depth,
                                                "; use ExactExpectation or MonteCarloExpectation"));
    const Eigen::VectorXd p = network.survival_probabilities();
    std::vector<MaskedOutput<typename Network::Scalar>> rows;
    rows.reserve(std::size_t{1} << depth);
    for (std::uint64_t skipped = 0; skipped < std::uint64_t{1} << depth; ++skipped) {
        SurvivalMask mask = SurvivalMask::all(depth);
        for (Index l = 0; l < depth; ++l)
            if ((skipped >> (depth - 1 - l)) & 1u) mask.skip(l);
        rows.push_back({mask, probability(mask, p), masked_forward(network, x, mask)});
    }
    return rows;
}

/// The same under a law: every mask that it gives a probability above 0, in this order.
///
/// \param most  How many masks there may be.
/// \throws std::invalid_argument  if the network cannot take x, the law has another depth, or a
///                                probability lies outside [0, 1].
/// \throws std::length_error      if there are more masks; no layer has run then.
template <MaskedNetwork Network, MaskLaw Law>
[[nodiscard]] std::vector<MaskedOutput<typename Network::Scalar>> enumerate_masks(
    const Network& network, const ConstMatrixRef<typename Network::Scalar>& x, const Law& law,
    std::size_t most = std::size_t{1} << max_enumerated_depth) {
    (void)network.output_size(x.rows());
    detail::check_law("enumerate_masks", law, network.depth());
    std::vector<MaskedOutput<typename Network::Scalar>> rows;
    for (const ProbableMask& row : probable_masks(law, most))
        rows.push_back({row.mask, row.probability, masked_forward(network, x, row.mask)});
    return rows;
}

}  // namespace stochastic_depth
