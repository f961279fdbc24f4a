// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../common/image_settings.hpp"

namespace reproduction {

/// What the command line decides.
struct Options : common::ImageSettings {
    std::string data = "/usr/share/datasets/fashion-mnist";
    std::string output;  // a folder
    std::vector<double> survivals = {1.0, 0.5};
    std::vector<std::uint64_t> seeds = {0, 1, 2};
    std::string augmentation = "both";  // or "without", "with"
    unsigned threads = 1;
    stochastic_depth::Index sampled_images = 1000;
    stochastic_depth::Index exact_images = 20;
    stochastic_depth::Index lesion_images = 500;
    bool report = false;  // train nothing
};

/// \returns  Nothing after --help, which has been answered then.
/// \throws common::UsageError  for an option that does not exist, or a value out of its range.
[[nodiscard]] std::optional<Options> parse_options(int argc, const char* const* argv);

}  // namespace reproduction
