// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/shapes.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/walk.hpp>

namespace stochastic_depth {
namespace detail {

/// The records of any number of layers of one type.
template <class Record, bool records>
struct RecordList : std::vector<Record> {};
/// After a pass that forgets there is nothing to tell them apart.
template <class Record>
struct RecordList<Record, false> {
    Record any;
    void resize(std::size_t) {}
    [[nodiscard]] Record& operator[](std::size_t) { return any; }
};

}  // namespace detail

/// Any number of layers of one type, one after another; none is the identity.
///
/// Of `StochasticDepth<Layer>` without skippable layers inside, as many as fit into memory: an
/// expectation goes through those that do not branch in a loop.
template <ForwardLayer Layer>
class Stack : public LayerBase<Stack<Layer>, typename Layer::Scalar, Layer> {
public:
    using Scalar = typename Layer::Scalar;

    /// \throws std::invalid_argument  if neighbours' shapes, where both have one, differ.
    explicit Stack(std::vector<Layer> layers) : layers_(std::move(layers)) {
        detail::check_shapes("Stack", *this);
    }

    [[nodiscard]] const std::vector<Layer>& layers() const { return layers_; }

    /// \throws std::invalid_argument  as the first layer that cannot take its input does.
    [[nodiscard]] Index output_size(Index input_size) const {
        for (const Layer& layer : layers_) input_size = layer.output_size(input_size);
        return input_size;
    }

    /// The shapes of images, from layer to layer.
    void send_shapes(std::string_view who, detail::ShapesOnTheWay& shapes) const {
        for (const Layer& layer : layers_) detail::send_shapes(who, layer, shapes);
    }

    template <class Memory>
    struct Record {
        detail::RecordList<detail::RecordOf<Layer, Memory>, Memory::records> layers;
    };

    struct Gradient {
        std::vector<typename Layer::Gradient> layers;
        void set_zero() {
            for (auto& layer : layers) layer.set_zero();
        }
    };

    [[nodiscard]] Gradient zero_gradient() const {
        Gradient gradient;
        gradient.layers.reserve(layers_.size());
        for (const Layer& layer : layers_) gradient.layers.push_back(layer.zero_gradient());
        return gradient;
    }

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
             const Epilogue& epilogue) const {
        record.layers.resize(layers_.size());
        if (layers_.empty()) return batch.apply(epilogue);
        Mask here = mask;
        for (std::size_t i = 0; i + 1 < layers_.size(); ++i) {
            detail::run(layers_[i], batch, record.layers[i], here);
            here = here.behind(layers_[i]);
        }
        detail::run(layers_.back(), batch, record.layers[layers_.size() - 1], here, epilogue);
    }

    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        check_layers("cache", record.layers.size());
        check_layers("gradient", gradient.layers.size());
        if (layers_.empty()) return batch.apply(epilogue);
        for (std::size_t i = layers_.size(); i-- > 1;)
            detail::backpropagate(layers_[i], batch, record.layers[i], gradient.layers[i]);
        detail::backpropagate(layers_[0], batch, record.layers[0], gradient.layers[0], epilogue);
    }

    template <class Walk, class X, class Then, class State, class... Gradients>
    void walk(const Walk& walk, X& x, const Then& then, const State& state,
              Gradients&... gradients) const {
        walk_from(0, walk, x, then, state, gradients...);
    }

    template <class Self, class Visit, class... Others>
    static void visit_parts(Self& self, Visit&& visit, Others&... others) {
        (self.check_layers("gradient", others.layers.size()), ...);
        for (std::size_t i = 0; i < self.layers_.size(); ++i)
            visit(i, self.layers_[i], others.layers[i]...);
    }

    /// The layers f(part), one after another.
    template <class Function>
    [[nodiscard]] friend auto map_parts(const Stack& self, const Function& f) {
        using Mapped = decltype(f(std::declval<const Layer&>()));
        std::vector<Mapped> layers;
        layers.reserve(self.layers_.size());
        for (const Layer& layer : self.layers_) layers.push_back(f(layer));
        return Stack<Mapped>{std::move(layers)};
    }

private:
    /// The layers from `next` on, and then the rest of the network.
    template <class Walk, class X, class Then, class State, class... Gradients>
    void walk_from(std::size_t next, const Walk& walk, X& x, const Then& then, const State& state,
                   Gradients&... gradients) const {
        if constexpr (Walk::takes_steps) {
            auto way = walk.way(x, state);
            const std::size_t steps = layers_.size() - (detail::is_end<Then> && !layers_.empty());
            while (next < steps && walk.step(layers_[next], way)) ++next;
            const auto here = way.current();
            branch_at(next, walk, here, then, way.state, gradients...);
        } else {
            branch_at(next, walk, x, then, state, gradients...);
        }
    }

    template <class Walk, class X, class Then, class State, class... Gradients>
    void branch_at(std::size_t next, const Walk& walk, X& x, const Then& then, const State& state,
                   Gradients&... gradients) const {
        if (next == layers_.size()) return then(x, state);
        // The last layer of a network is to know that it is.
        if constexpr (detail::is_end<Then>)
            if (next + 1 == layers_.size())
                return walk(layers_[next], x, then, state, gradients.layers[next]...);
        walk(
            layers_[next], x,
            [&, next](auto& y, const State& y_state) {
                walk_from(next + 1, walk, y, then, y_state, gradients...);
            },
            state, gradients.layers[next]...);
    }

    void check_layers(const char* what, std::size_t count) const {
        if (count != layers_.size())
            detail::refuse("Stack: ", what, " must have ", layers_.size(), " layers, got ", count);
    }

    std::vector<Layer> layers_;
};

}  // namespace stochastic_depth
