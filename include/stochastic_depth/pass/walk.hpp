// SPDX-License-Identifier: MIT
#pragma once

#include <tuple>
#include <type_traits>
#include <utility>

#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/run.hpp>

/// Where a pass branches into a layer kept and a layer skipped: a walk sends activations through a
/// network under many masks at once, in continuation-passing style. A layer's outputs, one matrix
/// for each way through it, are handed to `then(y, state)`, which stands for the rest of the
/// network.
namespace stochastic_depth::detail {

/// Activations that someone else owns, [features x columns], and the lengths of their sequences.
template <class Scalar_>
class Block : public ConstView<Scalar_> {
public:
    Block(const ConstView<Scalar_>& numbers, const SequenceLengths& lengths)
        : ConstView<Scalar_>(numbers), lengths_(lengths) {}

    [[nodiscard]] const SequenceLengths& lengths() const { return lengths_; }
    /// Columns [first, first + count).
    [[nodiscard]] Block part(Index first, Index count) const {
        return {const_view(this->middleCols(first, count)), lengths_.from_column(first)};
    }

private:
    SequenceLengths lengths_;
};

/// Whether a continuation is the end of the network; such a one says so.
template <class Then>
inline constexpr bool is_end = requires {
    typename Then::End;
};

/// The layer that a node keeps or skips.
template <class Node>
using LayerOf = std::remove_cvref_t<decltype(std::declval<const Node&>().layer())>;

/// A part on a way through a network, and the gradients by its parameters if there are some.
template <class Layer, class... Gradients>
struct Place {
    const Layer& layer;
    std::tuple<Gradients&...> gradients;

    Place(const Layer& layer_, Gradients&... gradients_)
        : layer(layer_), gradients(gradients_...) {}
};

/// A walk, as composites see it. The Walker decides what happens where the ways part, and what `x`
/// and `state` are:
/// - walker.at(walk, node, x, then, state, gradients...): a skippable layer; it calls
///   walk(node.layer(), x, then, ...), walk(node.shortcut(), x, then, ...) or both;
/// - walker.run(layer, x, then, state, gradients...): a layer with nothing to skip in it; it calls
///   then(layer(x), ...);
/// - walker.join(walk, join, first, second, x, then, state): two layers with skippable layers
///   inside, side by side.
///
/// A Walker with a type `Way` takes steps: a block on its way through a row of layers goes through
/// each that `walker.step(layer, way)` says true of in place, so that a long row costs no stack.
template <class Walker>
class Walk {
public:
    static constexpr bool takes_steps = requires { typename Walker::Way; };

    explicit Walk(const Walker& walker) : walker_(walker) {}

    /// Sends x through a layer, and each of its outputs to `then`.
    template <class Layer, class X, class Then, class State, class... Gradients>
    void operator()(const Layer& layer, X& x, const Then& then, const State& state,
                    Gradients&... gradients) const {
        if constexpr (is_skippable<Layer>)
            walker_.at(*this, layer, x, then, state, gradients...);
        else if constexpr (has_skippable_layers<Layer>)
            layer.walk(*this, x, then, state, gradients...);
        else
            walker_.run(layer, x, then, state, gradients...);
    }
    template <class Layer, class X, class Then, class State, class... Gradients>
    void operator()(const Place<Layer, Gradients...>& place, X& x, const Then& then,
                    const State& state) const {
        std::apply([&](auto&... gradients) { (*this)(place.layer, x, then, state, gradients...); },
                   place.gradients);
    }

    /// The start of a row of layers.
    template <class X, class State>
        requires takes_steps
    [[nodiscard]] auto way(const X& x, const State& state) const {
        return typename Walker::Way(x, state);
    }

    /// Whether `way` is through the layer now; else nothing has happened, and the walk must go on
    /// from there.
    template <class Layer, class Way>
    [[nodiscard]] bool step(const Layer& layer, Way& way) const {
        if constexpr (is_skippable<Layer>)
            return walker_.step(layer, way);
        else if constexpr (requires { layer.step(*this, way); })
            return layer.step(*this, way);
        else
            return false;
    }

    /// Sends x through two layers side by side, and what `join` makes of their outputs to `then`,
    /// for each of the ways through both. The first layer's bits of the mask come first.
    ///
    /// \param join  join(a, b, y) writes y [a.rows() x columns]; join.backpropagate(a, b, dy, da,
    ///              db) overwrites the gradients by both.
    template <class Join, class First, class Second, class X, class Then, class State>
    void join(const Join& join, const First& first, const Second& second, X& x, const Then& then,
              const State& state) const {
        walker_.join(*this, join, first, second, x, then, state);
    }

    /// Sends x through what stands in for a skipped layer.
    template <class Node, class X, class Then, class State, class... Gradients>
    void skip(const Node& node, X& x, const Then& then, const State& state,
              Gradients&... gradients) const {
        if constexpr (Node::skips_to_identity)
            then(x, state);
        else
            (*this)(node.shortcut(), x, then, state, gradients.layer.shortcut...);
    }

private:
    const Walker& walker_;
};

/// A walker's `join` where the columns of x stay in their places.
template <class Walk, class Join, class First, class Second, class Scalar, class Then, class State>
void join_columns(const Walk& walk, const Join& join, const First& first, const Second& second,
                  const Block<Scalar>& x, const Then& then, const State& state) {
    const auto after_first = [&](const Block<Scalar>& a, const State& a_state) {
        const auto after_second = [&](const Block<Scalar>& b, const State& b_state) {
            ScratchMatrix<Scalar> joined(a.rows(), a.cols());
            join(a, b, view(*joined));
            const Block<Scalar> y(const_view(*joined), b.lengths());
            then(y, b_state);
        };
        walk(second, x, after_second, a_state);
    };
    walk(first, x, after_first, state);
}

/// A block on its way through a row of layers, and the memory that it needs there.
template <class Scalar>
class BlockOnItsWay {
public:
    explicit BlockOnItsWay(const Block<Scalar>& x) : batch_(Team::alone(), {&spare_}, x) {
        batch_.set_lengths(x.lengths());
    }

    [[nodiscard]] Block<Scalar> current() const { return {batch_.current(), batch_.lengths()}; }

    template <class Layer>
    void run_through(const Layer& layer) {
        RecordOf<Layer, Forgets> record;
        run(layer, batch_, record, EveryLayer{});
    }

    /// Room for a matrix to go on as.
    [[nodiscard]] Batch<Scalar, Forgets> room(Index rows, Index columns) const {
        return Batch<Scalar, Forgets>(Team::alone(), batch_.memory(), rows, columns);
    }
    void go_on_as(Batch<Scalar, Forgets>&& other) { batch_ = std::move(other); }

private:
    SparePiece spare_;
    Batch<Scalar, Forgets> batch_;
};

/// A walker's `run`: the layer's output goes to `then`.
template <class Layer, class Scalar, class Then, class State>
void run_and_go_on(const Layer& layer, const Block<Scalar>& x, const Then& then,
                   const State& state) {
    BlockOnItsWay<Scalar> block(x);
    block.run_through(layer);
    const Block<Scalar> y = block.current();
    then(y, state);
}

/// The same for a layer whose output the epilogue stores.
template <class Layer, class Scalar, class Epilogue>
void run_to_end(const Layer& layer, const Block<Scalar>& x, const Epilogue& epilogue) {
    SparePiece spare;
    Batch<Scalar, Forgets> batch(Team::alone(), {&spare}, x);
    batch.set_lengths(x.lengths());
    RecordOf<Layer, Forgets> record;
    run(layer, batch, record, EveryLayer{}, epilogue);
}

}  // namespace stochastic_depth::detail
