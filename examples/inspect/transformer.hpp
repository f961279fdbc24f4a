// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/models/transformer.hpp>

#include "architecture.hpp"

namespace inspect {

// A translation unit for each order of normalisations.
[[nodiscard]] Network pre_normalised_transformer(const sd::TransformerOptions& options,
                                                 sd::SkippedUnit unit);
[[nodiscard]] Network post_normalised_transformer(const sd::TransformerOptions& options,
                                                  sd::SkippedUnit unit);

template <sd::NormOrder norm>
[[nodiscard]] Network make_transformer(const sd::TransformerOptions& options,
                                       sd::SkippedUnit unit) {
    using enum sd::SkippedUnit;
    sd::Philox random{0};
    if (unit == block)
        return sd::transformer_classifier<float, sd::TransformerStyle{norm, block}>(options,
                                                                                    random);
    return sd::transformer_classifier<float, sd::TransformerStyle{norm, sublayer}>(options, random);
}

}  // namespace inspect
