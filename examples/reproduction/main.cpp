// SPDX-License-Identifier: MIT
//
// The experiment of Huang et al. 2016, as far as a small machine goes: the same convolutional
// residual network at constant depth and with stochastic depth, for several seeds. What does it
// change in test error, time, gradients, and in what becomes of the network when blocks are taken
// out of it? docs/reproduction.md has the commands.
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <string>
#include <system_error>

#include "../common/images.hpp"
#include "../common/output_file.hpp"
#include "../common/program.hpp"
#include "../common/progress.hpp"
#include "options.hpp"
#include "report.hpp"
#include "run.hpp"

namespace reproduction {
namespace {

void run_all(const Options& options) {
    const common::Images images = common::load_images(options);
    common::Progress progress;
    // Seed by seed: what is there after a part of the runs can be compared.
    for (const std::uint64_t seed : options.seeds)
        for (const bool augment : {false, true}) {
            if (options.augmentation == (augment ? "without" : "with")) continue;
            for (const double survival : options.survivals) {
                common::ImageSettings settings = options;
                settings.seed = seed;
                settings.augment = augment;
                settings.final_survival = survival;
                run_one(images, options, settings, progress);
            }
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
}  // namespace reproduction

int main(int argc, char** argv) {
    return common::run_program("reproduction", argc, argv, reproduction::parse_options,
                               reproduction::run);
}
