// SPDX-License-Identifier: MIT
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "command_line.hpp"
#include "output_file.hpp"
#include "plots.hpp"
#include "usage_error.hpp"

/// The files of a program that trains a network and tests it after each epoch.
namespace common {

struct TrainingOutputs {
    std::string checkpoint = {};  // empty: none
    bool resume = false;
    std::string json = {};      // empty: none
    std::string plot_dir = {};  // empty: no plots
};

/// Adds --checkpoint, --resume, --json and --plot-dir.
template <class Options>
void add_training_outputs(CLI::App& app, Options& options) {
    auto* const checkpoint =
        app.add_option("--checkpoint", options.checkpoint,
                       "Write network, optimizer and history to this file after each epoch")
            ->type_name("FILE");
    app.add_flag("--resume", options.resume, "Go on from the checkpoint")->needs(checkpoint);
    add_json(app, options);
    app.add_option("--plot-dir", options.plot_dir,
                   "Also plot the error against epoch and time into this folder, which is made if "
                   "need be")
        ->type_name("DIR");
}

/// Before anything is trained.
/// \throws UsageError  if a file cannot be written, or is to be gone on from and is not there.
inline void check_outputs(const TrainingOutputs& outputs) {
    if (!outputs.json.empty()) check_writable("--json", outputs.json);
    if (!outputs.plot_dir.empty()) prepare_plots(outputs.plot_dir, "error_by_epoch");
    if (outputs.resume && !std::filesystem::exists(outputs.checkpoint))
        throw UsageError("--resume: there is no " + outputs.checkpoint);
    if (!outputs.checkpoint.empty() && !outputs.resume)
        check_writable("--checkpoint", outputs.checkpoint);
}

/// Plots the error after each epoch, against epoch and time.
/// \param title    Of the curve.
/// \param history  Of epochs, which have `seconds` of training and a `test_error`.
/// \returns        What came of it, in one sentence.
template <class Epoch>
[[nodiscard]] std::string plot_errors(const std::string& folder, const std::string& title,
                                      const std::vector<Epoch>& history) {
    Curve by_epoch{title, {}}, by_time{title, {}};
    double seconds = 0;
    for (const Epoch& epoch : history) {
        seconds += epoch.seconds;
        by_epoch.points.emplace_back(static_cast<double>(by_epoch.points.size() + 1),
                                     100 * epoch.test_error);
        by_time.points.emplace_back(seconds, 100 * epoch.test_error);
    }
    write_curves(folder, "error_by_epoch", "epoch", "test error, %", {by_epoch});
    write_curves(folder, "error_by_time", "seconds of training", "test error, %", {by_time});
    return draw_plots(folder, {"error_by_epoch", "error_by_time"});
}

}  // namespace common
