// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>

#include <stochastic_depth/expectation/progress.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/walk.hpp>
#include <stochastic_depth/threads/parallel.hpp>

namespace stochastic_depth::detail {

/// Sends a batch through a network under every mask, each prefix once: the tree behind the table of
/// all 2^L values.
///
/// A node's columns, the whole batch under one prefix, stay side by side. As in PrefixTree, nodes
/// first stand next to each other in one block; once there are enough, blocks of them go to the
/// threads, and each is walked depth first.
template <class Scalar>
class MaskTree {
public:
    /// \param progress  Null: nobody asks.
    MaskTree(Index batch, unsigned threads, ProgressMeter* progress)
        : batch_(batch),
          block_nodes_(std::max<Index>(1, block_columns / std::max<Index>(1, batch))),
          wide_nodes_(block_nodes_ * (threads > 1 ? 8 * std::min<Index>(threads, 64) : 2)),
          threads_(threads),
          progress_(progress) {}

    /// \param use  use(bits, y): bit l of `bits` is s_l, y the outputs [outputs x batch]. Layers
    ///             inside a skipped one have the bit 0, so each way through the network comes once.
    ///             Called on the threads, at once.
    template <class Network, class Use>
    void walk(const Network& network, const ConstMatrixRef<Scalar>& x, const Use& use) const {
        const Block<Scalar> block(const_view(x), {});
        const std::uint64_t none = 0;
        Walk<MaskTree>{*this}(network, block, Output<Use>{*this, use},
                              State{&none, 1, 0, 0, Phase::wide});
    }

private:
    friend Walk<MaskTree>;

    /// Columns that make a good block.
    static constexpr Index block_columns = 96;

    enum class Phase { wide, deep };

    /// The nodes whose columns stand in a block, in this order.
    struct State {
        /// The layers that each node has kept while blocks were wide.
        const std::uint64_t* prefixes;
        Index nodes;
        /// The layers that all have kept since.
        std::uint64_t kept;
        /// How many skippable layers are behind.
        Index layer;
        Phase phase;
    };

    /// The end of the network.
    template <class Use>
    struct Output {
        using End = void;
        const MaskTree& tree;
        const Use& use;

        void operator()(const Block<Scalar>& y, const State& state) const {
            for (Index k = 0; k < state.nodes; ++k)
                use(state.prefixes[k] | state.kept, tree.columns_of(y, k, 1));
        }
    };

    [[nodiscard]] Block<Scalar> columns_of(const Block<Scalar>& x, Index first, Index nodes) const {
        return x.part(first * batch_, nodes * batch_);
    }

    /// Runs blocks of nodes on the threads.
    template <class Run>
    void split(const Block<Scalar>& x, const State& state, const Run& run) const {
        parallel_blocks(state.nodes, block_nodes_, threads_, [&](Index first, Index nodes) {
            run(columns_of(x, first, nodes),
                State{state.prefixes + first, nodes, state.kept, state.layer, Phase::deep});
        });
    }

    template <class Layer, class Then>
    void run(const Layer& layer, const Block<Scalar>& x, const Then& then,
             const State& state) const {
        run_and_go_on(layer, x, then, state);
    }

    /// Layers with skippable layers inside, side by side: the columns of x must stay in their
    /// places until they are joined.
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

    template <class Walk, class Node, class Then>
    void at(const Walk& walk, const Node& node, const Block<Scalar>& x, const Then& then,
            const State& state) const {
        if (state.phase == Phase::wide && state.nodes >= wide_nodes_)
            return split(x, state, [&](const Block<Scalar>& block, const State& deep) {
                walk(node, block, then, deep);
            });
        if (progress_) progress_->add(static_cast<double>(x.cols()));
        if constexpr (!has_skippable_layers<LayerOf<Node>>)
            if (state.phase == Phase::wide) return widen(node, x, then, state);
        State active = state, skipped = state;
        active.kept |= std::uint64_t{1} << state.layer;
        active.layer += 1;
        skipped.layer += node.depth();
        walk(node.layer(), x, then, active);
        walk.skip(node, x, then, skipped);
    }

    /// Both children side by side: the active one's columns, then the skipped one's.
    template <class Node, class Then>
    void widen(const Node& node, const Block<Scalar>& x, const Then& then,
               const State& state) const {
        const ScratchArray<std::uint64_t> prefixes(2 * state.nodes);
        for (Index k = 0; k < state.nodes; ++k) {
            prefixes[k] = state.prefixes[k] | std::uint64_t{1} << state.layer;
            prefixes[state.nodes + k] = state.prefixes[k];
        }
        ScratchMatrix<Scalar> outputs(node.output_size(x.rows()), 2 * x.cols());
        run_to_end(node.layer(), x, store_to(outputs->leftCols(x.cols())));
        run_to_end(node.shortcut(), x, store_to(outputs->rightCols(x.cols())));
        const Block<Scalar> y(const_view(*outputs), x.lengths());
        then(y, State{prefixes.data(), 2 * state.nodes, state.kept, state.layer + 1, Phase::wide});
    }

    Index batch_;
    Index block_nodes_;
    Index wide_nodes_;
    unsigned threads_;
    ProgressMeter* progress_;
};

}  // namespace stochastic_depth::detail
