// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <algorithm>
#include <thread>

#include "../common/command_line.hpp"

namespace fashion_mnist {

using common::count;

std::optional<Options> parse_options(int argc, const char* const* argv) {
    Options options;
    options.threads = std::max(1u, std::thread::hardware_concurrency());

    CLI::App app{
        "Trains a residual network with stochastic depth on Fashion-MNIST, then compares the rules "
        "for using it: full depth, weight scaling, Monte Carlo, and the exact expectation."};
    app.name("fashion_mnist");
    app.option_defaults()->always_capture_default();

    common::add_images(app, options);
    common::add_epochs(app, options, 0);
    app.add_option("--depth", options.depth, "Number of skippable layers")
        ->type_name("L")
        ->check(count(0, 10'000));
    common::add_layers(app, options);
    common::add_mask_scope(app, options.mask_scope);
    common::add_steps(app, options);
    app.add_option("--seed", options.seed, "Fixes weights, order of images and masks")
        ->type_name("S")
        ->check(common::seed());
    common::add_threads(app, options);
    common::add_json(app, options);
    app.add_option("--plot-dir", options.plot_dir,
                   "Also plot best sub-networks and interactions of layers into this folder, which "
                   "is made if need be")
        ->type_name("DIR");

    if (!common::parse(app, argc, argv)) return std::nullopt;
    return options;
}

}  // namespace fashion_mnist
