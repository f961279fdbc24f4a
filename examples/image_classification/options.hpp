// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>

#include "../common/image_settings.hpp"
#include "../common/training_outputs.hpp"

namespace image_classification {

/// What the command line decides.
struct Options : common::ImageSettings, common::TrainingOutputs {
    std::string data = "/usr/share/datasets/fashion-mnist";
    unsigned threads = 1;  // parse_options: as many as the machine has
    stochastic_depth::Index exact_images = 100;
};

/// \returns  Nothing after --help, which has been answered then.
/// \throws common::UsageError  for an option that does not exist, or a value out of its range.
[[nodiscard]] std::optional<Options> parse_options(int argc, const char* const* argv);

}  // namespace image_classification
