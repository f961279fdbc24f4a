// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/image/image_shape.hpp>

/// A window that slides over an image, and where it reaches beyond the border.
namespace stochastic_depth::detail {

/// One axis of it: output q sees the entries first + step q + t, t = 0, ..., taps - 1, of those
/// that exist, 0, ..., size - 1.
struct WindowAxis {
    Index outputs;
    Index first;
    Index step;
    Index taps;
    Index size;
};

/// Consecutive outputs whose window is cut off in one way: taps low, ..., high - 1 exist.
struct WindowRun {
    Index begin;
    Index count;
    Index low;
    Index high;
};

/// The taps that exist of one output.
[[nodiscard]] inline WindowRun window_at(const WindowAxis& axis, Index q) {
    const Index first = axis.first + axis.step * q;
    const Index low = std::clamp<Index>(-first, 0, axis.taps);
    return {q, 1, low, std::clamp(axis.size - first, low, axis.taps)};
}

/// Calls visit(run) for all outputs, in order.
template <class Visit>
void for_each_run(const WindowAxis& axis, const Visit& visit) {
    for (Index q = 0; q < axis.outputs;) {
        WindowRun run = window_at(axis, q);
        for (++q; q < axis.outputs; ++q, ++run.count) {
            const WindowRun next = window_at(axis, q);
            if (next.low != run.low || next.high != run.high) break;
        }
        visit(run);
    }
}

/// A square window on images of one shape.
struct Window {
    Index kernel;
    Index stride;
    Index padding;

    [[nodiscard]] WindowAxis axis(Index size) const {
        return {(size + 2 * padding - kernel) / stride + 1, -padding, stride, kernel, size};
    }

    [[nodiscard]] ImageShape output_shape(const ImageShape& input, Index channels) const {
        return {channels, axis(input.height).outputs, axis(input.width).outputs};
    }

    /// \param largest_padding  What the layer can do with.
    /// \throws std::invalid_argument  unless the window fits into the padded image.
    void check(std::string_view who, const ImageShape& input, Index largest_padding) const {
        check_image_shape(who, "input", input);
        if (kernel < 1) refuse(who, ": kernel must be at least 1, got ", kernel);
        if (stride < 1) refuse(who, ": stride must be at least 1, got ", stride);
        if (!(padding >= 0 && padding <= largest_padding))
            refuse(who, ": padding must lie in [0, ", largest_padding, "], got ", padding);
        const Index side = std::min(input.height, input.width) + 2 * padding;
        if (kernel > side)
            refuse(who, ": kernel must be at most ", side, ", the padded image's side, got ",
                   kernel);
    }
};

}  // namespace stochastic_depth::detail
