// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <stochastic_depth/training/trainer.hpp>

namespace fashion_mnist {

/// What the command line decides.
struct Options {
    std::string data = "/usr/share/datasets/fashion-mnist";
    stochastic_depth::Index train = 60000;
    stochastic_depth::Index test = 10000;
    stochastic_depth::Index epochs = 15;
    stochastic_depth::Index depth = 12;
    stochastic_depth::Index width = 128;
    double final_survival = 0.5;
    stochastic_depth::MaskScope mask_scope = stochastic_depth::MaskScope::sample;
    stochastic_depth::Index batch_size = 128;
    double learning_rate = 0.02;
    std::uint64_t seed = 0;
    unsigned threads = 1;  // parse_options: as many as the machine has
    std::string json;      // empty: none
    std::string plot_dir;  // empty: no plots
};

/// \returns  Nothing after --help, which has been answered then.
/// \throws common::UsageError  for an option that does not exist, or a value out of its range.
[[nodiscard]] std::optional<Options> parse_options(int argc, const char* const* argv);

}  // namespace fashion_mnist
