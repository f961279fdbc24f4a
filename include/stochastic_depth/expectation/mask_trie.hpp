// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>

#include <stochastic_depth/expectation/sorted_masks.hpp>
#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/walk.hpp>
#include <stochastic_depth/threads/parallel.hpp>

namespace stochastic_depth::detail {

/// Evaluates a network under many masks, each prefix that masks share once.
///
/// A node is a range of sorted masks that agree on the layers so far. The columns of several nodes
/// stand side by side in a block, so that few columns under many masks make wide matrix products
/// too; a block that grows too wide is cut into pieces, which run depth first, and which the
/// threads share.
template <class Scalar>
class MaskTrie {
public:
    /// \param outputs  Rows of the network's output.
    MaskTrie(const SortedMasks& masks, Index outputs, unsigned threads)
        : masks_(masks), outputs_(outputs), threads_(threads) {}

    /// \param x   [features x columns], at least one column.
    /// \param to  The output of mask k, [outputs x columns], goes to `to + k outputs columns`.
    template <class Network>
    void walk(const Network& network, const ConstMatrixRef<Scalar>& x, Scalar* to) const {
        const MaskRange all{0, masks_.size()};
        const Block<Scalar> block(const_view(x), {});
        Walk<MaskTrie>{*this}(network, block, Output{*this, to}, State{&all, 1, 0, threads_});
    }

private:
    friend Walk<MaskTrie>;

    /// Columns that make a good block.
    static constexpr Index block_columns = 96;

    /// Masks [first, last).
    struct MaskRange {
        Index first;
        Index last;
    };

    /// The nodes whose columns stand in a block, in this order, and how many skippable layers are
    /// behind.
    struct State {
        const MaskRange* nodes;
        Index count;
        Index layer;
        unsigned threads;
    };

    /// A block on its way through a row of layers, and its nodes.
    struct Way : BlockOnItsWay<Scalar> {
        State state;
        ScratchArray<MaskRange> nodes;
        ScratchArray<Index> lengths;
        Way(const Block<Scalar>& x, const State& from)
            : BlockOnItsWay<Scalar>(x), state(from), nodes(0), lengths(0) {}
    };

    /// The end of the network: each node is a single mask.
    struct Output {
        using End = void;
        const MaskTrie& trie;
        Scalar* to;

        void operator()(const Block<Scalar>& y, const State& state) const {
            const Index columns = y.cols() / state.count;
            for (Index k = 0; k < state.count; ++k)
                copy_columns(
                    y.middleCols(k * columns, columns),
                    Eigen::Map<Matrix<Scalar>>(to + state.nodes[k].first * trie.outputs_ * columns,
                                               trie.outputs_, columns));
        }
    };

    template <class Layer, class Then>
    void run(const Layer& layer, const Block<Scalar>& x, const Then& then,
             const State& state) const {
        run_and_go_on(layer, x, then, state);
    }

    /// Layers with skippable layers inside, side by side: these part the nodes, so the columns of x
    /// are repeated for each of the parts, and the first one's outputs for each part that the second
    /// makes of them.
    template <class Walk, class Join, class First, class Second, class Then>
    void join(const Walk& walk, const Join& join, const First& first, const Second& second,
              const Block<Scalar>& x, const Then& then, const State& state) const {
        const auto after_first = [&](const Block<Scalar>& a, const State& parts) {
            const Columns inputs(x, repeated(x, state, parts).data(), a.cols());
            const auto after_second = [&](const Block<Scalar>& b, const State& joined) {
                const Columns again(a, repeated(a, parts, joined).data(), b.cols());
                ScratchMatrix<Scalar> y(a.rows(), b.cols());
                join(again.block(), b, view(*y));
                const Block<Scalar> block(const_view(*y), b.lengths());
                then(block, joined);
            };
            walk(second, inputs.block(), after_second, parts);
        };
        walk(first, x, after_first, state);
    }

    /// The columns of each part's whole.
    [[nodiscard]] static ScratchArray<Index> repeated(const Block<Scalar>& x, const State& nodes,
                                                      const State& parts) {
        const Index columns = x.cols() / nodes.count;
        ScratchArray<Index> from(parts.count * columns);
        for (Index k = 0; k < parts.count; ++k) {
            Index whole = 0;
            while (!(nodes.nodes[whole].first <= parts.nodes[k].first &&
                     parts.nodes[k].first < nodes.nodes[whole].last))
                ++whole;
            list(from.data() + k * columns, whole, columns);
        }
        return from;
    }

    /// Columns of a block, in any order, as one of their own.
    class Columns {
    public:
        Columns(const Block<Scalar>& x, const Index* from, Index count)
            : numbers_(x.rows(), count),
              lengths_(x.lengths() ? count : 0),
              block_(const_view(*numbers_), x.lengths().gathered(from, count, lengths_.data())) {
            gather(x, from, *numbers_);
        }
        [[nodiscard]] const Block<Scalar>& block() const { return block_; }

    private:
        ScratchMatrix<Scalar> numbers_;
        ScratchArray<Index> lengths_;
        Block<Scalar> block_;
    };

    /// Columns that a block may have before it is cut: enough for all threads the first time.
    static Index widest_block(unsigned threads) {
        return threads > 1 ? 16 * std::min<Index>(threads, 64) * block_columns : 2 * block_columns;
    }

    /// Whether a block has grown too wide to go on in one piece.
    [[nodiscard]] static bool is_to_be_cut(Index columns, const State& state) {
        return columns > widest_block(state.threads) && state.count > 1;
    }

    template <class Walk, class Node, class Then>
    void at(const Walk& walk, const Node& node, const Block<Scalar>& x,
            const Then& then, const State& state) const {
        if (is_to_be_cut(x.cols(), state)) {
            const Index columns = x.cols() / state.count;
            const Index nodes = std::max<Index>(1, block_columns / columns);
            return parallel_for((state.count + nodes - 1) / nodes, state.threads, [&](Index piece) {
                const Index first = piece * nodes;
                const Index count = std::min(nodes, state.count - first);
                const Block<Scalar> part = x.part(first * columns, count * columns);
                walk(node, part, then, State{state.nodes + first, count, state.layer, 1});
            });
        }
        if constexpr (has_skippable_layers<LayerOf<Node>>) {
            branch(walk, node, x, then, state);
        } else {
            Way way(x, state);
            (void)step(node, way);
            const Block<Scalar> y = way.current();
            then(y, way.state);
        }
    }

    /// What the nodes of a block branch into: active children, then skipped ones.
    struct Children {
        ScratchArray<MaskRange> nodes;
        /// The columns of the block that each starts from.
        ScratchArray<Index> from;
        Index kept = 0;
        Index all = 0;

        Children(const MaskTrie& trie, const State& state, Index columns)
            : nodes(2 * state.count), from(2 * state.count * columns) {
            for (Index k = 0; k < state.count; ++k)
                if (trie.masks_.keeps(state.nodes[k].first, state.layer)) {
                    list(from.data() + kept * columns, k, columns);
                    nodes[kept++] = {state.nodes[k].first,
                                     trie.end_of_kept(state.nodes[k], state.layer)};
                }
            all = kept;
            for (Index k = 0, active = 0; k < state.count; ++k) {
                MaskRange skipped = state.nodes[k];
                if (active < kept && nodes[active].first == skipped.first)
                    skipped.first = nodes[active++].last;
                if (skipped.first == skipped.last) continue;
                list(from.data() + all * columns, k, columns);
                nodes[all++] = skipped;
            }
        }
    };

    /// A node with skippable layers inside: its children go on one after the other.
    template <class Walk, class Node, class Then>
    void branch(const Walk& walk, const Node& node, const Block<Scalar>& x, const Then& then,
                const State& state) const {
        const Index columns = x.cols() / state.count;
        const Children children(*this, state, columns);
        const Index kept = children.kept, all = children.all;
        const State active{children.nodes.data(), kept, state.layer + 1, state.threads};
        const State skipped{children.nodes.data() + kept, all - kept, state.layer + node.depth(),
                            state.threads};
        if (kept == all) return walk(node.layer(), x, then, active);
        if (kept == 0) return walk.skip(node, x, then, skipped);
        const Columns both(x, children.from.data(), all * columns);
        const Block<Scalar> active_part = both.block().part(0, kept * columns);
        const Block<Scalar> skipped_part =
            both.block().part(kept * columns, (all - kept) * columns);
        walk(node.layer(), active_part, then, active);
        walk.skip(node, skipped_part, then, skipped);
    }

    /// A node without: its children stand side by side.
    template <class Node>
    [[nodiscard]] bool step(const Node& node, Way& way) const {
        if constexpr (has_skippable_layers<LayerOf<Node>>) {
            return false;
        } else {
            const Block<Scalar> x = way.current();
            if (is_to_be_cut(x.cols(), way.state)) return false;
            const Index columns = x.cols() / way.state.count;
            Children children(*this, way.state, columns);
            if (children.kept == children.all)
                way.run_through(node.layer());
            else if (children.kept == 0)
                skip(node, way);
            else
                run_side_by_side(node, x, children, columns, way);
            way.nodes = std::move(children.nodes);
            way.state = {way.nodes.data(), children.all, way.state.layer + 1, way.state.threads};
            return true;
        }
    }

    template <class Node>
    static void skip(const Node& node, Way& way) {
        if constexpr (!Node::skips_to_identity) way.run_through(node.shortcut());
    }

    template <class Node>
    static void run_side_by_side(const Node& node, const Block<Scalar>& x,
                                 const Children& children, Index columns, Way& way) {
        const Index active = children.kept * columns;
        const Index skipped = (children.all - children.kept) * columns;
        const Index* const skipped_from = children.from.data() + active;
        auto result = way.room(node.output_size(x.rows()), active + skipped);
        View<Scalar> outputs = result.writable();
        if (children.kept == way.state.count)
            run_to_end(node.layer(), x, store_to(outputs.leftCols(active)));
        else
            run_to_end(node.layer(), Columns(x, children.from.data(), active).block(),
                       store_to(outputs.leftCols(active)));
        if constexpr (Node::skips_to_identity)
            gather(x, skipped_from, outputs.rightCols(skipped));
        else
            run_to_end(node.shortcut(), Columns(x, skipped_from, skipped).block(),
                       store_to(outputs.rightCols(skipped)));
        ScratchArray<Index> lengths(x.lengths() ? active + skipped : 0);
        result.set_lengths(
            x.lengths().gathered(children.from.data(), active + skipped, lengths.data()));
        way.lengths = std::move(lengths);
        way.go_on_as(std::move(result));
    }

    static void list(Index* to, Index node, Index columns) {
        for (Index j = 0; j < columns; ++j) to[j] = node * columns + j;
    }

    /// The masks of a node that keep a layer stand first.
    [[nodiscard]] Index end_of_kept(const MaskRange& node, Index layer) const {
        Index kept = node.first, skipped = node.last;
        while (skipped - kept > 1) {
            const Index middle = kept + (skipped - kept) / 2;
            (masks_.keeps(middle, layer) ? kept : skipped) = middle;
        }
        return skipped;
    }

    const SortedMasks& masks_;
    Index outputs_;
    unsigned threads_;
};

}  // namespace stochastic_depth::detail
