// SPDX-License-Identifier: MIT
#pragma once

namespace stochastic_depth {

/// What multiplies the branch F of a skippable residual layer with survival bit s.
enum class Scaling {
    /// The definition, y = x + s F(x): in use, f_SD or its approximations answer.
    none,
    /// y = x + (s / p) F(x) in training, so that its mean over s is x + F(x), which answers in use.
    inverted,
};

}  // namespace stochastic_depth
