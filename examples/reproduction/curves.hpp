// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "../common/spread.hpp"

namespace reproduction {

/// 1 - sum(p) / L: what of the blocks' time the masks save.
/// \param survival  At least one.
[[nodiscard]] inline double theoretical_saving(const std::vector<double>& survival) {
    return 1 - common::spread(survival).mean;
}

/// What of the mean time at constant depth the mean time with stochastic depth leaves over.
/// \param constant, stochastic  Seconds of each seed, at least one.
[[nodiscard]] inline double time_saved(const std::vector<double>& constant,
                                       const std::vector<double>& stochastic) {
    return 1 - common::spread(stochastic).mean / common::spread(constant).mean;
}

/// Mean of several curves, point by point, as far as all of them go.
/// \param curves  At least one.
[[nodiscard]] inline std::vector<double> mean_curve(
    const std::vector<std::vector<double>>& curves) {
    std::size_t length = curves.front().size();
    for (const auto& curve : curves) length = std::min(length, curve.size());
    std::vector<double> result(length, 0.0);
    for (const auto& curve : curves)
        for (std::size_t i = 0; i < length; ++i)
            result[i] += curve[i] / static_cast<double>(curves.size());
    return result;
}

}  // namespace reproduction
