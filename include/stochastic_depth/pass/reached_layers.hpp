// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <vector>

#include <stochastic_depth/pass/evaluations.hpp>
#include <stochastic_depth/survival/any_mask_law.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// The layers of a network under a law of masks. A layer is reached where all skippable layers
/// around it are kept.
struct ReachedLayers {
    /// P(s_l = 1) where layer l is reached; 0 where it never is. Without layers inside layers, the
    /// marginals of the law.
    Eigen::VectorXd survival_probabilities;
    /// E of the layers that are reached and kept.
    double evaluations = 0;
};

template <class Network>
[[nodiscard]] ReachedLayers reached_layers(const Network& network, const ErasedLaw& law) {
    const std::vector<Index> enclosing = enclosing_layers(network);
    ReachedLayers result{law.marginals, 0};
    Eigen::VectorXd runs = law.marginals;
    for (Index l = 0; l < runs.size(); ++l) {
        const Index innermost = enclosing[static_cast<std::size_t>(l)];
        if (innermost >= 0) {
            SurvivalMask together = SurvivalMask::none(runs.size());
            for (Index k = l; k >= 0; k = enclosing[static_cast<std::size_t>(k)]) together.keep(k);
            runs(l) = law.probability_of_keeping(together);
            result.survival_probabilities(l) = runs(innermost) > 0 ? runs(l) / runs(innermost) : 0;
        }
        result.evaluations += runs(l);
    }
    return result;
}

}  // namespace stochastic_depth::detail
