// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/expectation/block_widths.hpp>
#include <stochastic_depth/expectation/moments.hpp>
#include <stochastic_depth/expectation/progress.hpp>
#include <stochastic_depth/expectation/tree_children.hpp>
#include <stochastic_depth/expectation/tree_law.hpp>
#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/walk.hpp>
#include <stochastic_depth/threads/parallel.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The tree of mask prefixes behind ExactExpectation.
///
/// Masks that agree on their first layers share the work of these layers: each node of the tree is
/// a layer reached with one prefix, and branches into the layer kept and the layer skipped.
///
/// Three phases. Wide: while there are few columns, the two children of a node stand side by side
/// in one block, so that one product serves both. Split: once there are enough columns, blocks of
/// them go to the threads. Deep: each block walks the rest of the tree depth first. Children that
/// the law of the masks tells apart have other nodes below, so they don't stand in one block: there
/// the deep phase begins at once.
template <class Scalar, Sweep sweep = Sweep::moments, class Law = IndependentBits>
class PrefixTree {
public:
    struct Options {
        /// P(s_l = 1) at each node; where it is 1, the layer is not skipped, where it is 0, not run,
        /// unless derivatives are computed.
        const Law& law;
        /// Rows of the network's output.
        Index outputs;
        /// The largest number of rows of activations on their way.
        Index most_rows;
        unsigned threads = 1;
        ProgressMeter* progress = nullptr;
        /// Outputs are multiplied by this, so the mean is too, and the variance by its square.
        Scalar scale = Scalar(1);
    };

    explicit PrefixTree(const Options& options)
        : options_(options), widths_(options.most_rows, options.outputs, options.threads) {}

    /// \param to  Where the moments go, and the derivatives if the sweep computes them.
    template <class Network>
    void walk(const Network& network, const ConstMatrixRef<Scalar>& x,
              MomentsView<Scalar> to) const {
        const Block<Scalar> all(const_view(x), {});
        const State whole{{to}, options_.law.depth(), Phase::wide, options_.law.start()};
        const auto run = [&](const Block<Scalar>& block, const State& state) {
            Walk<PrefixTree>{*this}(network, block, Output{*this}, state);
        };
        if (x.cols() >= widths_.wide())
            split(all, whole, run);
        else
            run(all, whole);
    }

private:
    friend Walk<PrefixTree>;
    using Children = TreeChildren<Scalar, sweep, Law>;
    using ScratchMoments = detail::ScratchMoments<Scalar, sweep>;

    enum class Phase { wide, deep };

    struct State {
        Target<Scalar> to;
        /// Skippable layers still to come.
        Index layers;
        Phase phase;
        /// What the law knows of the bits so far.
        [[no_unique_address]] LawState<Law> bits;
    };

    /// A block on its way through layers that do not branch.
    struct Way : BlockOnItsWay<Scalar> {
        State state;
        Way(const Block<Scalar>& x, const State& from) : BlockOnItsWay<Scalar>(x), state(from) {}
    };

    /// The end of the network.
    struct Output {
        using End = void;
        const PrefixTree& tree;

        void operator()(const Block<Scalar>& y, const State& state) const {
            tree.scaled(y, [&](const ConstView<Scalar>& outputs) {
                transform<Scalar>(outputs, tree.mean_of(state.to, y.cols()),
                                  StoreOutput<sweep, Scalar>{state.to});
            });
        }
    };

    /// Runs blocks of columns on the threads.
    template <class Run>
    void split(const Block<Scalar>& x, const State& state, const Run& run) const {
        const Index width = widths_.of_piece(x.cols());
        parallel_blocks(x.cols(), width, options_.threads, [&](Index first, Index columns) {
            run(x.part(first, columns),
                State{{state.to.moments.from_column(first)}, state.layers, Phase::deep, state.bits});
        });
    }

    [[nodiscard]] Eigen::Map<Matrix<Scalar>, 0, Eigen::OuterStride<>> mean_of(
        const Target<Scalar>& to, Index columns) const {
        return {to.moments.mean, options_.outputs, columns,
                Eigen::OuterStride<>(to.moments.stride)};
    }

    /// Leaves the moments of a layer's output where they belong.
    template <class Layer, class Epilogue>
    void run_to(const Target<Scalar>& to, const Layer& layer, const Block<Scalar>& x,
                const Epilogue& epilogue) const {
        if (options_.scale == Scalar(1))
            return run_to_end(layer, x, Then{epilogue, store_to(mean_of(to, x.cols()))});
        ScratchMatrix<Scalar> y(options_.outputs, x.cols());
        run_to_end(layer, x, store_to(*y));
        scaled(const_view(*y), [&](const ConstView<Scalar>& outputs) {
            transform<Scalar>(outputs, mean_of(to, x.cols()), epilogue);
        });
    }

    /// Calls use(outputs times their scale). A scale is rare, and seen to here, so that epilogues
    /// know nothing of it.
    template <class Use>
    void scaled(const ConstView<Scalar>& outputs, const Use& use) const {
        if (options_.scale == Scalar(1)) return use(outputs);
        ScratchMatrix<Scalar> products(outputs.rows(), outputs.cols());
        for (Index j = 0; j < outputs.cols(); ++j)
            for (Index i = 0; i < outputs.rows(); ++i)
                (*products)(i, j) = options_.scale * outputs(i, j);
        use(const_view(*products));
    }

    /// A layer with nothing to skip.
    template <class Layer, class Then>
    void run(const Layer& layer, const Block<Scalar>& x, const Then& then,
             const State& state) const {
        if constexpr (is_end<Then>)
            run_to(state.to, layer, x, StoreOutput<sweep, Scalar>{state.to});
        else
            run_and_go_on(layer, x, then, state);
    }

    /// Layers with skippable layers inside, side by side: the columns of x must stay in their
    /// places until they are joined, so nothing widens from here on.
    template <class Walk, class Join, class First, class Second, class Then>
    void join(const Walk& walk, const Join& join, const First& first, const Second& second,
              const Block<Scalar>& x, const Then& then, const State& state) const {
        if (state.phase == Phase::wide)
            split(x, state, [&](const Block<Scalar>& block, const State& deep) {
                join_columns(walk, join, first, second, block, then, deep);
            });
        else
            join_columns(walk, join, first, second, x, then, state);
    }

    /// A skippable layer: one node, two children; one child where the other has no probability.
    template <class Walk, class Node, class Then>
    void at(const Walk& walk, const Node& node, const Block<Scalar>& x,
            const Then& then, const State& state) const {
        constexpr bool is_last =
            is_end<Then> && Node::skips_to_identity && !has_skippable_layers<LayerOf<Node>>;
        const Children children = children_of(node, state);
        if (!is_last && children.both && state.phase == Phase::wide &&
            (x.cols() >= widths_.wide() || !children.may_share_a_block()))
            return split(x, state, [&](const Block<Scalar>& block, const State& deep) {
                walk(node, block, then, deep);
            });
        if (options_.progress && (children.both || children.p != Scalar(0)))
            options_.progress->add(static_cast<double>(x.cols()));
        if (!children.both)
            walk_one(walk, node, x, then, state, children);
        else if constexpr (is_last)
            finish(node, x, state.to, children);
        else if (state.phase == Phase::deep)
            walk_both(walk, node, x, then, state, children);
        else
            widen(walk, node, x, then, state, children);
    }

    /// A node with one child, and nothing to skip in it.
    template <class Node>
    [[nodiscard]] bool step(const Node& node, Way& way) const {
        if constexpr (has_skippable_layers<LayerOf<Node>>) {
            return false;
        } else {
            const Children children = children_of(node, way.state);
            if (children.both) return false;
            const bool kept = children.p != Scalar(0);
            if (options_.progress && kept)
                options_.progress->add(static_cast<double>(way.current().cols()));
            if (kept)
                way.run_through(node.layer());
            else if constexpr (!Node::skips_to_identity)
                way.run_through(node.shortcut());
            way.state.layers = children.layers_of_active;
            way.state.bits = kept ? children.bits_of_active : children.bits_of_skipped;
            return true;
        }
    }

    template <class Node>
    [[nodiscard]] Children children_of(const Node& node, const State& state) const {
        return Children::of(options_.law, state.layers, node.depth() - 1, state.bits);
    }

    template <class Walk, class Node, class Then>
    void walk_one(const Walk& walk, const Node& node, const Block<Scalar>& x,
                  const Then& then, const State& state, const Children& children) const {
        if (children.p != Scalar(0))
            walk(node.layer(), x, then,
                 State{state.to, children.layers_of_active, state.phase, children.bits_of_active});
        else
            walk.skip(node, x, then, State{state.to, children.layers_of_skipped, state.phase,
                                           children.bits_of_skipped});
    }

    /// The last layer of the network.
    template <class Node>
    void finish(const Node& node, const Block<Scalar>& x, const Target<Scalar>& to,
                const Children& children) const {
        constexpr bool has_branch = is_residual<LayerOf<Node>>;
        scaled(x, [&](const ConstView<Scalar>& skipped) {
            const StoreLastLayer<sweep, Scalar, has_branch> store{
                skipped.data(), skipped.outerStride(), children.p, children.q, to};
            if constexpr (has_branch)
                run_to(to, node.layer().branch(), x, store);
            else
                run_to(to, node.layer(), x, store);
        });
    }

    /// Depth first: the active child, and then the skipped one, which is handed the active one's
    /// moments.
    template <class Walk, class Node, class Then>
    void walk_both(const Walk& walk, const Node& node, const Block<Scalar>& x,
                   const Then& then, const State& state, const Children& children) const {
        const ScratchMoments active(state.to.moments, options_.outputs, x.cols(),
                                    children.layers_of_active);
        walk(node.layer(), x, then,
             State{{*active}, children.layers_of_active, Phase::deep, children.bits_of_active});
        const auto sibling = children.sibling(*active, state.to);
        const State skipped{{state.to.moments, &sibling}, children.layers_of_skipped, Phase::deep,
                            children.bits_of_skipped};
        walk.skip(node, x, then, skipped);
    }

    /// Both children side by side: the active one's columns, then the skipped one's.
    template <class Walk, class Node, class Then>
    void widen(const Walk& walk, const Node& node, const Block<Scalar>& x,
               const Then& then, const State& state, const Children& children) const {
        const Index columns = x.cols();
        const ScratchMoments both(state.to.moments, options_.outputs, 2 * columns,
                                  children.layers_of_active);
        const MomentsView<Scalar> skipped = (*both).from_column(columns);
        if constexpr (has_skippable_layers<LayerOf<Node>>) {
            walk(node.layer(), x, then,
                 State{{*both}, children.layers_of_active, Phase::wide, children.bits_of_active});
            walk.skip(node, x, then, State{{skipped}, children.layers_of_skipped, Phase::wide,
                                           children.bits_of_skipped});
        } else {
            ScratchMatrix<Scalar> outputs(node.output_size(x.rows()), 2 * columns);
            run_to_end(node.layer(), x, store_to(outputs->leftCols(columns)));
            run_to_end(node.shortcut(), x, store_to(outputs->rightCols(columns)));
            const Block<Scalar> y(const_view(*outputs), x.lengths());
            then(y, State{{*both}, children.layers_of_active, Phase::wide, children.bits_of_active});
        }
        const auto sibling = children.sibling(*both, state.to);
        transform<Scalar>(mean_of({skipped}, columns), mean_of(state.to, columns),
                          StoreCombined<sweep, Scalar>{skipped, {state.to.moments, &sibling}});
    }

    Options options_;
    BlockWidths<Scalar, sweep> widths_;
};

}  // namespace stochastic_depth::detail
