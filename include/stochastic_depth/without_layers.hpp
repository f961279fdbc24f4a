// SPDX-License-Identifier: MIT
#pragma once

#include <utility>
#include <vector>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>

namespace stochastic_depth {
namespace detail {

/// Takes the skippable layers that a mask skips out of a layer, whose first one is number `first`.
class LayerRemoval {
public:
    LayerRemoval(const SurvivalMask& mask, Index first) : mask_(mask), first_(first) {}

    /// A composite is mapped by its `map_parts`, which may come to the parts in any order: their
    /// places in the mask are found first.
    template <class Layer>
    [[nodiscard]] auto operator()(const Layer& layer) const {
        if constexpr (has_skippable_layers<Layer>) {
            std::vector<std::pair<const void*, Index>> places;
            Index next = first_;
            for_each_part(layer, [&](const auto& part) {
                if (depth(part) > 0) places.emplace_back(&part, next);
                next += depth(part);
            });
            const auto remove = [&](const auto& part) {
                Index first = 0;
                for (const auto& [of, place] : places)
                    if (of == &part) first = place;
                return LayerRemoval{mask_, first}(part);
            };
            static_assert(requires { map_parts(layer, remove); },
                          "without_layers: a composite with skippable layers inside needs a friend "
                          "map_parts(self, f), the same composite of the layers f(part) "
                          "(docs/extending.md)");
            return map_parts(layer, remove);
        } else {
            return layer;
        }
    }

    /// One layer or none: a stack.
    template <class Layer>
    [[nodiscard]] auto operator()(const StochasticDepth<Layer>& node) const {
        using Node = StochasticDepth<Layer>;
        auto kept = kept_of(&node, &node + 1);
        if constexpr (Node::skips_to_identity) {
            return kept;
        } else {
            std::vector<typename Node::Shortcut> shortcut;
            if (!mask_[first_]) shortcut.push_back(node.shortcut());
            return Sequential{std::move(kept), Stack{std::move(shortcut)}};
        }
    }

    template <class Layer>
        requires(StochasticDepth<Layer>::skips_to_identity)
    [[nodiscard]] auto operator()(const Stack<StochasticDepth<Layer>>& nodes) const {
        return kept_of(nodes.layers().data(), nodes.layers().data() + nodes.layers().size());
    }

private:
    /// Those of some nodes that are kept, each without what is removed inside it.
    template <class Layer>
    [[nodiscard]] auto kept_of(const StochasticDepth<Layer>* node,
                               const StochasticDepth<Layer>* end) const {
        std::vector<StochasticDepth<decltype((*this)(node->layer()))>> kept;
        for (Index place = first_; node != end; place += node++->depth())
            if (mask_[place])
                kept.emplace_back(LayerRemoval{mask_, place + 1}(node->layer()),
                                  node->survival_probability());
        return Stack{std::move(kept)};
    }

    const SurvivalMask& mask_;
    Index first_;
};

}  // namespace detail

/// The smaller network that holds only the skippable layers that a mask keeps.
///
/// At full depth it is NN(x, S), bit for bit, and what it skips it does not even hold. Its layers
/// keep their survival probabilities: it can be trained further, and its expectation over masks is
/// f_SD where the others are surely skipped. What stands in for a removed layer is its shortcut:
/// nothing at all where that is the identity.
///
/// \param network  L skippable layers. The user's own composites need `map_parts`
///                 (docs/extending.md).
/// \param mask     S, L layers; those inside a skipped one go with it.
/// \returns        A network of the same type where skippable layers with the identity as shortcut
///                 stand in a `Stack`: that one is shorter. Elsewhere types cannot depend on the
///                 mask, so that a skippable layer becomes a `Stack` of it, with one layer or none,
///                 followed by one of its shortcut if it has one of its own. An empty stack runs no
///                 instruction.
/// \throws std::invalid_argument  if the mask's size is not the network's depth.
/// \source  Veit, Wilber & Belongie 2016, Residual Networks Behave Like Ensembles of Relatively
///          Shallow Networks: deleting layers.
template <MaskedNetwork Network>
[[nodiscard]] auto without_layers(const Network& network, const SurvivalMask& mask) {
    if (mask.size() != network.depth())
        detail::refuse("without_layers: mask must have one entry for each of ", network.depth(),
                       " layers, got ", mask.size());
    return detail::LayerRemoval{mask, 0}(network);
}

}  // namespace stochastic_depth
