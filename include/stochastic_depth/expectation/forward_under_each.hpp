// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/masked_forward.hpp>

namespace stochastic_depth::detail {

/// y = NN(x, S_k) side by side, for all the masks; few columns pass the network under several masks
/// at once.
template <class Network>
void forward_under_each(const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
                        const SurvivalMasks& masks, MatrixRef<typename Network::Scalar> y) {
    constexpr Index columns_at_once = 192;
    const Index columns = x.cols(), at_once = std::max<Index>(1, columns_at_once / columns);
    for (Index first = 0; first < masks.batch_size(); first += at_once) {
        const Index count = std::min(at_once, masks.batch_size() - first);
        const auto to = y.middleCols(first * columns, count * columns);
        if (count == 1) {
            masked_forward(network, x, masks.mask(first), to);
            continue;
        }
        SurvivalMasks repeated(masks.depth(), count * columns);
        for (Index l = 0; l < masks.depth(); ++l)
            for (Index j = 0; j < count * columns; ++j)
                if (masks(l, first + j / columns)) repeated.keep(l, j);
        masked_forward(network, x.replicate(1, count), repeated, to);
    }
}

}  // namespace stochastic_depth::detail
