// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "../common/text_settings.hpp"

namespace text_study {

/// How layers are skipped in a training: what the study compares.
struct Variant {
    const char* name;   ///< on the command line and in the files' names
    const char* title;  ///< in the tables
    double final_survival;
    common::SurvivalDecay decay;
    common::SkippingTime skipping;
};

inline constexpr std::array variants{
    Variant{"constant", "constant depth", 1.0, common::SurvivalDecay::linear,
            common::SkippingTime::always},
    Variant{"final_0.8", "linear decay to 0.8", 0.8, common::SurvivalDecay::linear,
            common::SkippingTime::always},
    Variant{"final_0.5", "linear decay to 0.5", 0.5, common::SurvivalDecay::linear,
            common::SkippingTime::always},
    Variant{"uniform_0.75", "uniform 0.75", 0.75, common::SurvivalDecay::none,
            common::SkippingTime::always},
    Variant{"early_0.5", "early, linear decay to 0.5", 0.5, common::SurvivalDecay::linear,
            common::SkippingTime::early},
    Variant{"late_0.5", "late, linear decay to 0.5", 0.5, common::SurvivalDecay::linear,
            common::SkippingTime::late}};

/// Null if there is none of that name.
[[nodiscard]] inline const Variant* variant_of(const std::string& name) {
    const auto found = std::find_if(variants.begin(), variants.end(),
                                    [&](const Variant& variant) { return variant.name == name; });
    return found == variants.end() ? nullptr : &*found;
}

[[nodiscard]] inline std::vector<std::string> variant_names() {
    std::vector<std::string> names;
    for (const Variant& variant : variants) names.emplace_back(variant.name);
    return names;
}

}  // namespace text_study
