// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "text.hpp"

namespace common {

/// Of the values of several seeds.
struct Spread {
    double mean = 0;
    double deviation = 0;  ///< of a sample: n - 1; 0 for one value
};

/// \param values  At least one.
[[nodiscard]] inline Spread spread(const std::vector<double>& values) {
    const auto count = static_cast<double>(values.size());
    Spread result;
    for (const double value : values) result.mean += value;
    result.mean /= count;  // of equal values that value
    double squares = 0;
    for (const double value : values) squares += (value - result.mean) * (value - result.mean);
    if (values.size() > 1) result.deviation = std::sqrt(squares / (count - 1));
    return result;
}

/// Mean, and the standard deviation where there is more than one value.
[[nodiscard]] inline std::string mean_and_deviation(const std::vector<double>& values,
                                                    int decimals) {
    const Spread of = spread(values);
    return fixed(of.mean, decimals) +
           (values.size() < 2 ? "" : " +- " + fixed(of.deviation, decimals));
}

}  // namespace common
