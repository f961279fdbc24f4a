// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>

#include "../common/text_settings.hpp"
#include "../common/training_outputs.hpp"

namespace text_classification {

/// What the command line decides.
struct Options : common::TextSettings, common::TrainingOutputs {
    std::string train;
    std::string dev;  // empty: none
    std::string test;
    unsigned threads = 1;  // parse_options: as many as the machine has
    stochastic_depth::Index exact_texts = 2000;
    std::string save;  // empty: none
    std::string load;  // empty: none
    bool ask = false;
};

/// \returns  Nothing after --help, which has been answered then.
/// \throws common::UsageError  for an option that does not exist, or a value out of its range.
[[nodiscard]] std::optional<Options> parse_options(int argc, const char* const* argv);

}  // namespace text_classification
