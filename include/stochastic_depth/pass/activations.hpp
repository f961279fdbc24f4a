// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/structure.hpp>

namespace stochastic_depth::detail {

/// The activations of a batch on their way through a network: the caller's input at first, then one
/// of two buffers in turn. A layer that is skipped leaves them where they are.
template <class Scalar>
class Activations {
public:
    using View = detail::View<Scalar>;
    using ConstView = detail::ConstView<Scalar>;

    /// \param x       [features x batch]; read as long as no layer has run.
    /// \param widest  The largest number of rows on the way.
    template <class X>
    Activations(const X& x, Index widest)
        : columns_(x.cols()),
          here_(widest * columns_),
          there_(widest * columns_),
          data_(x.data()),
          rows_(x.rows()),
          stride_(x.outerStride()) {}

    [[nodiscard]] ConstView current() const {
        return {data_, rows_, columns_, Eigen::OuterStride<>(stride_)};
    }

    /// Replaces the activations by layer(activations), written by `run(from, to)`.
    template <class Run>
    void replace(Index rows, const Run& run) {
        Scalar* const target = data_ == here_.data() ? there_.data() : here_.data();
        run(current(), View(target, rows, columns_, Eigen::OuterStride<>(rows)));
        data_ = target;
        rows_ = stride_ = rows;
    }

    template <class Layer>
    void run(const Layer& layer) {
        replace(layer.output_size(rows_),
                [&](const ConstView& from, View to) { forward_fused(layer, from, to, Keep{}); });
    }

    /// The activations for writing: the caller's input is copied first.
    [[nodiscard]] View writable() {
        if (data_ != here_.data() && data_ != there_.data())
            replace(rows_, [](const ConstView& from, View to) { copy_columns(from, to); });
        return {const_cast<Scalar*>(data_), rows_, columns_, Eigen::OuterStride<>(stride_)};
    }

private:
    Index columns_;
    ScratchArray<Scalar> here_;
    ScratchArray<Scalar> there_;
    const Scalar* data_;
    Index rows_;
    Index stride_;
};

/// Sends activations through a layer under a mask: composites hand it on to their parts, slice by
/// slice; any other layer runs.
template <class Layer, class Mask>
void propagate(const Layer& layer, Activations<typename Layer::Scalar>& activations,
               const Mask& mask) {
    if constexpr (has_skippable_layers<Layer>)
        layer.propagate(activations, mask);
    else
        activations.run(layer);
}

}  // namespace stochastic_depth::detail
