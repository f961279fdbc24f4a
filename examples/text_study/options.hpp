// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../common/text_settings.hpp"
#include "variants.hpp"

namespace text_study {

/// What the command line decides.
struct Options : common::TextSettings {
    std::string data;    // a folder
    std::string output;  // a folder
    std::vector<std::string> sets = {"trec", "sst2"};
    std::vector<std::string> variants = variant_names();
    std::vector<std::uint64_t> seeds = {0, 1, 2, 3, 4};
    std::vector<stochastic_depth::Index> epochs_of_sets = {};  // empty: as epochs_of has it
    stochastic_depth::Index masks = 10;
    unsigned threads = 1;
    bool report = false;  // train nothing
};

/// \param set  Its place among options.sets.
[[nodiscard]] inline stochastic_depth::Index epochs_of(const Options& options, std::size_t set) {
    if (options.epochs_of_sets.size() == 1) return options.epochs_of_sets.front();
    if (!options.epochs_of_sets.empty()) return options.epochs_of_sets[set];
    return options.sets[set] == "trec" ? 12 : options.sets[set] == "sst2" ? 6 : 10;
}

/// \returns  Nothing after --help, which has been answered then.
/// \throws common::UsageError  for an option that does not exist, or a value out of its range.
[[nodiscard]] std::optional<Options> parse_options(int argc, const char* const* argv);

}  // namespace text_study
