// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include <stochastic_depth/expectation/tree_children.hpp>
#include <stochastic_depth/expectation/tree_law.hpp>
#include <stochastic_depth/pass/evaluations.hpp>
#include <stochastic_depth/survival/mask_law.hpp>
#include <stochastic_depth/types.hpp>

/// Where the tree of mask prefixes is cut for many ranks: the subtrees below the prefixes of the
/// first layers.
namespace stochastic_depth::detail {

/// A law under the condition that the masks begin with a prefix: its tree is the subtree below that
/// prefix, and has the bits that the whole tree has there, as columns don't depend on their company.
template <class Law>
struct UnderPrefix {
    const Law& law;
    /// s_l of the first layers; anything for those inside a skipped one.
    const std::vector<bool>& bits;

    [[nodiscard]] Index depth() const { return law.depth(); }
    [[nodiscard]] LawState<Law> start() const { return law.start(); }
    [[nodiscard]] bool is_given(Index layer) const {
        return layer < static_cast<Index>(bits.size());
    }
    [[nodiscard]] double survival_probability(Index layer, const LawState<Law>& state) const {
        if (is_given(layer)) return bits[static_cast<std::size_t>(layer)] ? 1.0 : 0.0;
        return law.survival_probability(layer, state);
    }
    [[nodiscard]] LawState<Law> next(Index layer, const LawState<Law>& state, bool kept) const {
        return law.next(layer, state, kept);
    }
    [[nodiscard]] LawState<Law> behind_unseen(Index layer,
                                              const LawState<Law>& state) const requires requires {
        law.behind_unseen(layer, state);
    }
    { return law.behind_unseen(layer, state); }
};

/// How many skippable layers stand inside each.
template <class Network>
[[nodiscard]] std::vector<Index> layers_inside(const Network& network) {
    const std::vector<Index> enclosing = enclosing_layers(network);
    std::vector<Index> inside(enclosing.size(), 0);
    for (Index around : enclosing)
        for (; around >= 0; around = enclosing[static_cast<std::size_t>(around)])
            ++inside[static_cast<std::size_t>(around)];
    return inside;
}

/// The subtrees below the prefixes of the first layers, numbered as the tree is walked: those behind
/// a layer kept come before those behind it skipped. A prefix that ends inside a skipped layer goes
/// on to its end: what stands there decides nothing.
///
/// The last layer is in no prefix: the tree computes both of its children at once.
template <class Scalar, Sweep sweep, class Law>
class Subtrees {
public:
    using Children = TreeChildren<Scalar, sweep, Law>;

    /// A node with two children on the way to a subtree.
    struct Fork {
        Children children;
        /// The first subtree below the node, and how many are below each child.
        std::uint64_t first, kept, skipped;
        bool keeps;
    };
    struct Way {
        /// The prefix.
        std::vector<bool> bits;
        /// From the root on.
        std::vector<Fork> forks;
        /// Skippable layers in the subtree.
        Index layers;
    };

    /// \param law            What the tree takes, for as long as this object is in use.
    /// \param inside         layers_inside the network.
    /// \param prefix_layers  At least 0; more than L - 1 are L - 1.
    Subtrees(const Law& law, std::vector<Index> inside, Index prefix_layers)
        : law_(law),
          inside_(std::move(inside)),
          end_(std::max<Index>(0, std::min(prefix_layers, law.depth() - 1))),
          counts_(static_cast<std::size_t>(end_)),
          count_(count_below(0, law.start())) {}

    [[nodiscard]] std::uint64_t count() const { return count_; }

    /// May be called on many threads at once.
    /// \param number  Below count().
    [[nodiscard]] Way way_to(std::uint64_t number) const {
        Way way{{}, {}, law_.depth()};
        LawState<Law> state = law_.start();
        std::uint64_t first = 0;
        for (Index layer = 0; layer < end_; layer = law_.depth() - way.layers) {
            const Children node = node_at(layer, state);
            bool keeps = has_kept(node);
            if (node.both) {
                const std::uint64_t kept = known_below(layer + 1, node.bits_of_active),
                                    all = known_below(layer, state);
                keeps = number < first + kept;
                way.forks.push_back({node, first, kept, all - kept, keeps});
                if (!keeps) first += kept;
            }
            way.bits.push_back(keeps);
            state = keeps ? node.bits_of_active : node.bits_of_skipped;
            way.layers = keeps ? node.layers_of_active : node.layers_of_skipped;
            way.bits.resize(static_cast<std::size_t>(law_.depth() - way.layers), false);
        }
        return way;
    }

private:
    [[nodiscard]] Children node_at(Index layer, const LawState<Law>& state) const {
        return Children::of(law_, law_.depth() - layer, inside_[static_cast<std::size_t>(layer)],
                            state);
    }
    [[nodiscard]] static bool has_kept(const Children& node) {
        return node.both || node.p != Scalar(0);
    }
    [[nodiscard]] static bool has_skipped(const Children& node) {
        return node.both || node.p == Scalar(0);
    }

    /// Subtrees below what starts with a layer, in a state; each is counted once.
    std::uint64_t count_below(Index layer, const LawState<Law>& state) {
        if (layer >= end_) return 1;
        auto& counts = counts_[static_cast<std::size_t>(layer)];
        if (const auto known = counts.find(state); known != counts.end()) return known->second;
        check_states(counts.size() + 1, layer);
        const Children node = node_at(layer, state);
        std::uint64_t count = 0;
        if (has_kept(node)) count += count_below(layer + 1, node.bits_of_active);
        if (has_skipped(node))
            count += count_below(law_.depth() - node.layers_of_skipped, node.bits_of_skipped);
        return counts[state] = count;
    }
    [[nodiscard]] std::uint64_t known_below(Index layer, const LawState<Law>& state) const {
        return layer >= end_ ? 1 : counts_[static_cast<std::size_t>(layer)].at(state);
    }

    const Law& law_;
    std::vector<Index> inside_;
    /// The layer behind the prefixes.
    Index end_;
    std::vector<std::map<LawState<Law>, std::uint64_t>> counts_;
    std::uint64_t count_;
};

}  // namespace stochastic_depth::detail
