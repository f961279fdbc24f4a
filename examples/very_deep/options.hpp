// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <stochastic_depth/training/training_step.hpp>

namespace very_deep {

enum class OptimizerKind { sgd, adamw };

/// What the command line decides.
struct Options {
    std::string data = "/usr/share/datasets/fashion-mnist";
    stochastic_depth::Index train = 60000;
    stochastic_depth::Index test = 10000;
    std::vector<stochastic_depth::Index> blocks = {110, 1000};
    stochastic_depth::Index width = 64;
    double final_survival = 0.5;
    stochastic_depth::Index epochs = 8;
    stochastic_depth::Index batch_size = 128;
    stochastic_depth::MaskScope mask_scope = stochastic_depth::MaskScope::sample;
    OptimizerKind optimizer = OptimizerKind::sgd;
    double learning_rate = 0;  // parse_options: 0.1 for SGD, 0.001 for AdamW
    std::vector<std::uint64_t> seeds = {0};
    unsigned threads = 1;  // parse_options: as many as the machine has
    std::string json;      // empty: none
    std::string plot_dir;  // empty: no plots
};

[[nodiscard]] std::string to_string(OptimizerKind kind);

/// \returns  Nothing after --help, which has been answered then.
/// \throws common::UsageError  for an option that does not exist, or a value out of its range.
[[nodiscard]] std::optional<Options> parse_options(int argc, const char* const* argv);

}  // namespace very_deep
