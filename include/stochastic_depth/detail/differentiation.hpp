// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>
#include <type_traits>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/detail/structure.hpp>

/// Forward with a record and backward through it, in place: one matrix of activations (of their
/// gradients) goes through the whole network, and each plain layer keeps the input that it was
/// given by taking it over, not by copying it. A layer that no sample reaches touches nothing.
namespace stochastic_depth::detail {

/// A layer made of layers: it hands activations on to its parts itself.
template <class Layer>
inline constexpr bool is_composite = requires {
    Layer::has_skippable_layers;
};

/// What a plain layer has after a recorded pass.
template <class Layer>
struct PlainRecord {
    Matrix<typename Layer::Scalar> input;
    typename Layer::Cache cache;
};

template <class Layer>
struct RecordOf {
    using type = PlainRecord<Layer>;
};
template <class Layer>
    requires is_composite<Layer>
struct RecordOf<Layer> {
    using type = typename Layer::Cache;
};
template <class Layer>
using Record = typename RecordOf<Layer>::type;

/// h = layer(h) under a mask; `record` then holds what `backpropagate` needs.
template <class Layer, class Mask>
void record(const Layer& layer, Matrix<typename Layer::Scalar>& h, Record<Layer>& record,
            const Mask& mask) {
    if constexpr (is_composite<Layer>) {
        layer.record(h, record, mask);
    } else {
        record.input.swap(h);
        h.resize(layer.output_size(record.input.rows()), record.input.cols());
        layer.forward(record.input, h, record.cache);
    }
}

/// d = gradient by the layer's input, given d = gradient by its output; the gradient by its
/// parameters is added into `gradient`.
template <class Layer>
void backpropagate(const Layer& layer, Matrix<typename Layer::Scalar>& d,
                   const Record<Layer>& record, typename Layer::Gradient& gradient) {
    if constexpr (is_composite<Layer>) {
        layer.backpropagate(d, record, gradient);
    } else {
        Matrix<typename Layer::Scalar> by_input(record.input.rows(), record.input.cols());
        layer.backward(record.input, d, record.cache, gradient, by_input);
        d.swap(by_input);
    }
}

/// The public forward and backward of a composite, every layer running.
template <class Layer>
void forward_recorded(std::string_view name, const Layer& layer,
                      const ConstMatrixRef<typename Layer::Scalar>& x,
                      MatrixRef<typename Layer::Scalar> y, typename Layer::Cache& cache) {
    check_forward(name, layer, x, y);
    Matrix<typename Layer::Scalar> h = x;
    layer.record(h, cache, EveryLayer{});
    y = h;
}
template <class Layer>
void backward_recorded(std::string_view name, const Layer& layer,
                       const ConstMatrixRef<typename Layer::Scalar>& x,
                       const ConstMatrixRef<typename Layer::Scalar>& dy,
                       const typename Layer::Cache& cache, typename Layer::Gradient& gradient,
                       MatrixRef<typename Layer::Scalar> dx) {
    check_backward(name, layer, x, dy, dx);
    Matrix<typename Layer::Scalar> d = dy;
    layer.backpropagate(d, cache, gradient);
    dx = d;
}

}  // namespace stochastic_depth::detail
