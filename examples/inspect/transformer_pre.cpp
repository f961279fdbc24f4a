// SPDX-License-Identifier: MIT
#include "transformer.hpp"

namespace inspect {

Network pre_normalised_transformer(const sd::TransformerOptions& options, sd::SkippedUnit unit) {
    return make_transformer<sd::NormOrder::pre>(options, unit);
}

}  // namespace inspect
