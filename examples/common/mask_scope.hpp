// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include <stochastic_depth/training/training_step.hpp>

namespace common {

[[nodiscard]] inline std::string to_string(stochastic_depth::MaskScope scope) {
    using stochastic_depth::MaskScope;
    switch (scope) {
        case MaskScope::batch:
            return "batch";
        case MaskScope::sample:
            return "sample";
        case MaskScope::subset:
            return "subset";
    }
    return {};
}

}  // namespace common
