// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>

#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/memory/scratch.hpp>

namespace stochastic_depth {

/// A layer that is, wherever no batch's statistics normalise, a scale and a shift for each channel:
///
///     y(i, j) = scale(c) x(i, j) + shift(c),  c = i mod channels,
///
/// in one rounding. Behind a product whose rows are channels it runs in the product's registers, in
/// passes that record nothing.
///
/// Beyond the syntax: `affine_channels()` divides the rows of x, and is at least 1;
/// `write_affine(scale, shift)` writes so many numbers to each.
///
/// Models: BatchNorm, BatchNorm2d.
template <class Layer>
concept AffineInUse = requires(const Layer& layer, typename Layer::Scalar* to) {
    { layer.affine_channels() } -> std::same_as<Index>;
    layer.write_affine(to, to);
};

namespace detail {

/// Whether the rows of a layer's product are channels, so that a scale and a shift for each fit into
/// its epilogue: a layer says so, or takes epilogues as Linear does.
template <class Layer>
inline constexpr bool rows_are_channels = [] {
    using Scalar = typename Layer::Scalar;
    if constexpr (requires { Layer::rows_are_channels; })
        return Layer::rows_are_channels;
    else
        return requires(const Layer& layer, const ConstView<Scalar>& x, View<Scalar> y) {
            layer.forward_fused(x, y, AsIs{}, Origin{});
        };
}();

/// Epilogue: multiplies by the scale of a row's channel and adds its shift, rounded once where the
/// target has a fused multiply-add. Behind the last channel the first ones are repeated, for packets
/// that go on there.
template <class Scalar>
struct AffineByChannel {
    const Scalar* scale;
    const Scalar* shift;
    Index channels;

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index i, Index) const {
        const Index c = i < channels ? i : i % channels;
        return multiply_add(Packet::load(scale + c), value, Packet::load(shift + c));
    }
};

/// A layer that is affine in use as an epilogue: its numbers, for as long as this lives.
template <class Scalar>
class FoldedLayer {
public:
    template <class Layer>
    explicit FoldedLayer(const Layer& layer)
        : channels_(layer.affine_channels()), numbers_(2 * length()) {
        Scalar* const scale = numbers_.data();
        layer.write_affine(scale, scale + length());
        for (Index c = channels_; c < length(); ++c) {
            scale[c] = scale[c - channels_];
            scale[c + length()] = scale[c + length() - channels_];
        }
    }

    [[nodiscard]] AffineByChannel<Scalar> epilogue() const {
        return {numbers_.data(), numbers_.data() + length(), channels_};
    }

private:
    [[nodiscard]] Index length() const { return channels_ + widest_lanes<Scalar> - 1; }

    Index channels_;
    ScratchArray<Scalar> numbers_;
};

}  // namespace detail
}  // namespace stochastic_depth
