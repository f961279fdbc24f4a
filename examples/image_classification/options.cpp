// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <algorithm>
#include <thread>

#include "../common/image_options.hpp"

namespace image_classification {

std::optional<Options> parse_options(int argc, const char* const* argv) {
    Options options;
    options.threads = std::max(1u, std::thread::hardware_concurrency());

    CLI::App app{
        "Trains a convolutional residual network on Fashion-MNIST or CIFAR-10, with constant or "
        "stochastic depth, and compares the rules for using it: full depth, weight scaling, Monte "
        "Carlo, and the exact expectation."};
    app.name("image_classification");
    app.option_defaults()->always_capture_default();

    common::add_image_settings(app, options);
    common::add_final_survival(app, options);
    app.add_flag("--augment", options.augment,
                 "Pad each training image by 4, crop it at random, and flip every other one");
    app.add_option("--seed", options.seed,
                   "Fixes weights, order of images, masks and what augmentation does")
        ->type_name("S")
        ->check(common::seed());
    common::add_threads(app, options);
    auto* const checkpoint =
        app.add_option("--checkpoint", options.checkpoint,
                       "Write network, optimizer and history to this file after each epoch")
            ->type_name("FILE");
    app.add_flag("--resume", options.resume, "Go on from the checkpoint")->needs(checkpoint);
    common::add_exact_images(app, options);
    common::add_json(app, options);
    app.add_option("--plot-dir", options.plot_dir,
                   "Also plot the test error against epoch and time into this folder, which is made "
                   "if need be")
        ->type_name("DIR");

    if (!common::parse(app, argc, argv)) return std::nullopt;
    return options;
}

}  // namespace image_classification
