// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <string>

#include "../common/text_settings.hpp"
#include "../common/training_outputs.hpp"
#include "words.hpp"

namespace language_id {

/// What the command line decides.
struct Options : common::TextSettings, common::TrainingOutputs {
    std::string data = "/usr/share/dict";
    std::vector<Language> languages = {};  // parse_options: those whose lists are there
    sd::Index train = 10000;               // words of each language
    sd::Index test = 1000;
    sd::Index neighbours = 1;
    unsigned threads = 1;  // parse_options: as many as the machine has
    sd::Index exact_texts = 1000;
    std::string save;  // empty: none
    std::string load;  // empty: none
    bool ask = false;
};

/// \returns  Nothing after --help, which has been answered then.
/// \throws common::UsageError  for an option that does not exist, or a value out of its range.
[[nodiscard]] std::optional<Options> parse_options(int argc, const char* const* argv);

}  // namespace language_id
