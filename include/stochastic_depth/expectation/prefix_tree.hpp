// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <type_traits>

#include <stochastic_depth/detail/parallel.hpp>
#include <stochastic_depth/layers/sequential.hpp>
#include <stochastic_depth/layers/stack.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

/// The tree of mask prefixes behind ExactExpectation.
///
/// Masks that agree on their first layers share the work of these layers: each node of the tree is a layer
/// reached with one prefix, and branches into the layer kept and the layer skipped. The walk is written in
/// continuation passing: walk(layer, x, then, to) sends the activations x through a layer under every mask
/// and calls then(y, to) for each of the outputs; `then` stands for the rest of the network, and `to` says
/// where the mean and the variance over everything below belong.
///
/// Three phases. Wide: while there are few columns, the two children of a node stand side by side in one
/// block, so that one product serves both. Split: once there are enough columns, blocks of them go to the
/// threads. Deep: each block walks the rest of the tree depth first.
///
/// The moments combine on the way up by the law of total variance,
///     mean = p m_active + (1 - p) m_skipped,
///     variance = p v_active + (1 - p) v_skipped + p (1 - p) (m_active - m_skipped)^2.
/// In the deep phase this takes no pass of its own: the skipped child is walked last, and carries its
/// siblings' results along as a list; whoever computes its outputs combines them while they are in
/// registers.
namespace stochastic_depth::detail {

/// Mean and variance of a block, [outputs x columns], columns `stride` apart.
template <class Scalar>
struct MomentsView {
    Scalar* mean;
    Scalar* variance;
    Index stride;

    [[nodiscard]] MomentsView from_column(Index j) const {
        return {mean + j * stride, variance + j * stride, stride};
    }
};

/// The moments of an active child, waiting for those of its skipped sibling.
template <class Scalar>
struct PendingSibling {
    MomentsView<Scalar> active;
    Scalar p;
    const PendingSibling* parent;
};

/// Where the moments of a block belong, after they have been combined with the siblings that wait for them.
template <class Scalar>
struct Target {
    MomentsView<Scalar> moments;
    const PendingSibling<Scalar>* siblings = nullptr;
};

template <class Value>
struct Moments {
    Value mean;
    Value variance;
};

/// Both moments over a layer that is kept with probability p.
template <class Value>
EIGEN_ALWAYS_INLINE Moments<Value> combine(Value p, Value q, Moments<Value> active, Moments<Value> skipped) {
    const Value difference = active.mean - skipped.mean;
    return {multiply_add(p, active.mean, q * skipped.mean),
            multiply_add(p * q, difference * difference,
                         multiply_add(p, active.variance, q * skipped.variance))};
}

/// Combines with each waiting sibling in turn, from the deepest on.
template <class P, class Scalar>
EIGEN_ALWAYS_INLINE Moments<P> combine_all(Moments<P> skipped, const PendingSibling<Scalar>* sibling,
                                           Index i, Index j) {
    for (; sibling; sibling = sibling->parent) {
        const Index at = i + j * sibling->active.stride;
        const Moments<P> active{P::load(sibling->active.mean + at), P::load(sibling->active.variance + at)};
        skipped = combine(P::broadcast(sibling->p), P::broadcast(Scalar(1) - sibling->p), active, skipped);
    }
    return skipped;
}

/// Epilogue: the output of one mask prefix is its own mean; the variance is 0.
template <class Scalar>
struct StoreOutput {
    Target<Scalar> to;

    template <class P>
    EIGEN_ALWAYS_INLINE P operator()(P value, Index i, Index j) const {
        const auto moments = combine_all(Moments<P>{value, P::broadcast(Scalar(0))}, to.siblings, i, j);
        moments.variance.store(to.moments.variance + i + j * to.moments.stride);
        return moments.mean;
    }
};

/// Epilogue of the last layer of a network: both of its children at once. `value` is the branch of a
/// residual layer with the identity as shortcut, or any other layer's output.
template <class Scalar, bool IsBranch>
struct StoreLastLayer {
    const Scalar* x;
    Index x_stride;
    Scalar p;
    Target<Scalar> to;

    template <class P>
    EIGEN_ALWAYS_INLINE P operator()(P value, Index i, Index j) const {
        const P skipped = P::load(x + i + j * x_stride);
        const P difference = IsBranch ? value : value - skipped;
        const P mean = multiply_add(P::broadcast(p), difference, skipped);
        const P variance = P::broadcast(p * (Scalar(1) - p)) * (difference * difference);
        const auto moments = combine_all(Moments<P>{mean, variance}, to.siblings, i, j);
        moments.variance.store(to.moments.variance + i + j * to.moments.stride);
        return moments.mean;
    }
};

/// Epilogue: the mean and the variance of a skipped child.
template <class Scalar>
struct StoreCombined {
    MomentsView<Scalar> skipped;
    Target<Scalar> to;

    template <class P>
    EIGEN_ALWAYS_INLINE P operator()(P mean, Index i, Index j) const {
        const P variance = P::load(skipped.variance + i + j * skipped.stride);
        const auto moments = combine_all(Moments<P>{mean, variance}, to.siblings, i, j);
        moments.variance.store(to.moments.variance + i + j * to.moments.stride);
        return moments.mean;
    }
};

template <class Scalar>
class PrefixTree {
public:
    using Block = Eigen::Map<const Matrix<Scalar>, 0, Eigen::OuterStride<>>;

    /// \param outputs  Rows of the network's output.
    /// \param widest   The largest number of rows of activations on their way.
    PrefixTree(Index outputs, Index widest, unsigned threads)
        : outputs_(outputs), block_columns_(columns_of_block(widest)), threads_(threads) {}

    template <class Network>
    void walk(const Network& network, const ConstMatrixRef<Scalar>& x, MomentsView<Scalar> to) const {
        const Block all(x.data(), x.rows(), x.cols(), Eigen::OuterStride<>(x.outerStride()));
        const auto run = [&](const Block& block, Target<Scalar> target, Phase phase) {
            walk(network, block, Output{*this}, target, phase);
        };
        if (x.cols() >= wide_columns())
            split(all, {to}, run);
        else
            run(all, {to}, Phase::wide);
    }

private:
    enum class Phase { wide, deep };

    /// As many columns as keep the blocks that are in use at a time in the second-level cache, in whole
    /// tiles of the product.
    static Index columns_of_block(Index rows) {
        constexpr Index bytes = 24 * 1024;
        const Index fitting = bytes / (std::max<Index>(rows, 1) * static_cast<Index>(sizeof(Scalar)));
        return std::clamp<Index>(fitting / tile_columns * tile_columns, 4 * tile_columns, 32 * tile_columns);
    }

    /// Columns to reach in the wide phase: enough blocks for the threads to share evenly.
    [[nodiscard]] Index wide_columns() const {
        return threads_ > 1 ? 16 * std::min<Index>(threads_, 64) * block_columns_ : 2 * block_columns_;
    }

    /// Runs blocks of columns on the threads.
    template <class Run>
    void split(const Block& x, Target<Scalar> to, const Run& run) const {
        const Index blocks = (x.cols() + block_columns_ - 1) / block_columns_;
        parallel_for(blocks, threads_, [&](Index b) {
            const Index first = b * block_columns_;
            const Index columns = std::min(block_columns_, x.cols() - first);
            run(Block(x.data() + first * x.outerStride(), x.rows(), columns,
                      Eigen::OuterStride<>(x.outerStride())),
                Target<Scalar>{to.moments.from_column(first)}, Phase::deep);
        });
    }

    static Block as_block(Eigen::Map<Matrix<Scalar>>& matrix) {
        return {matrix.data(), matrix.rows(), matrix.cols(), Eigen::OuterStride<>(matrix.rows())};
    }

    /// The end of the network.
    struct Output {
        const PrefixTree& tree;
        void operator()(const Block& y, Target<Scalar> to, Phase) const {
            MatrixRef<Scalar> mean = tree.mean_of(to, y.cols());
            transform<Scalar>(y, mean, StoreOutput<Scalar>{to});
        }
    };

    [[nodiscard]] Eigen::Map<Matrix<Scalar>, 0, Eigen::OuterStride<>> mean_of(Target<Scalar> to,
                                                                            Index columns) const {
        return {to.moments.mean, outputs_, columns, Eigen::OuterStride<>(to.moments.stride)};
    }

    /// A layer with nothing to skip.
    template <class Layer, class Then>
    void walk(const Layer& layer, const Block& x, const Then& then, Target<Scalar> to, Phase phase) const {
        walk_plain(layer, x, then, to, phase);
    }

    template <class Layer, class Then>
    void walk_plain(const Layer& layer, const Block& x, const Then& then, Target<Scalar> to,
                    Phase phase) const {
        if constexpr (std::is_same_v<Then, Output>) {
            forward_fused(layer, x, mean_of(to, x.cols()), StoreOutput<Scalar>{to});
        } else {
            ScratchMatrix<Scalar> y(layer.output_size(x.rows()), x.cols());
            forward_fused(layer, x, *y, Keep{});
            then(as_block(*y), to, phase);
        }
    }

    template <class... Layers, class Then>
    void walk(const Sequential<Layers...>& network, const Block& x, const Then& then, Target<Scalar> to,
              Phase phase) const {
        if constexpr (has_skippable_layers<Sequential<Layers...>>)
            walk_from<0>(network, x, then, to, phase);
        else
            walk_plain(network, x, then, to, phase);
    }

    template <std::size_t I, class... Layers, class Then>
    void walk_from(const Sequential<Layers...>& network, const Block& x, const Then& then, Target<Scalar> to,
                   Phase phase) const {
        constexpr std::size_t next = Sequential<Layers...>::template next_step<I>();
        const auto& here = network.template step<I>();
        if constexpr (next == sizeof...(Layers))
            walk(here, x, then, to, phase);
        else
            walk(
                here, x,
                [&](const Block& y, Target<Scalar> y_to, Phase y_phase) {
                    walk_from<next>(network, y, then, y_to, y_phase);
                },
                to, phase);
    }

    /// The layers of a stack from `next` on, and then the rest of the network.
    template <class Layer, class Then>
    struct RestOfStack {
        const PrefixTree& tree;
        const std::vector<Layer>& layers;
        std::size_t next;
        const Then& then;

        void operator()(const Block& x, Target<Scalar> to, Phase phase) const {
            if (next == layers.size()) return then(x, to, phase);
            // The last layer of a network is to know that it is.
            if constexpr (std::is_same_v<Then, Output>)
                if (next + 1 == layers.size()) return tree.walk(layers[next], x, then, to, phase);
            tree.walk(layers[next], x, RestOfStack{tree, layers, next + 1, then}, to, phase);
        }
    };

    template <class Layer, class Then>
    void walk(const Stack<Layer>& stack, const Block& x, const Then& then, Target<Scalar> to,
              Phase phase) const {
        RestOfStack<Layer, Then>{*this, stack.layers(), 0, then}(x, to, phase);
    }

    /// A residual layer. With skippable layers inside, the columns of x must stay in their places until
    /// they are added: nothing widens from here on.
    template <class Branch, class Shortcut, class Then>
    void walk(const Residual<Branch, Shortcut>& layer, const Block& x, const Then& then, Target<Scalar> to,
              Phase phase) const {
        if constexpr (!has_skippable_layers<Residual<Branch, Shortcut>>) {
            walk_plain(layer, x, then, to, phase);
        } else if (phase == Phase::wide && x.cols() > block_columns_) {
            split(x, to, [&](const Block& block, Target<Scalar> block_to, Phase deep) {
                walk(layer, block, then, block_to, deep);
            });
        } else {
            const auto add = [&](const Block& branch, Target<Scalar> branch_to, Phase) {
                const auto add_to = [&](const Block& shortcut, Target<Scalar> sum_to, Phase) {
                    ScratchMatrix<Scalar> sum(branch.rows(), branch.cols());
                    *sum = shortcut + branch;
                    then(as_block(*sum), sum_to, Phase::deep);
                };
                walk(layer.shortcut(), x, add_to, branch_to, Phase::deep);
            };
            walk(layer.branch(), x, add, to, Phase::deep);
        }
    }

    /// A skippable layer: one node, two children; one child where p = 1.
    template <class Layer, class Then>
    void walk(const StochasticDepth<Layer>& node, const Block& x, const Then& then, Target<Scalar> to,
              Phase phase) const {
        if (node.survival_probability().value() == 1.0)
            walk(node.layer(), x, then, to, phase);
        else if constexpr (std::is_same_v<Then, Output> && skips_to_identity<Layer> &&
                           !has_skippable_layers<Layer>)
            finish(node, x, to);
        else if (phase == Phase::deep)
            walk_children(node, x, then, to);
        else if (x.cols() >= wide_columns())
            split(x, to, [&](const Block& block, Target<Scalar> block_to, Phase deep) {
                walk(node, block, then, block_to, deep);
            });
        else
            widen(node, x, then, to);
    }

    template <class Layer>
    static constexpr bool skips_to_identity =
        std::is_same_v<typename StochasticDepth<Layer>::Shortcut, Identity<Scalar>>;

    template <class Layer>
    static Scalar p_of(const StochasticDepth<Layer>& node) {
        return static_cast<Scalar>(node.survival_probability().value());
    }

    /// The last layer of the network.
    template <class Layer>
    void finish(const StochasticDepth<Layer>& node, const Block& x, Target<Scalar> to) const {
        constexpr bool has_branch = IdentityResidual<Layer>::value;
        const StoreLastLayer<Scalar, has_branch> store{x.data(), x.outerStride(), p_of(node), to};
        const auto mean = mean_of(to, x.cols());
        if constexpr (has_branch)
            forward_fused(node.layer().branch(), x, mean, store);
        else
            forward_fused(node.layer(), x, mean, store);
    }

    /// Depth first: the active child, and then the skipped one, which is handed the active one's moments.
    template <class Layer, class Then>
    void walk_children(const StochasticDepth<Layer>& node, const Block& x, const Then& then,
                       Target<Scalar> to) const {
        const ScratchArray<Scalar> active(2 * outputs_ * x.cols());
        const MomentsView<Scalar> moments{active.data(), active.data() + outputs_ * x.cols(), outputs_};
        walk(node.layer(), x, then, Target<Scalar>{moments}, Phase::deep);
        const PendingSibling<Scalar> sibling{moments, p_of(node), to.siblings};
        const Target<Scalar> skipped{to.moments, &sibling};
        if constexpr (skips_to_identity<Layer>)
            then(x, skipped, Phase::deep);
        else
            walk(node.shortcut(), x, then, skipped, Phase::deep);
    }

    /// Both children side by side: the active one's columns, then the skipped one's.
    template <class Layer, class Then>
    void widen(const StochasticDepth<Layer>& node, const Block& x, const Then& then, Target<Scalar> to) const {
        const Index columns = x.cols();
        const ScratchArray<Scalar> both(4 * outputs_ * columns);
        const MomentsView<Scalar> active{both.data(), both.data() + 2 * outputs_ * columns, outputs_};
        const MomentsView<Scalar> skipped = active.from_column(columns);
        if constexpr (has_skippable_layers<Layer>) {
            walk(node.layer(), x, then, Target<Scalar>{active}, Phase::wide);
            walk(node.shortcut(), x, then, Target<Scalar>{skipped}, Phase::wide);
        } else {
            ScratchMatrix<Scalar> children(node.output_size(x.rows()), 2 * columns);
            forward_fused(node.layer(), x, children->leftCols(columns), Keep{});
            if constexpr (skips_to_identity<Layer>)
                copy_columns(x, children->rightCols(columns));
            else
                forward_fused(node.shortcut(), x, children->rightCols(columns), Keep{});
            then(as_block(*children), Target<Scalar>{active}, Phase::wide);
        }
        const PendingSibling<Scalar> sibling{active, p_of(node), to.siblings};
        transform<Scalar>(mean_of({skipped}, columns), mean_of(to, columns),
                          StoreCombined<Scalar>{skipped, {to.moments, &sibling}});
    }

    Index outputs_;
    Index block_columns_;
    unsigned threads_;
};

/// Counts the evaluations of skippable layers that the tree makes for each column.
class EvaluationCount {
public:
    template <class Network>
    [[nodiscard]] static double of(const Network& network) {
        EvaluationCount count;
        count.pass(network);
        return count.evaluations_;
    }

private:
    template <class Layer>
    void pass(const Layer&) {}

    template <class Layer>
    void pass(const StochasticDepth<Layer>& node) {
        const double skipped = node.survival_probability().value() == 1.0 ? 0.0 : prefixes_;
        evaluations_ += prefixes_;
        pass(node.layer());
        prefixes_ += skipped;
    }

    template <class... Layers>
    void pass(const Sequential<Layers...>& network) {
        std::apply([&](const auto&... layer) { (pass(layer), ...); }, network.layers());
    }

    template <class Layer>
    void pass(const Stack<Layer>& stack) {
        for (const Layer& layer : stack.layers()) pass(layer);
    }

    template <class Branch, class Shortcut>
    void pass(const Residual<Branch, Shortcut>& layer) {
        pass(layer.branch());
        pass(layer.shortcut());
    }

    /// Mask prefixes that reach the layer at hand.
    double prefixes_ = 1.0;
    double evaluations_ = 0.0;
};

}  // namespace stochastic_depth::detail
