// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <algorithm>
#include <thread>

#include "../common/image_options.hpp"
#include "../common/training_outputs.hpp"

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
    common::add_shards(app, options);
    common::add_exact_images(app, options);
    common::add_training_outputs(app, options);

    if (!common::parse(app, argc, argv)) return std::nullopt;
    return options;
}

}  // namespace image_classification
