// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <stdexcept>
#include <vector>

#include <stochastic_depth/survival/mask_law.hpp>
#include <stochastic_depth/survival/most_probable_masks.hpp>

namespace stochastic_depth {

/// Every mask that a law gives a probability above 0, with it: from (1, ..., 1) to (0, ..., 0), the
/// last layer changing fastest.
///
/// \param most  How many there may be.
/// \throws std::length_error      if there are more.
/// \throws std::invalid_argument  if a probability lies outside [0, 1].
/// \complexity  L steps for each mask.
template <MaskLaw Law>
[[nodiscard]] std::vector<ProbableMask> probable_masks(const Law& law,
                                                       std::size_t most = std::size_t{1} << 24) {
    std::vector<ProbableMask> list;
    SurvivalMask mask = SurvivalMask::none(law.depth());
    const auto descend = [&](const auto& self, Index l, const LawState<Law>& state,
                             double product) -> void {
        if (l == mask.size()) {
            if (list.size() == most)
                throw std::length_error(
                    detail::message("probable_masks: masks must be at most ", most, ", got more"));
            list.push_back({mask, product});
            return;
        }
        const double p = detail::survival_probability(law, l, state);
        if (p > 0) {
            mask.keep(l);
            self(self, l + 1, law.next(l, state, true), product * p);
            mask.skip(l);
        }
        if (p < 1) self(self, l + 1, law.next(l, state, false), product * (1.0 - p));
    };
    descend(descend, 0, law.start(), 1.0);
    return list;
}

}  // namespace stochastic_depth
