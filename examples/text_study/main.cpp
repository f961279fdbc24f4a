// SPDX-License-Identifier: MIT
//
// What stochastic depth does for text: the same transformer at constant depth, and with layers
// skipped in training in several ways, for several seeds. What does it change in error and
// likelihood, by each rule for using the network, and in what becomes of it when layers are taken
// out? docs/transformers.md has the commands.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <string>
#include <system_error>
#include <vector>

#include "../common/output_file.hpp"
#include "../common/program.hpp"
#include "../common/progress.hpp"
#include "data.hpp"
#include "options.hpp"
#include "report.hpp"
#include "run.hpp"

namespace text_study {
namespace {

void run_all(const Options& options) {
    common::Progress progress;
    std::vector<StudyTexts> sets;
    for (const std::string& name : options.sets)
        sets.push_back(read_texts(options.data, name, options));
    // Seed by seed: what is there after a part of the runs can be compared.
    for (const std::uint64_t seed : options.seeds)
        for (std::size_t i = 0; i < sets.size(); ++i)
            for (const std::string& name : options.variants) {
                const Variant& variant = *variant_of(name);
                common::TextSettings settings = options;
                settings.seed = seed;
                settings.epochs = epochs_of(options, i);
                settings.final_survival = variant.final_survival;
                settings.survival_decay = variant.decay;
                settings.skipping = variant.skipping;
                run_one(sets[i], variant, options, settings, progress);
            }
}

void run(const Options& options) {
    std::error_code error;
    std::filesystem::create_directories(options.output, error);
    if (error)
        throw common::UsageError("--output: cannot make the folder " + options.output + ": " +
                                 error.message());
    common::check_writable("--output", options.output + "/report.md");
    if (!options.report) run_all(options);
    std::cout << write_report(options.output) << '\n';
}

}  // namespace
}  // namespace text_study

int main(int argc, char** argv) {
    return common::run_program("text_study", argc, argv, text_study::parse_options,
                               text_study::run);
}
