// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <algorithm>
#include <cstddef>
#include <thread>

#include "../common/command_line.hpp"

namespace very_deep {
namespace {

using common::count;

void add_training_options(CLI::App& app, Options& options) {
    common::add_epochs(app, options, 1);
    common::add_mask_scope(app, options.mask_scope);
    app.add_option_function<std::string>(
           "--optimizer",
           [&options](const std::string& kind) {
               options.optimizer = kind == "sgd" ? OptimizerKind::sgd : OptimizerKind::adamw;
           },
           "sgd (Nesterov's momentum 0.9, weight decay 0.0005) or adamw (weight decay 0.01)")
        ->type_name("WHICH")
        ->default_str(to_string(options.optimizer))
        ->check([](const std::string& text) {
            return text == "sgd" || text == "adamw" ? std::string{}
                                                    : "must be sgd or adamw, got " + text;
        });
    common::add_steps(app, options)->default_str("0.1 for sgd, 0.001 for adamw");
    app.add_option("--seeds", options.seeds,
                   "Fixes weights, order of images and masks; several: a training for each")
        ->type_name("S")
        ->delimiter(',')
        ->check(common::seed());
    common::add_threads(app, options);
}

}  // namespace

std::string to_string(OptimizerKind kind) { return kind == OptimizerKind::sgd ? "sgd" : "adamw"; }

std::optional<Options> parse_options(int argc, const char* const* argv) {
    Options options;
    options.threads = std::max(1u, std::thread::hardware_concurrency());

    CLI::App app{
        "Trains very deep residual networks on Fashion-MNIST, with stochastic depth and without, "
        "and compares time, test error, loss, and the gradient's norm from block to block."};
    app.name("very_deep");
    app.option_defaults()->always_capture_default();
    common::add_images(app, options);
    app.add_option("--blocks", options.blocks, "Residual blocks; several: a network for each")
        ->type_name("N")
        ->delimiter(',')
        ->check(count(1, 100'000));
    common::add_layers(app, options);
    add_training_options(app, options);
    common::add_json(app, options);
    app.add_option("--plot-dir", options.plot_dir,
                   "Also plot loss and gradient norms into this folder, which is made if need be")
        ->type_name("DIR");
    if (!common::parse(app, argc, argv)) return std::nullopt;

    if (options.learning_rate == 0)
        options.learning_rate = options.optimizer == OptimizerKind::sgd ? 0.1 : 0.001;
    return options;
}

}  // namespace very_deep
