// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string_view>

#include <stochastic_depth/layers/image/pool_layer.hpp>

namespace stochastic_depth {
namespace detail {

struct MeanOfTaps {
    static constexpr std::string_view name = "AveragePool2d";

    template <class Scalar, class Taps>
    static void forward(const Scalar* x, const Taps& taps, Scalar* y) {
        std::copy_n(x + taps(0), taps.channels, y);
        for (Index t = 1; t < taps.count; ++t) {
            const Scalar* const tap = x + taps(t);
            for (Index c = 0; c < taps.channels; ++c) y[c] += tap[c];
        }
        const auto count = static_cast<Scalar>(taps.count);
        for (Index c = 0; c < taps.channels; ++c) y[c] /= count;
    }

    template <class Scalar, class Taps>
    static void backward(const Scalar*, const Taps& taps, const Scalar* dy, Scalar* dx) {
        const auto count = static_cast<Scalar>(taps.count);
        for (Index t = 0; t < taps.count; ++t) {
            Scalar* const tap = dx + taps(t);
            for (Index c = 0; c < taps.channels; ++c) tap[c] += dy[c] / count;
        }
    }
};

}  // namespace detail

/// The mean of each window, channel by channel: of what of it is in the image.
template <class Scalar>
using AveragePool2d = detail::PoolLayer<detail::MeanOfTaps, Scalar>;

}  // namespace stochastic_depth
