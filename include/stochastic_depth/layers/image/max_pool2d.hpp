// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string_view>

#include <stochastic_depth/layers/image/pool_layer.hpp>

namespace stochastic_depth {
namespace detail {

struct LargestTap {
    static constexpr std::string_view name = "MaxPool2d";

    template <class Scalar, class Taps>
    static void forward(const Scalar* x, const Taps& taps, Scalar* y) {
        std::copy_n(x + taps(0), taps.channels, y);
        for (Index t = 1; t < taps.count; ++t) {
            const Scalar* const tap = x + taps(t);
            // False for a y that is NaN, true for a tap that is.
            for (Index c = 0; c < taps.channels; ++c) y[c] = is_more(tap[c], y[c]) ? tap[c] : y[c];
        }
    }

    template <class Scalar, class Taps>
    static void backward(const Scalar* x, const Taps& taps, const Scalar* dy, Scalar* dx) {
        for (Index c = 0; c < taps.channels; ++c) {
            Index largest = taps(0) + c;
            for (Index t = 1; t < taps.count; ++t)
                if (is_more(x[taps(t) + c], x[largest])) largest = taps(t) + c;
            dx[largest] += dy[c];
        }
    }

private:
    template <class Scalar>
    [[nodiscard]] static bool is_more(Scalar a, Scalar than) {
        return a > than || (a != a && than == than);
    }
};

}  // namespace detail

/// The largest number of each window, channel by channel; of equal ones the first has the gradient,
/// window rows first. A NaN is larger than any number.
template <class Scalar>
using MaxPool2d = detail::PoolLayer<detail::LargestTap, Scalar>;

}  // namespace stochastic_depth
