// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <utility>

#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/kernels/matrix_kernel.hpp>
#include <stochastic_depth/kernels/transpose.hpp>
#include <stochastic_depth/layers/image/window.hpp>
#include <stochastic_depth/memory/scratch.hpp>

/// Convolution as products whose right factor is the image itself: with channels fastest, a row of a
/// window is a run of numbers, and windows side by side are overlapping columns. Nothing is copied,
/// nor padded: where a window reaches beyond the border, its product is shorter.
///
/// An output sums the bias, then window rows in order, in each of them window columns, and of each
/// of those the channels. So its bits depend on nothing but its own window.
namespace stochastic_depth::detail {

/// Windows on one image, and where their outputs stand in its result.
struct Windows {
    WindowAxis across;
    WindowAxis down;
    /// Numbers of a position, in the image and in the result.
    Index inputs;
    Index outputs;
    /// Of the first output's numbers in the result; from one output to the next.
    Index out_first;
    Index out_across;
    Index out_down;
};

/// A row or a column of outputs whose windows are cut off in one way.
struct WindowLine {
    Index count;
    /// Where the windows' first existing tap stands in the image, and from one to the next.
    Index in_first;
    Index in_step;
    /// Where the outputs stand in the result.
    Index out_first;
    Index out_step;
    /// The taps that exist.
    Index left, right, top, bottom;

    [[nodiscard]] bool is_empty() const { return left == right || top == bottom; }
};

/// Calls visit(line) for all outputs, in lines as long as they get.
template <class Visit>
void for_each_line(const Windows& w, const Visit& visit) {
    for_each_run(w.down, [&](const WindowRun& v) {
        for_each_run(w.across, [&](const WindowRun& u) {
            const bool goes_down = v.count > u.count;
            const Index in_down = w.inputs * w.across.size;
            WindowLine line{goes_down ? v.count : u.count,
                            w.inputs * (w.across.first + w.across.step * u.begin + u.low) +
                                in_down * (w.down.first + w.down.step * v.begin + v.low),
                            goes_down ? w.down.step * in_down : w.across.step * w.inputs,
                            w.out_first + w.out_across * u.begin + w.out_down * v.begin,
                            goes_down ? w.out_down : w.out_across,
                            u.low,
                            u.high,
                            v.low,
                            v.high};
            for (Index lines = goes_down ? u.count : v.count; lines > 0; --lines) {
                visit(line);
                line.in_first += goes_down ? w.across.step * w.inputs : w.down.step * in_down;
                line.out_first += goes_down ? w.out_across : w.out_down;
            }
        });
    });
}

/// Epilogue of a line: what the epilogue of the whole result does there. Column j of the product is
/// the `outputs` numbers of the line's output j.
template <class Epilogue>
struct AtLine {
    static constexpr bool stores_elsewhere = detail::stores_elsewhere<Epilogue>;
    Epilogue epilogue;
    Index first;
    Index step;
    Index sample;

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index i, Index j) const {
        return epilogue(value, first + i + j * step, sample);
    }
};

/// Room for the sums of a line, twice.
[[nodiscard]] inline Index line_sums(const Windows& w) {
    return 2 * w.outputs * std::max(w.across.outputs, w.down.outputs);
}

/// Column `sample` of the result = epilogue(bias + weights * windows).
/// \param weights  [outputs x (inputs, taps across, taps down)], inputs fastest.
/// \param bias     [outputs]; null: zero.
/// \param x, y     The image, and the column that it goes to.
/// \param sums     Room for line_sums(w) numbers.
template <class Scalar, class Epilogue>
void convolve(const Windows& w, const Scalar* weights, const Scalar* bias, const Scalar* x,
              Scalar* y, Index sample, Scalar* sums, const Epilogue& epilogue) {
    const Index rows = w.outputs, row_of_window = w.inputs * w.across.taps;
    for_each_line(w, [&](const WindowLine& line) {
        const AtLine<Epilogue> last_step{epilogue, line.out_first, line.out_step, sample};
        const Destination<Scalar> to{y + line.out_first, line.out_step};
        Start<Scalar> start{bias, 0};
        if (line.is_empty())
            return product_onto<Scalar>(rows, 0, line.count, {weights, rows}, start, {x, 1, 0}, to,
                                        last_step);
        const Index inner = w.inputs * (line.right - line.left);
        LeftFactor<Scalar> left{weights + rows * (w.inputs * line.left + row_of_window * line.top),
                                rows};
        RightFactor<Scalar> right{x + line.in_first, 1, line.in_step};
        // Sums wait in two pieces in turn: tiles may overlap, and take some rows twice.
        Scalar* next = sums;
        Scalar* other = sums + rows * line.count;
        for (Index v = line.top; v + 1 < line.bottom; ++v) {
            product_onto<Scalar>(rows, inner, line.count, left, start, right, {next, rows}, AsIs{});
            start = {next, rows};
            std::swap(next, other);
            left.data += rows * row_of_window;
            right.data += w.inputs * w.across.size;
        }
        product_onto<Scalar>(rows, inner, line.count, left, start, right, to, last_step);
    });
}

/// For columns [first, first + count) of the weights: sums += dy * windows^T of one image.
/// \param dy    As the result stands; the widest packet divides w.outputs, so that no tiles overlap.
/// \param sums  [w.outputs x count].
template <class Scalar>
void add_window_products(const Windows& w, const Scalar* x, const Scalar* dy, Index first,
                         Index count, Scalar* sums) {
    const Index rows = w.outputs, row_of_window = w.inputs * w.across.taps;
    for_each_line(w, [&](const WindowLine& line) {
        for (Index v = line.top; v < line.bottom; ++v) {
            // Columns of this row of the window: those that exist and are asked for.
            const Index here = v * row_of_window + w.inputs * line.left;
            const Index begin = std::max(first, here);
            const Index end = std::min(first + count, v * row_of_window + w.inputs * line.right);
            if (begin >= end) continue;
            Scalar* const to = sums + rows * (begin - first);
            const Scalar* const from =
                x + line.in_first + (v - line.top) * w.inputs * w.across.size + (begin - here);
            product_onto<Scalar>(rows, line.count, end - begin,
                                 {dy + line.out_first, line.out_step}, {to, rows},
                                 {from, line.in_step, 1}, {to, rows}, AsIs{});
        }
    });
}

/// Channels rounded up to whole packets of the widest kind.
template <class Scalar>
[[nodiscard]] Index whole_packets(Index channels) {
    constexpr Index lanes = widest_lanes<Scalar>;
    return (channels + lanes - 1) / lanes * lanes;
}

/// Images whose products are summed by themselves, before they are added, have about so many
/// positions: that keeps the rounding error of long sums down.
inline constexpr Index positions_in_chunk = 4096;

/// Columns [first, first + count) of the gradient by weights: += dy * windows^T.
/// \param w         The windows, with whole packets of numbers for each output.
/// \param channels  Of the output.
template <class X, class Slope, class Scalar>
void add_weight_gradient(const Windows& w, Index channels, const X& x, const Slope& dy, Index first,
                         Index count, Scalar* gradient) {
    const Index rows = w.outputs, positions = w.across.outputs * w.down.outputs;
    const bool is_whole = rows == channels;
    const ScratchArray<Scalar> sums(rows * count);
    const ScratchArray<Scalar> wide(is_whole ? 0 : rows * positions);
    if (!is_whole) std::fill_n(wide.data(), rows * positions, Scalar(0));
    const Index in_chunk = std::max<Index>(1, positions_in_chunk / positions);
    for (Index chunk = 0; chunk < x.cols(); chunk += in_chunk) {
        std::fill_n(sums.data(), rows * count, Scalar(0));
        for (Index j = chunk; j < std::min(chunk + in_chunk, x.cols()); ++j) {
            const Scalar* slopes = dy.data() + j * dy.outerStride();
            if (!is_whole) {
                for (Index p = 0; p < positions; ++p)
                    std::copy_n(slopes + p * channels, channels, wide.data() + p * rows);
                slopes = wide.data();
            }
            add_window_products(w, x.data() + j * x.outerStride(), slopes, first, count,
                                sums.data());
        }
        for (Index k = 0; k < count; ++k)
            for (Index i = 0; i < channels; ++i)
                gradient[i + (first + k) * channels] += sums[i + k * rows];
    }
}

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

/// The turned, transposed weights of a way back, [inputs x (outputs, taps across, taps down)].
template <class Scalar>
void pack_way_back(const Windows& w, const Scalar* weights, const WayBack& across,
                   const WayBack& down, Scalar* to) {
    for (Index v = down.axis.taps; v-- > 0;)
        for (Index u = across.axis.taps; u-- > 0; to += w.inputs * w.outputs) {
            const Index tap =
                across.phase + u * w.across.step + w.across.taps * (down.phase + v * w.down.step);
            transpose(w.outputs, w.inputs, weights + w.outputs * w.inputs * tap, w.outputs, to,
                      w.inputs);
        }
}

}  // namespace stochastic_depth::detail
