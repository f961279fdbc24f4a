// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string_view>
#include <type_traits>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/flow.hpp>
#include <stochastic_depth/pass/slopes.hpp>
#include <stochastic_depth/pass/structure.hpp>

/// Forward with a record, and the way back through it. A record refers to the tape, where each
/// layer's input stays; epilogues are fused as in a plain forward pass, on the way back those of
/// the gradient by a layer's input. A layer that no sample reaches touches nothing.
namespace stochastic_depth::detail {

/// A layer that takes part in a recorded pass itself, with members `Recorded`,
/// `record(flow, recorded, mask, epilogue)` and `backpropagate(slopes, recorded, gradient,
/// epilogue)`: one that is made of layers, or that does in a training step what it doesn't do in
/// use.
template <class Layer>
inline constexpr bool records_itself = requires {
    typename Layer::Recorded;
};

/// What a plain layer has after a recorded pass.
template <class Layer>
struct PlainRecord {
    Kept<typename Layer::Scalar> input;
    typename Layer::Cache cache;
};

template <class Layer>
struct RecordOf {
    using type = PlainRecord<Layer>;
};
template <class Layer>
    requires records_itself<Layer>
struct RecordOf<Layer> {
    using type = typename Layer::Recorded;
};
template <class Layer>
using Record = typename RecordOf<Layer>::type;

/// Whether the columns of a batch may go through a plain layer in parts: nothing but its input is
/// kept.
template <class Layer>
inline constexpr bool runs_in_parts = std::is_same_v<typename Layer::Cache, NoCache>;

/// A guess at the multiply-adds for one column.
template <class Layer>
[[nodiscard]] double work_of(const Layer& layer, Index inputs, Index outputs) {
    if constexpr (requires { layer.weights(); })
        return static_cast<double>(inputs) * static_cast<double>(outputs);
    else
        return 4 * work_of_moving * static_cast<double>(std::max(inputs, outputs));
}

/// flow = epilogue(layer(flow)) under a mask; `record` then holds what `backpropagate` needs.
template <class Layer, class Mask, class Epilogue = Keep>
void record(const Layer& layer, Flow<typename Layer::Scalar>& flow, Record<Layer>& record,
            const Mask& mask, const Epilogue& epilogue = {}) {
    if constexpr (records_itself<Layer>) {
        layer.record(flow, record, mask, epilogue);
    } else {
        record.input = flow.keep();
        const auto x = record.input.view();
        auto y = flow.room(layer.output_size(x.rows()));
        if constexpr (runs_in_parts<Layer>) {
            flow.team().split(x.cols(), columns_for_each, work_of(layer, x.rows(), y.rows()),
                              [&](Index first, Index count) {
                                  forward_fused(layer, x.middleCols(first, count),
                                                y.middleCols(first, count), epilogue, {0, first});
                              });
            flow.advance(y);
        } else {
            layer.forward(x, y, record.cache);
            flow.advance(y);
            flow.apply(epilogue);
        }
    }
}

/// slopes = epilogue(gradient by the layer's input), given the gradient by its output; that by its
/// parameters is added into `gradient`. With the epilogue Discard the slopes are of no use
/// afterwards.
template <class Layer, class Epilogue = Keep>
void backpropagate(const Layer& layer, Slopes<typename Layer::Scalar>& slopes,
                   const Record<Layer>& record, typename Layer::Gradient& gradient,
                   const Epilogue& epilogue = {}) {
    using Scalar = typename Layer::Scalar;
    if constexpr (records_itself<Layer>) {
        layer.backpropagate(slopes, record, gradient, epilogue);
    } else {
        constexpr bool no_gradient = std::is_same_v<typename Layer::Gradient, NoGradient>;
        if constexpr (no_gradient && std::is_same_v<Epilogue, Discard>) return;
        const auto x = record.input.view();
        if constexpr (requires(View<Scalar> dx) {
                          layer.backward_fused(slopes.team(), x, x, gradient, dx, epilogue);
                      }) {
            if constexpr (std::is_same_v<Epilogue, Discard>)
                layer.add_gradient(slopes.team(), x, slopes.current(), gradient);
            else
                slopes.replace(x.rows(), [&](const ConstView<Scalar>& dy, View<Scalar> dx) {
                    layer.backward_fused(slopes.team(), x, dy, gradient, dx, epilogue);
                });
        } else {
            slopes.replace(x.rows(), [&](const ConstView<Scalar>& dy, View<Scalar> dx) {
                if constexpr (no_gradient && runs_in_parts<Layer>)
                    slopes.team().split(
                        x.cols(), 1, work_of(layer, x.rows(), dy.rows()),
                        [&](Index first, Index count) {
                            layer.backward(x.middleCols(first, count), dy.middleCols(first, count),
                                           record.cache, gradient, dx.middleCols(first, count));
                        });
                else
                    layer.backward(x, dy, record.cache, gradient, dx);
            });
            slopes.apply(epilogue);
        }
    }
}

/// Whether a layer keeps statistics of the batches that it is trained on.
template <class Layer>
inline constexpr bool has_statistics = [] {
    if constexpr (requires { Layer::has_statistics; })
        return Layer::has_statistics;
    else
        return false;
}();

/// Lets such layers take over the statistics of a recorded step.
template <class Layer>
void update_statistics(Layer& layer, const Record<Layer>& record) {
    if constexpr (has_statistics<Layer>) layer.update_statistics(record);
}

/// The public cache of a layer that records itself: a record, and the tape that it refers to.
template <class Recorded>
struct RecordedPass {
    Tape tape;
    Recorded recorded;
};

/// The public forward and backward of a layer that records itself, every layer running.
template <class Layer>
void forward_recorded(std::string_view name, const Layer& layer,
                      const ConstMatrixRef<typename Layer::Scalar>& x,
                      MatrixRef<typename Layer::Scalar> y, typename Layer::Cache& cache) {
    using Scalar = typename Layer::Scalar;
    check_forward(name, layer, x, y);
    cache.tape.clear();
    Flow<Scalar> flow(cache.tape, Team::alone(), x);
    // The caller's x may be gone when the way back begins.
    (void)flow.writable();
    layer.record(flow, cache.recorded, EveryLayer{}, Keep{});
    copy_columns(flow.current(), y);
}
template <class Layer>
void backward_recorded(std::string_view name, const Layer& layer,
                       const ConstMatrixRef<typename Layer::Scalar>& x,
                       const ConstMatrixRef<typename Layer::Scalar>& dy,
                       const typename Layer::Cache& cache, typename Layer::Gradient& gradient,
                       MatrixRef<typename Layer::Scalar> dx) {
    check_backward(name, layer, x, dy, dx);
    Slopes<typename Layer::Scalar> slopes(Team::alone(), dy);
    layer.backpropagate(slopes, cache.recorded, gradient, Keep{});
    copy_columns(slopes.current(), dx);
}

}  // namespace stochastic_depth::detail
