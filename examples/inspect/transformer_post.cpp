// SPDX-License-Identifier: MIT
#include "transformer.hpp"

namespace inspect {

Network post_normalised_transformer(const sd::TransformerOptions& options, sd::SkippedUnit unit) {
    return make_transformer<sd::NormOrder::post>(options, unit);
}

}  // namespace inspect
