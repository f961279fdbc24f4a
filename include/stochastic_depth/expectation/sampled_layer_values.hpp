// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/forward_under_each.hpp>
#include <stochastic_depth/expectation/layer_values.hpp>
#include <stochastic_depth/pass/evaluations.hpp>
#include <stochastic_depth/pass/work.hpp>
#include <stochastic_depth/random/shuffle.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/survival/independent_law.hpp>
#include <stochastic_depth/survival/mask_law.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>

namespace stochastic_depth {

struct SampledLayerValueOptions {
    /// Number of antithetic pairs, at least 2: of an order of the layers and its reverse, or of a
    /// mask and its complement.
    Index pairs = 100;
    std::uint64_t seed = 0;
    /// Threads to share the columns, at least 1; no more begin than find enough to do. The result
    /// has the same bits for any number.
    unsigned threads = 1;
};

namespace detail {

/// One random pair, as the masks to evaluate and, for each layer, the pairs of these masks that
/// differ in it alone.
struct LayerValueItem {
    struct Difference {
        Index layer;
        /// Places of the masks without and with the layer.
        Index without, with;
    };
    SurvivalMasks masks;
    std::vector<Difference> differences;
};

/// The masks along an order of the layers, from none kept to all, and along its reverse.
[[nodiscard]] inline LayerValueItem shapley_item(Index depth, std::uint64_t seed,
                                                 std::uint64_t pair) {
    std::vector<Index> order =
        random_order(depth, stream_key(seed, StreamPurpose::layer_orders, 1), pair);
    LayerValueItem item{SurvivalMasks(depth, 2 * (depth + 1)), {}};
    for (Index start = 0; start <= depth + 1; start += depth + 1) {
        SurvivalMask mask = SurvivalMask::none(depth);
        for (Index i = 0; i < depth; ++i) {
            mask.keep(order[static_cast<std::size_t>(i)]);
            item.masks.set_mask(start + i + 1, mask);
            item.differences.push_back(
                {order[static_cast<std::size_t>(i)], start + i, start + i + 1});
        }
        std::reverse(order.begin(), order.end());
    }
    return item;
}

/// Puts a mask into an item, from place `start` on, and behind it all that differ from it in one
/// layer.
inline void add_neighbours(LayerValueItem& item, Index start, const SurvivalMask& mask) {
    item.masks.set_mask(start, mask);
    for (Index l = 0; l < mask.size(); ++l) {
        SurvivalMask neighbour = mask;
        mask[l] ? neighbour.skip(l) : neighbour.keep(l);
        item.masks.set_mask(start + l + 1, neighbour);
        const Index with = mask[l] ? start : start + l + 1,
                    without = mask[l] ? start + l + 1 : start;
        item.differences.push_back({l, without, with});
    }
}

/// A mask of fair bits, all that differ from it in one layer, and the complements of all these.
[[nodiscard]] inline LayerValueItem banzhaf_item(Index depth, std::uint64_t seed,
                                                 std::uint64_t pair) {
    const auto key = stream_key(seed, StreamPurpose::layer_coalitions, 1);
    SurvivalMask mask = SurvivalMask::none(depth);
    for (std::size_t w = 0; w < mask.words().size(); ++w) {
        const auto bits =
            philox4x32_10({static_cast<std::uint32_t>(w), 0, static_cast<std::uint32_t>(pair),
                           static_cast<std::uint32_t>(pair >> 32)},
                          key);
        mask.set_word(w, std::uint64_t{bits[0]} << 32 | bits[1]);
    }
    LayerValueItem item{SurvivalMasks(depth, 2 * (depth + 1)), {}};
    add_neighbours(item, 0, mask);
    for (Index l = 0; l < depth; ++l) mask[l] ? mask.skip(l) : mask.keep(l);
    add_neighbours(item, depth + 1, mask);
    return item;
}

template <class Network, class Item, class Scalar = typename Network::Scalar>
[[nodiscard]] LayerValues<Scalar> sampled_values(std::string_view name, const Network& network,
                                                 const ConstMatrixRef<Scalar>& x,
                                                 const SampledLayerValueOptions& options,
                                                 const Item& draw) {
    if (options.pairs < 2) refuse(name, ": pairs must be at least 2, got ", options.pairs);
    if (options.threads < 1) refuse(name, ": threads must be at least 1, got 0");
    const Index outputs = network.output_size(x.rows()), depth = network.depth();
    constexpr Index block_columns = 96;
    LayerValues<Scalar> result{ByLayer<Scalar>(outputs, x.cols(), depth),
                               ByLayer<Scalar>(outputs, x.cols(), depth)};
    EvaluationsUnderMasks evaluations(network);
    for (Index k = 0; k < options.pairs; ++k)
        result.layer_evaluations +=
            evaluations(draw(depth, options.seed, static_cast<std::uint64_t>(k)).masks);
    const unsigned threads = threads_for(network, x.rows(), x.cols(), result.layer_evaluations,
                                         options.threads);
    parallel_blocks(x.cols(), block_columns, threads, [&](Index first, Index columns) {
        const Index size = outputs * columns;
        const ConstMatrixRef<Scalar> here = x.middleCols(first, columns);
        Eigen::MatrixXd mean = Eigen::MatrixXd::Zero(size, depth), deviations = mean,
                        value(size, depth);
        Matrix<Scalar> y(outputs, 2 * (depth + 1) * columns);
        for (Index k = 0; k < options.pairs; ++k) {
            const LayerValueItem item = draw(depth, options.seed, static_cast<std::uint64_t>(k));
            forward_under_each(network, here, item.masks, y);
            value.setZero();
            for (const auto& [layer, without, with] : item.differences)
                for (Index i = 0; i < size; ++i)
                    value(i, layer) += 0.5 * (static_cast<double>(y.data()[with * size + i]) -
                                              static_cast<double>(y.data()[without * size + i]));
            // Welford 1962.
            const double share = 1 / static_cast<double>(k + 1);
            for (Index i = 0; i < value.size(); ++i) {
                const double before = value.data()[i] - mean.data()[i];
                mean.data()[i] += share * before;
                deviations.data()[i] += before * (value.data()[i] - mean.data()[i]);
            }
        }
        const double pairs = static_cast<double>(options.pairs);
        for (Index l = 0; l < depth; ++l)
            for (Index i = 0; i < size; ++i) {
                result.value.values()(first * outputs + i, l) = static_cast<Scalar>(mean(i, l));
                result.standard_error.values()(first * outputs + i, l) =
                    static_cast<Scalar>(std::sqrt(deviations(i, l) / (pairs - 1) / pairs));
            }
    });
    return result;
}

}  // namespace detail

/// Estimates of `shapley_values` with their standard errors, for networks too deep for the tree:
/// what keeping a layer adds in random orders of the layers, each taken with its reverse. Unbiased.
///
/// \param network  L skippable layers.
/// \param x        Inputs, [features x batch].
/// \throws std::invalid_argument  if the network cannot take x, or an option is out of range.
/// \complexity     2 (L + 1) masked forward passes for each pair and column.
/// \source         Castro, Gomez & Tejada 2009; Mitchell et al. 2022 for the reverse.
template <MaskedNetwork Network>
[[nodiscard]] LayerValues<typename Network::Scalar> sampled_shapley_values(
    const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
    const SampledLayerValueOptions& options = {}) {
    return detail::sampled_values("sampled_shapley_values", network, x, options,
                                  detail::shapley_item);
}

/// Estimates of `banzhaf_values` with their standard errors: what keeping a layer adds to masks of
/// fair bits, each taken with its complement. Unbiased.
///
/// \param network  L skippable layers.
/// \param x        Inputs, [features x batch].
/// \throws std::invalid_argument  if the network cannot take x, or an option is out of range.
/// \complexity     2 (L + 1) masked forward passes for each pair and column.
template <MaskedNetwork Network>
[[nodiscard]] LayerValues<typename Network::Scalar> sampled_banzhaf_values(
    const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
    const SampledLayerValueOptions& options = {}) {
    return detail::sampled_values("sampled_banzhaf_values", network, x, options,
                                  detail::banzhaf_item);
}

/// Estimates of the derivatives of f_SD by the survival probabilities, which ExactSensitivity gives
/// exactly, with their standard errors: what keeping a layer adds to random masks of the others.
/// Unbiased.
///
/// \param network  L skippable layers.
/// \param x        Inputs, [features x batch].
/// \param law      Of L layers: at these survival probabilities, in place of the network's.
/// \param options  A pair is one of independent masks.
/// \throws std::invalid_argument  if the network cannot take x, the law has another depth, or an
///                                option is out of range.
/// \complexity     2 (L + 1) masked forward passes for each pair and column.
template <MaskedNetwork Network>
[[nodiscard]] LayerValues<typename Network::Scalar> sampled_sensitivities(
    const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
    const IndependentLaw& law, const SampledLayerValueOptions& options = {}) {
    detail::check_law("sampled_sensitivities", law, network.depth());
    const MaskSampler sampler(law.survival_probabilities(), options.seed);
    return detail::sampled_values("sampled_sensitivities", network, x, options,
                                  [&](Index depth, std::uint64_t, std::uint64_t pair) {
                                      const SurvivalMasks masks = sampler.sample(pair, 2);
                                      detail::LayerValueItem item{
                                          SurvivalMasks(depth, 2 * (depth + 1)), {}};
                                      detail::add_neighbours(item, 0, masks.mask(0));
                                      detail::add_neighbours(item, depth + 1, masks.mask(1));
                                      return item;
                                  });
}
template <MaskedNetwork Network>
[[nodiscard]] LayerValues<typename Network::Scalar> sampled_sensitivities(
    const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
    const SampledLayerValueOptions& options = {}) {
    return sampled_sensitivities(network, x, IndependentLaw{network.survival_probabilities()},
                                 options);
}

}  // namespace stochastic_depth
