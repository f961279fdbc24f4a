// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <utility>

#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/kernels/matrix_kernel.hpp>
#include <stochastic_depth/layers/image/window.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/affine_in_use.hpp>

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

    /// The same with so many numbers for each output, side by side.
    [[nodiscard]] Windows with_outputs(Index numbers) const {
        return {across, down, inputs, numbers, 0, numbers, numbers * across.outputs};
    }
};

/// Outputs whose windows are cut off in one way: lines of them, as long as they get.
struct WindowRegion {
    /// Outputs of a line, and lines.
    Index count;
    Index lines;
    /// Where the first window's first existing tap stands in the image; from one to the next, and
    /// from one line to the next.
    Index in_first;
    Index in_step;
    Index in_line;
    /// Where the outputs stand in the result.
    Index out_first;
    Index out_step;
    Index out_line;
    /// The taps that exist.
    Index left, right, top, bottom;

    [[nodiscard]] bool is_empty() const { return left == right || top == bottom; }
};

/// Calls visit(region) until all outputs are visited.
template <class Visit>
void for_each_region(const Windows& w, const Visit& visit) {
    const Index in_across = w.across.step * w.inputs;
    const Index in_row = w.across.size * w.inputs, in_down = w.down.step * in_row;
    for_each_run(w.down, [&](const WindowRun& v) {
        for_each_run(w.across, [&](const WindowRun& u) {
            WindowRegion region{u.count,
                                v.count,
                                w.inputs * (w.across.first + w.across.step * u.begin + u.low) +
                                    in_row * (w.down.first + w.down.step * v.begin + v.low),
                                in_across,
                                in_down,
                                w.out_first + w.out_across * u.begin + w.out_down * v.begin,
                                w.out_across,
                                w.out_down,
                                u.low,
                                u.high,
                                v.low,
                                v.high};
            if (v.count > u.count) {
                std::swap(region.count, region.lines);
                std::swap(region.in_step, region.in_line);
                std::swap(region.out_step, region.out_line);
            }
            visit(region);
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
/// Each step of it by itself. Positions are no matter to what is one for all of them.
template <class Epilogue>
[[nodiscard]] AtLine<Epilogue> at_line(const Epilogue& epilogue, Index first, Index step,
                                       Index sample, Index) {
    return {epilogue, first, step, sample};
}
template <class Scalar>
[[nodiscard]] AtLine<AffineByChannel<Scalar>> at_line(const AffineByChannel<Scalar>& epilogue,
                                                      Index first, Index step, Index sample,
                                                      Index channels) {
    if (epilogue.channels == channels) first = step = 0;
    return {epilogue, first, step, sample};
}
template <class First, class Second>
[[nodiscard]] auto at_line(const Then<First, Second>& epilogue, Index first, Index step,
                           Index sample, Index channels) {
    return Then{at_line(epilogue.first, first, step, sample, channels),
                at_line(epilogue.second, first, step, sample, channels)};
}

/// Column `sample` of the result = epilogue(bias + weights * windows).
/// \param weights  [outputs x (inputs, taps across, taps down)], inputs fastest.
/// \param bias     [outputs]; null: zero.
/// \param x, y     The image, and the column that it goes to.
template <class Scalar, class Epilogue>
void convolve(const Windows& w, const Scalar* weights, const Scalar* bias, const Scalar* x,
              Scalar* y, Index sample, const Epilogue& epilogue) {
    const Index rows = w.outputs, row_of_window = w.inputs * w.across.taps;
    for_each_region(w, [&](const WindowRegion& region) {
        const Index inner = w.inputs * (region.right - region.left);
        const LeftFactor<Scalar> left{
            weights + rows * (w.inputs * region.left + row_of_window * region.top), rows};
        const Segments rows_of_window{region.bottom - region.top, rows * (row_of_window - inner),
                                      w.inputs * w.across.size - inner};
        for (Index line = 0; line < region.lines; ++line) {
            const Index out_first = region.out_first + line * region.out_line;
            const auto last_step = at_line(epilogue, out_first, region.out_step, sample, rows);
            const Destination<Scalar> to{y + out_first, region.out_step};
            if (region.is_empty())
                product_onto<Scalar>(rows, 0, region.count, {weights, rows}, {bias}, {x, 1, 0}, to,
                                     last_step);
            else
                product_onto<Scalar>(
                    rows, inner, region.count, left, {bias},
                    {x + region.in_first + line * region.in_line, 1, region.in_step}, to, last_step,
                    {}, rows_of_window);
        }
    });
}

/// Slopes that a product sums over before the next one goes on from its sums: they and what their
/// windows hold stay in the nearest cache.
inline constexpr Index slopes_at_once = 4096;

/// For columns [first, first + count) of the weights: sums += dy * windows^T of some images.
/// \param x, dy  Images and slopes; the widest packet divides w.outputs, so that no tiles overlap.
/// \param sums   [w.outputs x count].
template <class Scalar>
void add_window_products(const Windows& w, const ConstView<Scalar>& x, const ConstView<Scalar>& dy,
                         Index first, Index count, Scalar* sums) {
    const Index rows = w.outputs, row_of_window = w.inputs * w.across.taps;
    for_each_region(w, [&](const WindowRegion& region) {
        // Lines follow each other; of regions of one line, images do.
        const bool one_line = region.lines == 1;
        const Index lines = one_line ? x.cols() : region.lines;
        const Index in_line = one_line ? x.outerStride() : region.in_line;
        const Index out_line = one_line ? dy.outerStride() : region.out_line;
        const Index lines_at_once = std::max<Index>(1, slopes_at_once / (rows * region.count));
        const auto add = [&](Index line, const Scalar* from, const Scalar* slopes) {
            const Segments segments{std::min(lines_at_once, lines - line),
                                    out_line - region.count * region.out_step,
                                    in_line - region.count * region.in_step};
            for (Index v = region.top; v < region.bottom; ++v) {
                // Columns of this row of the window: those that exist and are asked for.
                const Index row = v * row_of_window, here = row + w.inputs * region.left;
                const Index begin = std::max(first, here);
                const Index end = std::min(first + count, row + w.inputs * region.right);
                if (begin >= end) continue;
                Scalar* const to = sums + rows * (begin - first);
                product_onto<Scalar>(
                    rows, region.count, end - begin, {slopes + line * out_line, region.out_step},
                    {to, rows},
                    {from + line * in_line + (v - region.top) * w.inputs * w.across.size +
                         (begin - here),
                     region.in_step, 1},
                    {to, rows}, AsIs{}, {}, segments);
            }
        };
        for (Index j = 0; j < (one_line ? 1 : x.cols()); ++j)
            for (Index line = 0; line < lines; line += lines_at_once)
                add(line, x.data() + region.in_first + j * x.outerStride(),
                    dy.data() + region.out_first + j * dy.outerStride());
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

/// Some images of x, side by side: where they are, or else copied to `room`.
/// \param columns  Which columns of x are images 0, 1, ...; null: the same.
template <class Scalar>
[[nodiscard]] ConstView<Scalar> images_of_chunk(const ConstView<Scalar>& x, const Index* columns,
                                                Index first, Index count, Scalar* room) {
    if (columns && columns[first + count - 1] - columns[first] != count - 1) {
        const View<Scalar> to(room, x.rows(), count, Eigen::OuterStride<>(x.rows()));
        gather(x, columns + first, to);
        return const_view(to);
    }
    const Index begin = columns ? columns[first] : first;
    return {x.data() + begin * x.outerStride(), x.rows(), count,
            Eigen::OuterStride<>(x.outerStride())};
}

/// Columns [first, first + count) of the gradient by weights: += dy * windows^T.
/// \param w         The windows, with whole packets of numbers for each output.
/// \param channels  Of the output.
/// \param columns   Which columns of x are the images; null: as many as dy has.
template <class Slope, class Scalar>
void add_weight_gradient(const Windows& w, Index channels, const ConstView<Scalar>& x,
                         const Index* columns, const Slope& dy, Index first, Index count,
                         Scalar* gradient) {
    const Index rows = w.outputs, positions = w.across.outputs * w.down.outputs;
    const bool is_whole = rows == channels;
    const Index in_chunk = std::max<Index>(1, std::min(positions_in_chunk / positions, dy.cols()));
    const ScratchArray<Scalar> sums(rows * count);
    const ScratchArray<Scalar> wide(is_whole ? 0 : rows * positions * in_chunk);
    if (!is_whole) std::fill_n(wide.data(), rows * positions * in_chunk, Scalar(0));
    const ScratchArray<Scalar> gathered(columns ? x.rows() * in_chunk : 0);
    for (Index chunk = 0; chunk < dy.cols(); chunk += in_chunk) {
        const Index images = std::min(in_chunk, dy.cols() - chunk);
        std::fill_n(sums.data(), rows * count, Scalar(0));
        const auto slopes = dy.middleCols(chunk, images);
        if (!is_whole)
            for (Index j = 0; j < images; ++j)
                for (Index p = 0; p < positions; ++p)
                    std::copy_n(slopes.data() + p * channels + j * slopes.outerStride(), channels,
                                wide.data() + (j * positions + p) * rows);
        add_window_products(w, images_of_chunk(x, columns, chunk, images, gathered.data()),
                            is_whole ? const_view(slopes)
                                     : ConstView<Scalar>(wide.data(), rows * positions, images,
                                                         Eigen::OuterStride<>(rows * positions)),
                            first, count, sums.data());
        for (Index k = 0; k < count; ++k)
            for (Index i = 0; i < channels; ++i)
                gradient[i + (first + k) * channels] += sums[i + k * rows];
    }
}

}  // namespace stochastic_depth::detail
