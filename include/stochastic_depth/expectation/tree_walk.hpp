// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/pass/activations.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

namespace stochastic_depth::detail {

/// Activations that someone else owns, [features x columns].
template <class Scalar>
using Block = Eigen::Map<const Matrix<Scalar>, 0, Eigen::OuterStride<>>;

template <class Scalar>
[[nodiscard]] Block<Scalar> as_block(const Eigen::Map<Matrix<Scalar>>& matrix) {
    return {matrix.data(), matrix.rows(), matrix.cols(), Eigen::OuterStride<>(matrix.rows())};
}

/// Whether a continuation is the end of the network; such a one says so.
template <class Then>
inline constexpr bool is_end = requires {
    typename Then::End;
};

/// Sends activations through a network under many masks at once, in continuation-passing style: a
/// layer's outputs, one block for each way through it, are handed to `then(y, state)`, which stands
/// for the rest of the network.
///
/// The Walker decides what happens where the ways part, and what `state` is:
/// - walker.at(walk, node, x, then, state): a skippable layer; it calls walk(node.layer(), x, then,
///   ...), walk(node.shortcut(), x, then, ...) or both;
/// - walker.run(layer, x, then, state): a layer with nothing to skip in it; it calls then(layer(x),
///   ...);
/// - walker.add(walk, layer, x, then, state): a residual layer with skippable layers inside.
template <class Scalar, class Walker>
class TreeWalk {
public:
    explicit TreeWalk(const Walker& walker) : walker_(walker) {}

    template <class Layer, class Then, class State>
    void operator()(const Layer& layer, const Block<Scalar>& x, const Then& then,
                    const State& state) const {
        walker_.run(layer, x, then, state);
    }

    template <class Layer, class Then, class State>
    void operator()(const StochasticDepth<Layer>& node, const Block<Scalar>& x, const Then& then,
                    const State& state) const {
        walker_.at(*this, node, x, then, state);
    }

    template <class... Layers, class Then, class State>
    void operator()(const Sequential<Layers...>& network, const Block<Scalar>& x, const Then& then,
                    const State& state) const {
        if constexpr (has_skippable_layers<Sequential<Layers...>>)
            from<0>(network, x, then, state);
        else
            walker_.run(network, x, then, state);
    }

    template <class Layer, class Then, class State>
    void operator()(const Stack<Layer>& stack, const Block<Scalar>& x, const Then& then,
                    const State& state) const {
        RestOfStack<Layer, Then>{*this, stack.layers(), 0, then}(x, state);
    }

    template <class Branch, class Shortcut, class Then, class State>
    void operator()(const Residual<Branch, Shortcut>& layer, const Block<Scalar>& x,
                    const Then& then, const State& state) const {
        if constexpr (has_skippable_layers<Residual<Branch, Shortcut>>)
            walker_.add(*this, layer, x, then, state);
        else
            walker_.run(layer, x, then, state);
    }

private:
    template <std::size_t I, class... Layers, class Then, class State>
    void from(const Sequential<Layers...>& network, const Block<Scalar>& x, const Then& then,
              const State& state) const {
        constexpr std::size_t next = Sequential<Layers...>::template next_step<I>();
        const auto& here = network.template step<I>();
        if constexpr (next == sizeof...(Layers))
            (*this)(here, x, then, state);
        else
            (*this)(
                here, x,
                [&](const Block<Scalar>& y, const State& y_state) {
                    from<next>(network, y, then, y_state);
                },
                state);
    }

    /// The layers of a stack from `next` on, and then the rest of the network.
    template <class Layer, class Then>
    struct RestOfStack {
        const TreeWalk& walk;
        const std::vector<Layer>& layers;
        std::size_t next;
        const Then& then;

        template <class State>
        void operator()(const Block<Scalar>& x, const State& state) const {
            if (next == layers.size()) return then(x, state);
            // The last layer of a network is to know that it is.
            if constexpr (is_end<Then>)
                if (next + 1 == layers.size()) return walk(layers[next], x, then, state);
            walk(layers[next], x, RestOfStack{walk, layers, next + 1, then}, state);
        }
    };

    const Walker& walker_;
};

/// Sends x through what stands in for a skipped layer.
template <class Walk, class Layer, class Scalar, class Then, class State>
void walk_skipped(const Walk& walk, const StochasticDepth<Layer>& node, const Block<Scalar>& x,
                  const Then& then, const State& state) {
    if constexpr (StochasticDepth<Layer>::skips_to_identity)
        then(x, state);
    else
        walk(node.shortcut(), x, then, state);
}

/// Sends x through the branch and the shortcut of a residual layer and hands on their sum, for each
/// of the ways through both.
template <class Walk, class Branch, class Shortcut, class Scalar, class Then, class State>
void walk_sum(const Walk& walk, const Residual<Branch, Shortcut>& layer, const Block<Scalar>& x,
              const Then& then, const State& state) {
    const auto add = [&](const Block<Scalar>& branch, const State& branch_state) {
        const auto add_to = [&](const Block<Scalar>& shortcut, const State& sum_state) {
            ScratchMatrix<Scalar> sum(branch.rows(), branch.cols());
            *sum = shortcut + branch;
            then(as_block(*sum), sum_state);
        };
        walk(layer.shortcut(), x, add_to, branch_state);
    };
    walk(layer.branch(), x, add, state);
}

/// Runs a layer and hands on its output, in scratch memory.
template <class Layer, class Scalar, class Then, class State>
void run_layer(const Layer& layer, const Block<Scalar>& x, const Then& then, const State& state) {
    ScratchMatrix<Scalar> y(layer.output_size(x.rows()), x.cols());
    forward_fused(layer, x, *y, Keep{});
    then(as_block(*y), state);
}

}  // namespace stochastic_depth::detail
