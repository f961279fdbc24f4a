// SPDX-License-Identifier: MIT
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "usage_error.hpp"

namespace common {

/// \throws UsageError  if the file is not there, or is not JSON.
[[nodiscard]] inline nlohmann::json read_json(const std::string& path) {
    std::ifstream file(path);
    auto json = nlohmann::json::parse(file, nullptr, false);
    if (json.is_discarded()) throw UsageError(path + ": cannot be read as JSON");
    return json;
}

/// \throws UsageError  naming what differs, if something does.
inline void check_same_settings(const std::string& path, const nlohmann::json& there,
                                const nlohmann::json& here) {
    for (const auto& [name, value] : here.items())
        if (!there.contains(name) || there.at(name) != value)
            throw UsageError(path + ": comes from a training with another " + name + ": " +
                             (there.contains(name) ? there.at(name).dump() : "none") +
                             " there, " + value.dump() + " here");
}

}  // namespace common
