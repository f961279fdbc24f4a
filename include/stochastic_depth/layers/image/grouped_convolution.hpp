// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <type_traits>

#include <stochastic_depth/kernels/packet.hpp>
#include <stochastic_depth/layers/image/convolution.hpp>
#include <stochastic_depth/layers/image/way_back.hpp>
#include <stochastic_depth/memory/scratch.hpp>

/// Convolutions whose channels are in groups, of which each output sees its own alone. Channels of a
/// group are copied side by side, image by image, and are then a convolution like any other. Where
/// each channel is a group of its own, lanes of a packet are channels, and nothing is copied.
///
/// Sums have the order of convolution.hpp: of a window, the channels of the group.
namespace stochastic_depth::detail {

/// How the channels of a convolution are divided.
struct ChannelGroups {
    Index count;
    /// Of a position, in the image and in the result.
    Index inputs;
    Index outputs;

    [[nodiscard]] bool is_one() const { return count == 1; }
    /// Whether each channel is by itself.
    [[nodiscard]] bool is_depthwise() const {
        return count > 1 && count == inputs && count == outputs;
    }
    /// Whether channels are copied.
    [[nodiscard]] bool is_copied() const { return !is_one() && !is_depthwise(); }
    [[nodiscard]] ChannelGroups turned() const { return {count, outputs, inputs}; }
    /// The windows of a single group, with its outputs in their places.
    [[nodiscard]] Windows windows_of(Index group, const Windows& all) const {
        Windows one = all;
        one.inputs = inputs / count;
        one.outputs = outputs / count;
        one.out_first += group * one.outputs;
        return one;
    }
};

/// The weights as kernels take them: group after group, [outputs of a group x window]. They are
/// where they are, unless channels are copied.
template <class Scalar>
class PackedGroups {
public:
    /// \param weights  [outputs x window]; must outlive this.
    PackedGroups(const ChannelGroups& groups, const Matrix<Scalar>& weights)
        : packed_(groups.is_copied() ? weights.size() : 0),
          weights_(groups.is_copied() ? packed_.data() : weights.data()) {
        if (!groups.is_copied()) return;
        const Index rows = groups.outputs / groups.count;
        Scalar* to = packed_.data();
        for (Index g = 0; g < groups.count; ++g)
            for (Index k = 0; k < weights.cols(); ++k)
                to = std::copy_n(weights.data() + g * rows + k * groups.outputs, rows, to);
    }
    [[nodiscard]] const Scalar* data() const { return weights_; }

private:
    ScratchArray<Scalar> packed_;
    const Scalar* weights_;
};

/// Channels [first, first + count) of an image's positions, side by side.
template <class Scalar>
void copy_channels(const Scalar* image, Index channels, Index positions, Index first, Index count,
                   Scalar* to) {
    for (Index p = 0; p < positions; ++p, to += count)
        std::copy_n(image + first + p * channels, count, to);
}

/// The taps of a window that exist, and the gaps from one row of them to the next.
struct TapsOfChannels {
    Index rows;
    Index columns;
    Index weight_gap;
    Index input_gap;
};

/// sum += weights * inputs of windows side by side, `step` apart, which share the weights: the chain
/// of multiply-adds of each lane is a channel's.
template <int Columns, class P, class Scalar>
EIGEN_ALWAYS_INLINE void sum_windows(Index channels, const TapsOfChannels& taps,
                                     const Scalar* weight, const Scalar* input, Index step,
                                     Array<P, Columns>& sum) {
    for (Index row = taps.rows; row > 0; --row, weight += taps.weight_gap, input += taps.input_gap)
        for (Index tap = taps.columns; tap > 0; --tap, weight += channels, input += channels) {
            const P factor = P::load(weight);
            STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < Columns; ++c)
                sum[c] = multiply_add(factor, P::load(input + c * step), sum[c]);
        }
}

/// `convolve` of channels that are by themselves.
/// \param weights  [channels x (taps across, taps down)].
template <int Lanes, class Scalar, class Epilogue>
void convolve_channels(const Windows& w, const Scalar* weights, const Scalar* bias, const Scalar* x,
                       Scalar* y, Index sample, const Epilogue& epilogue) {
    using P = Packet<Scalar, Lanes>;
    const Index channels = w.outputs;
    if constexpr (Lanes > 1) {
        if (channels < Lanes)
            return convolve_channels<P::narrower>(w, weights, bias, x, y, sample, epilogue);
    }
    for_each_region(w, [&](const WindowRegion& region) {
        const Index across = region.right - region.left;
        const TapsOfChannels taps{region.bottom - region.top, across,
                                  channels * (w.across.taps - across),
                                  channels * (w.across.size - across)};
        const Index first_tap = channels * (region.left + w.across.taps * region.top);
        for (Index line = 0; line < region.lines; ++line) {
            const Index out_first = region.out_first + line * region.out_line;
            const auto last_step = at_line(epilogue, out_first, region.out_step, sample, channels);
            const Destination<Scalar> to{y + out_first, region.out_step};
            const Scalar* const from = x + region.in_first + line * region.in_line;
            const auto tile = [&]<int columns>(std::integral_constant<int, columns>, Index i,
                                               Index first) {
                Array<P, columns> sum;
                STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < columns; ++c)
                    sum[c] = bias ? P::load(bias + i) : P::broadcast(Scalar(0));
                sum_windows<columns>(channels, taps, weights + first_tap + i,
                                     from + i + first * region.in_step, region.in_step, sum);
                STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < columns; ++c)
                    finish(last_step, sum[c], i, first + c, to, Origin{});
            };
            constexpr int wide = 4;
            for (Index c = 0; c < channels; c += Lanes) {
                // The last packet may overlap the one before.
                const Index i = std::min(c, channels - Lanes);
                Index q = 0;
                for (; q + wide <= region.count; q += wide)
                    tile(std::integral_constant<int, wide>(), i, q);
                for (; q < region.count; ++q) tile(std::integral_constant<int, 1>(), i, q);
            }
        }
    });
}

/// `convolve` of channels in groups; weights are packed.
template <class Scalar, class Epilogue>
void convolve_in_groups(const Windows& w, const ChannelGroups& groups, const Scalar* weights,
                        const Scalar* bias, const Scalar* x, Scalar* y, Index sample,
                        const Epilogue& epilogue) {
    if (groups.is_one()) return convolve(w, weights, bias, x, y, sample, epilogue);
    if (groups.is_depthwise())
        return convolve_channels<widest_lanes<Scalar>>(w, weights, bias, x, y, sample, epilogue);
    const Index positions = w.across.size * w.down.size;
    const Index inputs = groups.inputs / groups.count, outputs = groups.outputs / groups.count;
    const Index weights_of_group = inputs * outputs * w.across.taps * w.down.taps;
    const ScratchArray<Scalar> image(inputs * positions);
    for (Index g = 0; g < groups.count; ++g) {
        copy_channels(x, groups.inputs, positions, g * inputs, inputs, image.data());
        convolve(groups.windows_of(g, w), weights + g * weights_of_group,
                 bias ? bias + g * outputs : nullptr, static_cast<const Scalar*>(image.data()), y,
                 sample, epilogue);
    }
}

/// `pack_way_back` of packed weights.
template <class Scalar>
void pack_way_back_in_groups(const Windows& w, const ChannelGroups& groups, const Scalar* weights,
                             const WayBack& across, const WayBack& down, Scalar* to) {
    if (!groups.is_depthwise()) {
        const Windows one = groups.windows_of(0, w);
        const Index channels = one.inputs * one.outputs;
        for (Index g = 0; g < groups.count; ++g) {
            pack_way_back(one, weights, across, down, to);
            weights += channels * w.across.taps * w.down.taps;
            to += channels * across.axis.taps * down.axis.taps;
        }
        return;
    }
    for_each_turned_tap(w, across, down, [&](Index tap) {
        to = std::copy_n(weights + groups.count * tap, groups.count, to);
    });
}

/// Outputs q of an axis that see an entry through tap t: begin, ..., end - 1.
struct SeenThrough {
    Index begin;
    Index end;

    SeenThrough(const WindowAxis& axis, Index t) {
        const Index first = axis.first + t;
        begin = first < 0 ? (-first + axis.step - 1) / axis.step : 0;
        end = first < axis.size ? (axis.size - 1 - first) / axis.step + 1 : 0;
        end = std::min(end, axis.outputs);
    }
};

/// Taps [first, first + count) of the gradient by the weights of channels that are by themselves:
/// += sum over images and positions of dy x.
template <int Lanes, class Slope, class Scalar>
void add_channel_gradient(const Windows& w, const ConstView<Scalar>& x, const Index* columns,
                          const Slope& dy, Index first, Index count, Scalar* gradient) {
    using P = Packet<Scalar, Lanes>;
    const Index channels = w.outputs;
    if constexpr (Lanes > 1) {
        if (channels < Lanes)
            return add_channel_gradient<P::narrower>(w, x, columns, dy, first, count, gradient);
    }
    const Index step = channels * w.across.step;
    // Positions in turn: one sum would wait for its last addition.
    constexpr int ways = 4;
    for (Index tap = first; tap < first + count; ++tap) {
        const Index u = tap % w.across.taps, v = tap / w.across.taps;
        const SeenThrough across(w.across, u), down(w.down, v);
        for (Index c = 0; c < channels; c += Lanes) {
            const Index i = std::min(c, channels - Lanes);
            P total = P::broadcast(Scalar(0));
            for (Index j = 0; j < dy.cols(); ++j) {
                const Scalar* const image = x.data() + (columns ? columns[j] : j) * x.outerStride();
                Array<P, ways> sum;
                STOCHASTIC_DEPTH_UNROLL for (P& one : sum) one = P::broadcast(Scalar(0));
                for (Index r = down.begin; r < down.end; ++r) {
                    const Index in_row = w.down.first + w.down.step * r + v;
                    const Scalar* from = image + i +
                                         channels * (in_row * w.across.size + w.across.first + u +
                                                     w.across.step * across.begin);
                    const Scalar* slope = dy.data() + j * dy.outerStride() + i +
                                          channels * (r * w.across.outputs + across.begin);
                    Index left = across.end - across.begin;
                    const auto add = [&](auto k) {
                        sum[k] = multiply_add(P::load(slope), P::load(from), sum[k]);
                        from += step;
                        slope += channels;
                    };
                    for (; left >= ways; left -= ways) unroll<ways>(add);
                    for (; left > 0; --left) add(std::integral_constant<int, 0>());
                }
                total = total + ((sum[0] + sum[1]) + (sum[2] + sum[3]));
            }
            // What the last packet has in common with the one before is there already.
            alignas(64) Array<Scalar, Lanes> sums;
            total.store(sums);
            for (Index lane = c - i; lane < Lanes; ++lane)
                gradient[i + lane + channels * tap] += sums[lane];
        }
    }
}

/// Groups [first, first + count) of the gradient by the weights: += dy * windows^T.
/// \param gradient  [outputs x window], as the layer has it.
template <class Slope, class Scalar>
void add_group_gradient(const Windows& w, const ChannelGroups& groups, const ConstView<Scalar>& x,
                        const Index* columns, const Slope& dy, Index first, Index count,
                        Scalar* gradient) {
    const Index inputs = groups.inputs / groups.count, outputs = groups.outputs / groups.count;
    const Windows one = groups.windows_of(0, w).with_outputs(whole_packets<Scalar>(outputs));
    const Index seen = w.across.size * w.down.size, made = w.across.outputs * w.down.outputs;
    const Index window = inputs * w.across.taps * w.down.taps;
    const Index in_chunk = std::max<Index>(1, std::min(positions_in_chunk / made, dy.cols()));
    const ScratchArray<Scalar> images(inputs * seen * in_chunk), slopes(outputs * made * in_chunk);
    const ScratchArray<Scalar> sums(outputs * window);
    for (Index g = first; g < first + count; ++g) {
        std::fill_n(sums.data(), outputs * window, Scalar(0));
        for (Index chunk = 0; chunk < dy.cols(); chunk += in_chunk) {
            const Index n = std::min(in_chunk, dy.cols() - chunk);
            for (Index j = 0; j < n; ++j) {
                const Index k = columns ? columns[chunk + j] : chunk + j;
                copy_channels(x.data() + k * x.outerStride(), groups.inputs, seen, g * inputs,
                              inputs, images.data() + j * inputs * seen);
                copy_channels(dy.data() + (chunk + j) * dy.outerStride(), groups.outputs, made,
                              g * outputs, outputs, slopes.data() + j * outputs * made);
            }
            const auto side_by_side = [n](const Scalar* numbers, Index rows) {
                return ConstView<Scalar>(numbers, rows, n, Eigen::OuterStride<>(rows));
            };
            add_weight_gradient(one, outputs, side_by_side(images.data(), inputs * seen), nullptr,
                                side_by_side(slopes.data(), outputs * made), 0, window,
                                sums.data());
        }
        for (Index k = 0; k < window; ++k)
            for (Index i = 0; i < outputs; ++i)
                gradient[g * outputs + i + k * groups.outputs] += sums[i + k * outputs];
    }
}

/// `add_weight_gradient` of channels in groups: columns [first, first + count) of the gradient, or of
/// channels that are copied so many groups.
template <class Slope, class Scalar>
void add_gradient_in_groups(const Windows& w, const ChannelGroups& groups,
                            const ConstView<Scalar>& x, const Index* columns, const Slope& dy,
                            Index first, Index count, Scalar* gradient) {
    if (groups.is_copied())
        return add_group_gradient(w, groups, x, columns, dy, first, count, gradient);
    if (groups.is_depthwise())
        return add_channel_gradient<widest_lanes<Scalar>>(w, x, columns, dy, first, count,
                                                          gradient);
    add_weight_gradient(w.with_outputs(whole_packets<Scalar>(w.outputs)), groups.outputs, x,
                        columns, dy, first, count, gradient);
}

}  // namespace stochastic_depth::detail
