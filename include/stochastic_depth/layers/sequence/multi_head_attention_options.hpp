// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

struct MultiHeadAttentionOptions {
    /// Numbers of a position, at least 1.
    Index width = 1;
    /// At least 1; must divide the width.
    Index heads = 1;
    /// Whether a position sees those before it and itself alone.
    bool causal = false;
    /// Whether queries and keys are turned by their positions; the width of a head must then be
    /// even.
    bool rotary = false;
    bool bias = true;
};

namespace detail {

/// The options, unless one lies outside its range.
[[nodiscard]] inline const MultiHeadAttentionOptions& checked(
    const MultiHeadAttentionOptions& options) {
    if (options.width < 1)
        refuse("MultiHeadAttention: width must be at least 1, got ", options.width);
    if (options.heads < 1)
        refuse("MultiHeadAttention: heads must be at least 1, got ", options.heads);
    if (options.width % options.heads != 0)
        refuse("MultiHeadAttention: heads must divide the width ", options.width, ", got ",
               options.heads);
    if (options.rotary && options.width / options.heads % 2 != 0)
        refuse("MultiHeadAttention: rotary positions need heads of even width, got ",
               options.width / options.heads);
    return options;
}

}  // namespace detail
}  // namespace stochastic_depth
