// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/kernels/transpose.hpp>
#include <stochastic_depth/layers/image/convolution.hpp>

/// The gradient of a convolution by its input: convolutions of the slopes with turned weights, one
/// for entries of the image that lie a stride apart, which were seen through the same taps.
namespace stochastic_depth::detail {

/// The way back along an axis: entries begin, begin + stride, ... of the image were seen through the
/// taps phase, phase + stride, ... alone.
struct WayBack {
    Index phase;
    /// Windows over the result, whose outputs are those entries.
    WindowAxis axis;

    /// \param begin  Below the stride and the image's size.
    WayBack(const WindowAxis& forward, Index begin) {
        const Index stride = forward.step, padded = begin - forward.first;
        phase = padded % stride;
        const Index taps = (std::max<Index>(forward.taps - phase, 0) + stride - 1) / stride;
        axis = {(forward.size - 1 - begin) / stride + 1, padded / stride - (taps - 1), 1, taps,
                forward.outputs};
    }
};

/// Calls visit(windows over the slopes, way back across, way back down) for each convolution.
template <class Visit>
void for_each_way_back(const Windows& forward, const Visit& visit) {
    const Index channels = forward.inputs, row = channels * forward.across.size;
    for (Index v = 0; v < std::min(forward.down.step, forward.down.size); ++v)
        for (Index u = 0; u < std::min(forward.across.step, forward.across.size); ++u) {
            const WayBack across(forward.across, u), down(forward.down, v);
            visit(Windows{across.axis, down.axis, forward.outputs, channels, channels * u + row * v,
                          channels * forward.across.step, row * forward.down.step},
                  across, down);
        }
}

/// Calls visit(tap) for the taps of a way back in their order there, which is turned.
template <class Visit>
void for_each_turned_tap(const Windows& w, const WayBack& across, const WayBack& down,
                         const Visit& visit) {
    for (Index v = down.axis.taps; v-- > 0;)
        for (Index u = across.axis.taps; u-- > 0;)
            visit(across.phase + u * w.across.step +
                  w.across.taps * (down.phase + v * w.down.step));
}

/// The turned, transposed weights of a way back, [inputs x (outputs, taps across, taps down)].
template <class Scalar>
void pack_way_back(const Windows& w, const Scalar* weights, const WayBack& across,
                   const WayBack& down, Scalar* to) {
    for_each_turned_tap(w, across, down, [&](Index tap) {
        transpose(w.outputs, w.inputs, weights + w.outputs * w.inputs * tap, w.outputs, to,
                  w.inputs);
        to += w.inputs * w.outputs;
    });
}

}  // namespace stochastic_depth::detail
