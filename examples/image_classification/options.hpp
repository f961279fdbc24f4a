// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <stochastic_depth/training/step_options.hpp>

namespace image_classification {

/// What the command line decides.
struct Options {
    std::string data = "/usr/share/datasets/fashion-mnist";
    stochastic_depth::Index train = 50000;
    stochastic_depth::Index test = 10000;
    stochastic_depth::Index epochs = 20;
    stochastic_depth::Index depth = 20;
    double final_survival = 0.5;
    stochastic_depth::MaskScope mask_scope = stochastic_depth::MaskScope::sample;
    stochastic_depth::Index batch_size = 128;
    double learning_rate = 0.1;
    bool augment = false;
    std::uint64_t seed = 0;
    unsigned threads = 1;  // parse_options: as many as the machine has
    std::string json;      // empty: none
};

/// \returns  Nothing after --help, which has been answered then.
/// \throws common::UsageError  for an option that does not exist, or a value out of its range.
[[nodiscard]] std::optional<Options> parse_options(int argc, const char* const* argv);

}  // namespace image_classification
