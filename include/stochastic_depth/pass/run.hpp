// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <type_traits>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/pass/batch.hpp>
#include <stochastic_depth/pass/leaf_record.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
#include <stochastic_depth/pass/parts.hpp>

/// The one way through a network, forward and back. A layer that runs itself is asked to; any other
/// one is a leaf, and runs here.
namespace stochastic_depth::detail {

struct NoRecord {};

template <class Layer, class Memory>
struct RecordType {
    using type = NoRecord;
};
template <class Layer>
    requires(!RunsItself<Layer>)
struct RecordType<Layer, Records> {
    using type = LeafRecord<Layer>;
};
template <class Layer, class Memory>
    requires RunsItself<Layer>
struct RecordType<Layer, Memory> {
    using type = typename Layer::template Record<Memory>;
};

/// What a pass with such a memory leaves of a layer: after one that forgets, nothing.
template <class Layer, class Memory>
using RecordOf = typename RecordType<Layer, Memory>::type;

/// Columns of a matrix for one member of a team: whole tiles of the product.
inline constexpr Index columns_of_member = tile_columns;

/// Multiply-adds for one column, or as long as they take: what the layer says, or a guess.
template <class Layer>
[[nodiscard]] double work_of(const Layer& layer, Index inputs, Index outputs) {
    if constexpr (requires { layer.work(); })
        return layer.work();
    else
        return 4 * work_of_moving * static_cast<double>(std::max(inputs, outputs));
}

/// y = epilogue(leaf(x)) in one pass where the leaf can, else in two. `origin` is where x and y stand
/// in what the epilogue knows.
template <class Layer, class Epilogue>
void run_leaf(const Layer& layer, const ConstView<typename Layer::Scalar>& x,
              View<typename Layer::Scalar> y, const Epilogue& epilogue, Origin origin = {}) {
    using Scalar = typename Layer::Scalar;
    if constexpr (requires { layer.forward_fused(x, y, epilogue, origin); }) {
        layer.forward_fused(x, y, epilogue, origin);
    } else if constexpr (ElementwiseLayer<Layer>) {
        transform<Scalar>(x, y, followed_by(ApplyElementwise<Layer>{layer}, epilogue), origin);
    } else {
        layer.forward(x, y);
        if constexpr (!std::is_same_v<Epilogue, AsIs>) transform<Scalar>(y, y, epilogue, origin);
    }
}

template <class Layer, class Memory, class Epilogue>
void run_and_record_leaf(const Layer& layer, Batch<typename Layer::Scalar, Memory>& batch,
                         LeafRecord<Layer>& record, const Epilogue& epilogue) {
    if constexpr (keeps_output<Layer>) {
        batch.apply(ApplyElementwise<Layer>{layer});
        record.output = batch.keep();
        batch.apply(epilogue);
    } else {
        record.input = batch.keep();
        const auto x = record.input.view();
        auto result = batch.room(layer.output_size(x.rows()));
        auto y = result.writable();
        if constexpr (!needs_input_alone<Layer>)
            layer.forward(x, y, record.cache);
        else
            batch.team().split(x.cols(), columns_of_member, work_of(layer, x.rows(), y.rows()),
                               [&](Index first, Index count) {
                                   run_leaf(layer, const_view(x.middleCols(first, count)),
                                            view(y.middleCols(first, count)), epilogue, {0, first});
                               });
        batch = std::move(result);
        if constexpr (!needs_input_alone<Layer>) batch.apply(epilogue);
    }
}

/// batch = epilogue(layer(batch)) under a mask, of which the layer at hand is the first; `record`
/// then holds what `backpropagate` needs.
template <class Layer, class Memory, class Mask, class Epilogue = AsIs>
void run(const Layer& layer, Batch<typename Layer::Scalar, Memory>& batch,
         RecordOf<Layer, Memory>& record, const Mask& mask, const Epilogue& epilogue = {}) {
    static_assert(RunsItself<Layer> || !has_skippable_layers<Layer>);
    if constexpr (Memory::records && !reads_chosen_columns<Layer>) batch.flatten();
    if constexpr (RunsItself<Layer>) {
        layer.run(batch, record, mask, epilogue);
    } else if constexpr (Memory::records) {
        run_and_record_leaf(layer, batch, record, epilogue);
    } else if constexpr (requires {
                             layer.forward_fused(batch.current(), batch.writable(), epilogue,
                                                 Origin{});
                         }) {
        const Index outputs = layer.output_size(batch.rows());
        if constexpr (is_redirected<Epilogue>) {
            // The place where the product is stored anyway is all the room that it needs.
            const auto to = epilogue.destination(Origin{});
            const View<typename Layer::Scalar> y{to.data, outputs, batch.columns(),
                                                 Eigen::OuterStride<>(to.stride)};
            layer.forward_fused(batch.current(), y, epilogue.before_store(), Origin{});
            batch = batch.stored_in(const_view(y));
        } else {
            auto result = batch.room(outputs);
            layer.forward_fused(batch.current(), result.writable(), epilogue, Origin{});
            batch = std::move(result);
        }
    } else if constexpr (ElementwiseLayer<Layer>) {
        batch.apply(followed_by(ApplyElementwise<Layer>{layer}, epilogue));
    } else {
        auto result = batch.room(layer.output_size(batch.rows()));
        layer.forward(batch.current(), result.writable());
        batch = std::move(result);
        batch.apply(epilogue);
    }
}

/// The gradients of a batch on their way back: memory that is used again and again.
template <class Scalar>
using GradientBatch = Batch<Scalar, Forgets>;

/// batch = epilogue(gradient by the layer's input), given the gradient by its output; that by its
/// parameters is added into `gradient`. A layer that no sample reaches touches nothing. With the
/// epilogue Discard the batch is of no use afterwards.
template <class Layer, class Epilogue = AsIs>
void backpropagate(const Layer& layer, GradientBatch<typename Layer::Scalar>& batch,
                   const RecordOf<Layer, Records>& record, typename Layer::Gradient& gradient,
                   const Epilogue& epilogue = {}) {
    using Scalar = typename Layer::Scalar;
    if constexpr (RunsItself<Layer>) {
        layer.backpropagate(batch, record, gradient, epilogue);
        if constexpr (is_skippable<Layer>)
            if (const auto* passed = batch.memory().passed) (*passed)(gradient.reached);
    } else if constexpr (has_derivative<Layer>) {
        batch.apply(followed_by(by_derivative(layer, record), epilogue));
    } else {
        constexpr bool no_gradient = std::is_empty_v<typename Layer::Gradient>;
        if constexpr (no_gradient && is_discarded<Epilogue>) return;
        const auto x = record.input.view();
        const auto dy = batch.current();
        constexpr bool is_fused = requires(View<Scalar> dx) {
            layer.backward_fused(batch.team(), x, dy, gradient, dx, epilogue);
        };
        if constexpr (is_fused && is_discarded<Epilogue>) {
            layer.add_gradient(batch.team(), x, dy, gradient);
        } else {
            auto result = batch.room(x.rows());
            auto dx = result.writable();
            if constexpr (is_fused)
                layer.backward_fused(batch.team(), x, dy, gradient, dx, epilogue);
            else if constexpr (no_gradient && needs_input_alone<Layer>)
                batch.team().split(x.cols(), 1, work_of(layer, x.rows(), dy.rows()),
                                   [&](Index first, Index count) {
                                       layer.backward(x.middleCols(first, count),
                                                      dy.middleCols(first, count), record.cache,
                                                      gradient, dx.middleCols(first, count));
                                   });
            else
                layer.backward(x, dy, record.cache, gradient, dx);
            batch = std::move(result);
            if constexpr (!is_fused) batch.apply(epilogue);
        }
    }
}

}  // namespace stochastic_depth::detail
