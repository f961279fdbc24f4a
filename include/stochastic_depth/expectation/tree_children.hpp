// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>

#include <stochastic_depth/expectation/moments.hpp>
#include <stochastic_depth/expectation/tree_law.hpp>
#include <stochastic_depth/survival/mask_law.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// What a node of the tree of mask prefixes branches into: the layer kept and the layer skipped, or
/// one of them where the other has no probability and no derivatives are computed.
template <class Scalar, Sweep sweep, class Law>
struct TreeChildren {
    Scalar p;
    Scalar q;
    bool both;
    /// Skippable layers still to come in each child.
    Index layers_of_active;
    Index layers_of_skipped;
    /// What the law knows of the bits so far.
    [[no_unique_address]] LawState<Law> bits_of_active;
    [[no_unique_address]] LawState<Law> bits_of_skipped;

    /// \param layers  Skippable layers still to come, with the node itself.
    /// \param inside  Those inside the node.
    [[nodiscard]] static TreeChildren of(const Law& law, Index layers, Index inside,
                                         const LawState<Law>& bits) {
        const Index layer = law.depth() - layers;
        const double p = law.survival_probability(layer, bits);
        const bool both = has_both_children<sweep>(law, layer, p);
        return {static_cast<Scalar>(p),
                static_cast<Scalar>(1 - p),
                both,
                layers - 1,
                layers - 1 - inside,
                both || p == 1.0 ? law.next(layer, bits, true) : bits,
                both || p == 0.0 ? behind_skipped(law, layer, inside, bits) : bits};
    }

    [[nodiscard]] bool may_share_a_block() const {
        if constexpr (std::is_empty_v<LawState<Law>>)
            return true;
        else
            return bits_of_active == bits_of_skipped;
    }

    [[nodiscard]] PendingSibling<Scalar> sibling(const MomentsView<Scalar>& active,
                                                 const Target<Scalar>& to) const {
        return {active, p, q, layers_of_active, layers_of_skipped, to.siblings};
    }
};

}  // namespace stochastic_depth::detail
