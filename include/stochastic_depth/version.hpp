// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#define STOCHASTIC_DEPTH_VERSION_MAJOR 0
#define STOCHASTIC_DEPTH_VERSION_MINOR 1
#define STOCHASTIC_DEPTH_VERSION_PATCH 0

namespace stochastic_depth::detail {

[[nodiscard]] inline std::string library_version() {
    return std::to_string(STOCHASTIC_DEPTH_VERSION_MAJOR) + '.' +
           std::to_string(STOCHASTIC_DEPTH_VERSION_MINOR) + '.' +
           std::to_string(STOCHASTIC_DEPTH_VERSION_PATCH);
}

}  // namespace stochastic_depth::detail
