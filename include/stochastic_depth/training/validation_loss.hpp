// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <optional>
#include <vector>

#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/pass/run_into.hpp>
#include <stochastic_depth/survival/scaling.hpp>
#include <stochastic_depth/text/lengths.hpp>
#include <stochastic_depth/training/similar_lengths.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The mean loss over the samples of the network as it is used after a training with this scaling:
/// by weight scaling, or at full depth. Blocks of columns, so that memory does not grow with the
/// data.
/// \param p         How often each layer that is reached is kept.
/// \param batching  Where the inputs are sequences: those of similar lengths are taken together, cut
///                  to the longest.
template <class Network, class Data, class Loss>
[[nodiscard]] double validation_loss(const Network& network, const Data& data, const Loss& loss,
                                     Scaling scaling, const Eigen::VectorXd& p,
                                     const std::optional<SimilarLengths>& batching = {}) {
    using Scalar = typename Network::Scalar;
    constexpr Index block = 256;
    std::vector<Index> order(static_cast<std::size_t>(data.size()));
    std::iota(order.begin(), order.end(), Index{0});
    if (batching) {
        const std::vector<Index> lengths = lengths_of(data.inputs());
        std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
            return lengths[static_cast<std::size_t>(a)] < lengths[static_cast<std::size_t>(b)];
        });
    }
    const Index outputs = network.output_size(data.features());
    Matrix<Scalar> x, y, gradient, spare;
    typename Data::Targets targets;
    double sum = 0.0;
    for (Index first = 0; first < data.size(); first += block) {
        const Index count = std::min(block, data.size() - first);
        x.resize(data.features(), count);
        y.resize(outputs, count);
        gradient.resize(outputs, count);
        data.resize_targets(targets, count);
        data.gather(order, first, count, x, targets);
        if (batching) detail::cut_to_longest(x, spare);
        if (scaling == Scaling::none)
            run_into(network, x, MeanOfMasks(p.data()), y);
        else
            network.forward(x, y);
        sum += static_cast<double>(count) * loss.value_and_gradient(y, targets, gradient);
    }
    return sum / static_cast<double>(data.size());
}

}  // namespace stochastic_depth::detail
