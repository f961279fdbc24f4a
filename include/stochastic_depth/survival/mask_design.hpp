// SPDX-License-Identifier: MIT
#pragma once

namespace stochastic_depth {

/// How the masks of a sample belong together. Under each of them every single mask has the
/// distribution P(S), so that a plain mean over the masks is unbiased; what differs is how masks
/// depend on each other.
enum class MaskDesign {
    /// Not at all: the masks of MaskSampler.
    independent,
    /// Pairs drawn from u and 1 - u: what one skips, the other tends to keep.
    antithetic,
    /// Latin hypercube over the layers: of m masks, floor or ceil of m p_l keep layer l, which ones
    /// being random and independent for each layer. Takes away the variance that single layers
    /// make.
    stratified,
    /// Randomly shifted lattice rule: as `stratified`, but which masks keep a layer follows a
    /// pattern that balances the pairs of layers too.
    lattice,
};

}  // namespace stochastic_depth
