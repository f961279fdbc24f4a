// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <stochastic_depth/types.hpp>

namespace inspect {

/// What the command line decides.
struct Options {
    std::string network;
    std::string weights;
    std::string inputs;
    bool describe = false;
    std::string start;  // the kind of network whose description is to be printed; empty: none

    bool channels_first = false;
    std::string labels;                              // empty: none
    std::string targets;                             // empty: none
    std::string survival;                            // empty: as the network was trained
    std::optional<stochastic_depth::Index> samples;  // none: all
    std::optional<stochastic_depth::Index> output;   // none: as there are labels or classes

    std::uint64_t budget = std::uint64_t{1} << 16;
    bool bounds = false;
    std::uint64_t seed = 0;
    unsigned threads = 1;  // parse_options: as many as the machine has

    stochastic_depth::Index show = 10;
    std::string json;      // empty: none
    std::string plot_dir;  // empty: no plots
};

/// \returns  Nothing after --help, which has been answered then.
/// \throws common::UsageError  for an option that does not exist, a value out of its range, or
///                             options that don't go together.
[[nodiscard]] std::optional<Options> parse_options(int argc, const char* const* argv);

}  // namespace inspect
