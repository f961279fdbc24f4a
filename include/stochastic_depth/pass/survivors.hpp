// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/activations.hpp>
#include <stochastic_depth/pass/structure.hpp>

namespace stochastic_depth::detail {

/// Runs a shortcut on the columns that are not in the list, and leaves room for the others.
template <class Shortcut>
void run_on_others(const Shortcut& shortcut, Activations<typename Shortcut::Scalar>& activations,
                   const Index* survivors, Index kept) {
    using Scalar = typename Shortcut::Scalar;
    const auto run = [&](const auto& from, auto to) {
        const Index rest = from.cols() - kept;
        const ScratchArray<Index> skipped(rest);
        list_others(from.cols(), survivors, kept, skipped.data());
        ScratchMatrix<Scalar> x(from.rows(), rest), y(to.rows(), rest);
        gather(from, skipped.data(), *x);
        forward_fused(shortcut, *x, *y, Keep{});
        scatter(*y, skipped.data(), to);
    };
    activations.replace(shortcut.output_size(activations.current().rows()), run);
}

/// Runs a skippable layer on a batch of which some columns keep it: gathers these, runs the layer on
/// them alone, and scatters the result. The others stay as they are, or go through the shortcut.
/// \param mask       Of the layers inside.
/// \param survivors  Columns that keep the layer, in order; fewer than all, at least one.
template <bool others_stay, class Layer, class Shortcut, class Mask>
void run_survivors(const Layer& layer, const Shortcut& shortcut,
                   Activations<typename Layer::Scalar>& activations, const Mask& mask,
                   const Index* survivors, Index kept) {
    using Scalar = typename Layer::Scalar;
    const Index features = activations.current().rows();
    ScratchMatrix<Scalar> x(features, kept);
    gather(activations.current(), survivors, *x);
    const ScratchArray<Index> samples(kept);
    for (Index k = 0; k < kept; ++k) samples[k] = mask.sample(survivors[k]);
    Activations<Scalar> active(*x, widest(layer, features));
    propagate(layer, active, mask.with(samples.data()));
    if constexpr (!others_stay) run_on_others(shortcut, activations, survivors, kept);
    scatter(active.current(), survivors, activations.writable());
}

}  // namespace stochastic_depth::detail
