// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/scaled.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

namespace stochastic_depth {
namespace detail {

enum class InvertedScaling {
    removed,  ///< F becomes F / p.
    assumed   ///< F becomes p F.
};

/// A branch times a factor; where it has skippable layers inside, the factor is a layer behind it.
template <class Branch>
[[nodiscard]] auto times(Branch branch, double factor) {
    using Scalar = typename Branch::Scalar;
    const auto c = static_cast<Scalar>(factor);
    if constexpr (has_skippable_layers<Branch>)
        return Sequential{std::move(branch), Scaled<Identity<Scalar>>{{}, c}};
    else
        return Scaled<Branch>{std::move(branch), c};
}

/// Converts a layer: a composite makes one like itself of its converted parts, by a function
/// `map_parts(composite, f)` beside it; a leaf stays.
template <InvertedScaling change>
struct Rescale {
    template <class Layer>
    [[nodiscard]] auto operator()(const Layer& layer) const {
        static_assert(!is_skippable<Layer>,
                      "scaling: inverted scaling multiplies the branch of a residual layer, and "
                      "this skippable layer has none: it must be "
                      "StochasticDepth<Residual<Branch, Shortcut>>");
        if constexpr (has_skippable_layers<Layer>) {
            static_assert(requires(const Rescale& rescale) { map_parts(layer, rescale); },
                          "scaling: a composite with skippable layers inside needs a friend "
                          "map_parts(self, f), the same composite of the layers f(part), to be "
                          "converted (docs/extending.md)");
            return map_parts(layer, *this);
        } else {
            return layer;
        }
    }

    template <class Branch, class Shortcut>
    [[nodiscard]] auto operator()(const StochasticDepth<Residual<Branch, Shortcut>>& node) const {
        const double p = node.survival_probability().value();
        const double factor = change == InvertedScaling::removed ? 1 / p : p;
        return StochasticDepth{
            Residual{times((*this)(node.layer().branch()), factor), node.layer().shortcut()},
            node.survival_probability()};
    }
};

}  // namespace detail

/// The network that means here what `network` means to those who trained it with inverted scaling.
///
/// Inverted scaling multiplies a kept branch by 1 / p in training and by nothing in use:
///
///     y = shortcut(x) + (s / p) F(x),  in use y = shortcut(x) + F(x).
///
/// That is this library's definition, y = shortcut(x) + s G(x), for the branches G = F / p. So each
/// branch of a skippable layer becomes Scaled{branch, 1 / p}; everything else stays, recursively
/// through all composites. Masked passes, expectations and
/// attributions of the result are those of the network as it was trained, and its `WeightScaling`,
/// shortcut(x) + p G(x), is the plain pass of `network` up to rounding.
///
/// \param network  Each of its skippable layers is a residual one; a compile-time error says so
///                 otherwise.
/// \returns        A network of another type: StochasticDepth<Residual<B>> becomes
///                 StochasticDepth<Residual<Scaled<B>>>.
/// \throws std::invalid_argument  if 1 / p is not finite in the network's Scalar.
/// \source  The rule of timm's `drop_path` (scale_by_keep) and of torchvision's
///          `ops.stochastic_depth`; that of dropout, Srivastava et al. 2014, section 10.
template <MaskedNetwork Network>
[[nodiscard]] auto without_inverted_scaling(const Network& network) {
    return detail::Rescale<detail::InvertedScaling::removed>{}(network);
}

/// The other direction: the network whose training with inverted scaling is what `network` means
/// here. Each branch of a skippable layer becomes Scaled{branch, p}, so that the plain pass of the
/// result is `WeightScaling` of `network` up to rounding.
///
/// \param network  Each of its skippable layers is a residual one; a compile-time error says so
///                 otherwise.
template <MaskedNetwork Network>
[[nodiscard]] auto with_inverted_scaling(const Network& network) {
    return detail::Rescale<detail::InvertedScaling::assumed>{}(network);
}

}  // namespace stochastic_depth
