// SPDX-License-Identifier: MIT
#pragma once

#include <tuple>
#include <type_traits>

#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/pass/erased_layer.hpp>
#include <stochastic_depth/pass/erased_walk.hpp>
#include <stochastic_depth/pass/parts.hpp>
#include <stochastic_depth/pass/walk.hpp>
#include <stochastic_depth/types.hpp>

/// Layers of known types as ones of unknown types that walks go through. Inside, a walker of their
/// own takes each part to the walk outside.
namespace stochastic_depth::detail {

template <class Layer>
class WalkedLayerModel;

/// A skippable layer of a known type as one of an unknown one, for a call use(node).
template <class Node, class Use>
void as_erased_node(const Node& node, const Use& use) {
    using Layer = LayerOf<Node>;
    decltype(auto) shortcut = node.shortcut();
    const WalkedLayerModel<Layer> layer_model(node.layer());
    const WalkedLayerModel<std::remove_cvref_t<decltype(shortcut)>> shortcut_model(shortcut);
    use(ErasedNode<typename Node::Scalar, has_skippable_layers<Layer>, Node::skips_to_identity>(
        layer_model, shortcut_model, node.survival_probability(), depth(node)));
}
/// Its gradient. What a layer without a shortcut of its own has instead is never looked at.
template <class Erased, class Gradient>
[[nodiscard]] typename Erased::Gradient erased_gradient(Gradient& gradient) {
    void* shortcut = nullptr;
    if constexpr (!Erased::skips_to_identity) shortcut = &gradient.layer.shortcut;
    return {gradient.reached, gradient.shortcut_reached, {{&gradient.layer}, {shortcut}}};
}

/// How layers of known types walk inside one of an unknown type.
template <class Scalar, class X>
class ErasedWalker {
public:
    /// Of the walker outside.
    struct State {
        const void* outside;
    };

    explicit ErasedWalker(const WalkInterface<Scalar, X>& outside) : outside_(outside) {}

private:
    friend Walk<ErasedWalker>;

    template <class Walk, class Node, class Then, class... Gradients>
    void at(const Walk&, const Node& node, X& x, const Then& then, const State& state,
            Gradients&... gradients) const {
        const auto go_on = [&](X& y, const void* y_state) { then(y, State{y_state}); };
        as_erased_node(node, [&]<class Erased>(const Erased& erased) {
            if constexpr (sizeof...(Gradients) > 0) {
                auto gradient = erased_gradient<Erased>(gradients...);
                outside_.at(erased, x, go_on, state.outside, &gradient);
            } else {
                outside_.at(erased, x, go_on, state.outside, nullptr);
            }
        });
    }

    template <class Layer, class Then, class... Gradients>
    void run(const Layer& layer, X& x, const Then& then, const State& state,
             Gradients&... gradients) const {
        const auto go_on = [&](X& y, const void* y_state) { then(y, State{y_state}); };
        const WalkedLayerModel<Layer> model(layer);
        typename ErasedPart<Scalar, false>::Gradient gradient{
            address(static_cast<void*>(&gradients)...)};
        outside_.at(ErasedPart<Scalar, false>(model), x, go_on, state.outside, &gradient);
    }

    template <class Walk, class Join, class First, class Second, class Then>
    void join(const Walk&, const Join& join, const First& first, const Second& second, X& x,
              const Then& then, const State& state) const {
        const auto go_on = [&](X& y, const void* y_state) { then(y, State{y_state}); };
        const auto to_one = [&](const ConstView<Scalar>& a, const ConstView<Scalar>& b,
                                View<Scalar> y) { join(a, b, y); };
        const auto to_two = [&](const Matrix<Scalar>& a, const Matrix<Scalar>& b,
                                const Matrix<Scalar>& dy, Matrix<Scalar>& da, Matrix<Scalar>& db) {
            join.backpropagate(a, b, dy, da, db);
        };
        const WalkedLayerModel<std::remove_cvref_t<decltype(first.layer)>> first_model(first.layer);
        const WalkedLayerModel<std::remove_cvref_t<decltype(second.layer)>> second_model(
            second.layer);
        using Gradient = typename ErasedPart<Scalar, true>::Gradient;
        const auto gradient_of = [](const auto& place) {
            return Gradient{std::apply(
                [](auto&... gradient) { return address(static_cast<void*>(&gradient)...); },
                place.gradients)};
        };
        Gradient by_first = gradient_of(first), by_second = gradient_of(second);
        outside_.join(ErasedJoin<Scalar>{to_one, to_two}, ErasedPart<Scalar, true>(first_model),
                      ErasedPart<Scalar, true>(second_model), x, go_on, state.outside, &by_first,
                      &by_second);
    }

    [[nodiscard]] static void* address(void* gradient = nullptr) { return gradient; }

    const WalkInterface<Scalar, X>& outside_;
};

/// A layer of a known type, of which there may be walks, as one of an unknown one.
template <class Layer, class Base>
class WalkedLayerModelOf : public LayerModel<Layer, Base> {
public:
    using Scalar = typename Layer::Scalar;
    using LayerModel<Layer, Base>::LayerModel;

    void walk(const BlockWalk<Scalar>& walk, const Block<Scalar>& x,
              const ErasedThen<const Block<Scalar>>& then, const void* state) const override {
        go(walk, x, then, state);
    }
    void walk(const GradientWalk<Scalar>& walk, Matrix<Scalar>& x,
              const ErasedThen<Matrix<Scalar>>& then, const void* state,
              void* gradient) const override {
        if constexpr (has_way_back<Layer>)
            go(walk, x, then, state, *static_cast<typename Layer::Gradient*>(gradient));
        else
            this->refuse_to_differentiate();
    }

private:
    template <class X, class... Gradients>
    void go(const WalkInterface<Scalar, X>& outside, X& x, const ErasedThen<X>& then,
            const void* state, Gradients&... gradients) const {
        using Walker = ErasedWalker<Scalar, X>;
        using State = typename Walker::State;
        const Walker walker(outside);
        Walk<Walker>{walker}(
            *this->layer_, x, [&](X& y, const State& y_state) { then(y, y_state.outside); },
            State{state}, gradients...);
    }
};
template <class Layer>
class WalkedLayerModel
    : public WalkedLayerModelOf<Layer, WalkedLayerInterface<typename Layer::Scalar>> {
public:
    using WalkedLayerModelOf<Layer,
                             WalkedLayerInterface<typename Layer::Scalar>>::WalkedLayerModelOf;
};

}  // namespace stochastic_depth::detail
