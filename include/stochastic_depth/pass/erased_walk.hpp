// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>

#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/pass/erased_layer.hpp>
#include <stochastic_depth/pass/memory_kinds.hpp>
#include <stochastic_depth/pass/walk.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>
#include <stochastic_depth/types.hpp>

/// A walk through layers whose type is known at run time alone: what it sees of them, and what they
/// see of it. Inside, such a layer hands every part that it comes to, as a part of an unknown type, to
/// the walk that it was reached by (walked_layer_model.hpp); and so both sides are compiled without
/// the other.
namespace stochastic_depth::detail {

template <class Scalar, class X>
class WalkInterface;
template <class Scalar, bool nested>
class ErasedPart;

/// A walk's way without gradients, and with one.
template <class Scalar>
using BlockWalk = WalkInterface<Scalar, const Block<Scalar>>;
template <class Scalar>
using GradientWalk = WalkInterface<Scalar, Matrix<Scalar>>;

/// The rest of a network, for which a walker's state is a matter of its own.
template <class X>
using ErasedThen = FunctionRef<void(X&, const void*)>;

/// What a walk asks of a layer, beside all that a pass does.
template <class Scalar>
class WalkedLayerInterface : public LayerInterface<Scalar> {
public:
    virtual void walk(const BlockWalk<Scalar>& walk, const Block<Scalar>& x,
                      const ErasedThen<const Block<Scalar>>& then, const void* state) const = 0;
    /// \param gradient  Of the layer's own type.
    virtual void walk(const GradientWalk<Scalar>& walk, Matrix<Scalar>& x,
                      const ErasedThen<Matrix<Scalar>>& then, const void* state,
                      void* gradient) const = 0;
};

/// A layer of an unknown type that belongs to somebody else.
/// \tparam nested  Whether it may have skippable layers inside.
template <class Scalar_, bool nested>
class ErasedPart {
public:
    using Scalar = Scalar_;
    static constexpr bool hides_its_parts = nested;

    explicit ErasedPart(const WalkedLayerInterface<Scalar>& part) : part_(&part) {}

    template <class Memory>
    using Record = RecordOfErased<Memory>;
    /// Somewhere else.
    struct Gradient {
        void* address;
    };

    [[nodiscard]] Index output_size(Index input_size) const {
        return part_->output_size(input_size);
    }
    [[nodiscard]] Index depth() const { return part_->depth(); }

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
             const Epilogue& epilogue) const {
        run_erased<Scalar>(*part_, batch, record, mask, epilogue);
    }
    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        backpropagate_erased<Scalar>(*part_, batch, record, gradient.address, epilogue);
    }
    template <class Walk, class X, class Then, class State, class... Gradients>
    void walk(const Walk& walk, X& x, const Then& then, const State& state,
              Gradients&... gradients) const;

private:
    const WalkedLayerInterface<Scalar>* part_;
};

/// A skippable layer of an unknown type.
template <class Scalar_, bool nested, bool to_identity>
class ErasedNode {
public:
    using Scalar = Scalar_;
    static constexpr bool is_skippable = true;
    static constexpr bool skips_to_identity = to_identity;

    struct Gradient {
        /// Somewhere else, like the others.
        bool& reached;
        bool& shortcut_reached;
        struct OfLayer : ErasedPart<Scalar, nested>::Gradient {
            typename ErasedPart<Scalar, false>::Gradient shortcut;
        } layer;
    };

    ErasedNode(const WalkedLayerInterface<Scalar>& layer,
               const WalkedLayerInterface<Scalar>& shortcut, SurvivalProbability p, Index depth)
        : layer_(layer), shortcut_(shortcut), survival_probability_(p), depth_(depth) {}

    [[nodiscard]] const ErasedPart<Scalar, nested>& layer() const { return layer_; }
    [[nodiscard]] const ErasedPart<Scalar, false>& shortcut() const { return shortcut_; }
    [[nodiscard]] SurvivalProbability survival_probability() const { return survival_probability_; }
    [[nodiscard]] Index depth() const { return depth_; }
    [[nodiscard]] Index output_size(Index input_size) const {
        return layer_.output_size(input_size);
    }

private:
    ErasedPart<Scalar, nested> layer_;
    ErasedPart<Scalar, false> shortcut_;
    SurvivalProbability survival_probability_;
    Index depth_;
};

/// How two ways become one, and how gradients part again.
template <class Scalar>
struct ErasedJoin {
    FunctionRef<void(const ConstView<Scalar>&, const ConstView<Scalar>&, View<Scalar>)> join;
    FunctionRef<void(const Matrix<Scalar>&, const Matrix<Scalar>&, const Matrix<Scalar>&,
                     Matrix<Scalar>&, Matrix<Scalar>&)>
        part;

    template <class A, class B, class Y>
    void operator()(const A& a, const B& b, Y&& y) const {
        join(const_view(a), const_view(b), view(y));
    }
    void backpropagate(const Matrix<Scalar>& a, const Matrix<Scalar>& b, const Matrix<Scalar>& dy,
                       Matrix<Scalar>& da, Matrix<Scalar>& db) const {
        part(a, b, dy, da, db);
    }
};

/// A walk, as a layer of an unknown type sees it. Gradients are null where X has none.
template <class Scalar, class X>
class WalkInterface {
public:
    static constexpr bool has_gradients = !std::is_const_v<X>;
    using Then = ErasedThen<X>;
    template <bool nested>
    using Part = ErasedPart<Scalar, nested>;
    template <bool nested, bool to_identity>
    using Node = ErasedNode<Scalar, nested, to_identity>;

    virtual ~WalkInterface() = default;

    virtual void at(const Node<false, false>& node, X& x, const Then& then, const void* state,
                    typename Node<false, false>::Gradient* gradient) const = 0;
    virtual void at(const Node<false, true>& node, X& x, const Then& then, const void* state,
                    typename Node<false, true>::Gradient* gradient) const = 0;
    virtual void at(const Node<true, false>& node, X& x, const Then& then, const void* state,
                    typename Node<true, false>::Gradient* gradient) const = 0;
    virtual void at(const Node<true, true>& node, X& x, const Then& then, const void* state,
                    typename Node<true, true>::Gradient* gradient) const = 0;
    virtual void at(const Part<false>& layer, X& x, const Then& then, const void* state,
                    typename Part<false>::Gradient* gradient) const = 0;
    virtual void join(const ErasedJoin<Scalar>& join, const Part<true>& first,
                      const Part<true>& second, X& x, const Then& then, const void* state,
                      typename Part<true>::Gradient* by_first,
                      typename Part<true>::Gradient* by_second) const = 0;
};

/// A walk of a known type as one of an unknown one.
template <class Walk, class State, class Scalar, class X>
class WalkModel final : public WalkInterface<Scalar, X> {
    using Base = WalkInterface<Scalar, X>;
    using typename Base::Then;
    template <bool nested>
    using Part = ErasedPart<Scalar, nested>;
    template <bool nested, bool to_identity>
    using Node = ErasedNode<Scalar, nested, to_identity>;

public:
    explicit WalkModel(const Walk& walk) : walk_(walk) {}

    void at(const Node<false, false>& node, X& x, const Then& then, const void* state,
            typename Node<false, false>::Gradient* gradient) const override {
        go(node, x, then, state, gradient);
    }
    void at(const Node<false, true>& node, X& x, const Then& then, const void* state,
            typename Node<false, true>::Gradient* gradient) const override {
        go(node, x, then, state, gradient);
    }
    void at(const Node<true, false>& node, X& x, const Then& then, const void* state,
            typename Node<true, false>::Gradient* gradient) const override {
        go(node, x, then, state, gradient);
    }
    void at(const Node<true, true>& node, X& x, const Then& then, const void* state,
            typename Node<true, true>::Gradient* gradient) const override {
        go(node, x, then, state, gradient);
    }
    void at(const Part<false>& layer, X& x, const Then& then, const void* state,
            typename Part<false>::Gradient* gradient) const override {
        go(layer, x, then, state, gradient);
    }
    void join(const ErasedJoin<Scalar>& join, const Part<true>& first, const Part<true>& second,
              X& x, const Then& then, const void* state,
              [[maybe_unused]] typename Part<true>::Gradient* by_first,
              [[maybe_unused]] typename Part<true>::Gradient* by_second) const override {
        const auto go_on = [&](X& y, const State& y_state) { then(y, &y_state); };
        const State& here = *static_cast<const State*>(state);
        if constexpr (Base::has_gradients)
            walk_.join(join, Place{first, *by_first}, Place{second, *by_second}, x, go_on, here);
        else
            walk_.join(join, Place{first}, Place{second}, x, go_on, here);
    }

private:
    template <class Layer, class Gradient>
    void go(const Layer& layer, X& x, const Then& then, const void* state,
            [[maybe_unused]] Gradient* gradient) const {
        const auto go_on = [&](X& y, const State& y_state) { then(y, &y_state); };
        const State& here = *static_cast<const State*>(state);
        if constexpr (Base::has_gradients)
            walk_(layer, x, go_on, here, *gradient);
        else
            walk_(layer, x, go_on, here);
    }

    const Walk& walk_;
};

/// Sends x through a layer of an unknown type.
template <class Scalar, class Walk, class Then, class State>
void walk_erased(const WalkedLayerInterface<Scalar>& layer, const Walk& walk,
                 const Block<Scalar>& x, const Then& then, const State& state) {
    const WalkModel<Walk, State, Scalar, const Block<Scalar>> model(walk);
    const auto go_on = [&](const Block<Scalar>& y, const void* y_state) {
        then(y, *static_cast<const State*>(y_state));
    };
    layer.walk(model, x, go_on, &state);
}
template <class Scalar, class Walk, class Then, class State>
void walk_erased(const WalkedLayerInterface<Scalar>& layer, const Walk& walk, Matrix<Scalar>& x,
                 const Then& then, const State& state, void* gradient) {
    const WalkModel<Walk, State, Scalar, Matrix<Scalar>> model(walk);
    const auto go_on = [&](Matrix<Scalar>& y, const void* y_state) {
        then(y, *static_cast<const State*>(y_state));
    };
    layer.walk(model, x, go_on, &state, gradient);
}

template <class Scalar, bool nested>
template <class Walk, class X, class Then, class State, class... Gradients>
void ErasedPart<Scalar, nested>::walk(const Walk& walk, X& x, const Then& then, const State& state,
                                      Gradients&... gradients) const {
    walk_erased<Scalar>(*part_, walk, x, then, state, gradients.address...);
}

}  // namespace stochastic_depth::detail
