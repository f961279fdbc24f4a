// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <algorithm>
#include <thread>

#include "../common/command_line.hpp"

namespace image_classification {

using common::count;

std::optional<Options> parse_options(int argc, const char* const* argv) {
    Options options;
    options.threads = std::max(1u, std::thread::hardware_concurrency());

    CLI::App app{
        "Trains a convolutional residual network on Fashion-MNIST or CIFAR-10, with constant or "
        "stochastic depth, and says its test error after each epoch."};
    app.name("image_classification");
    app.option_defaults()->always_capture_default();

    common::add_images(app, options);
    app.get_option("--data")->description(
        "Folder of CIFAR-10's binary version, or of Fashion-MNIST's IDX files, gzip-compressed");
    common::add_epochs(app, options, 0);
    app.add_option("--depth", options.depth, "Layers of the network, 6 n + 2")
        ->type_name("L")
        ->check(count(8, 100'000))
        ->check([](const std::string& text) {
            return std::stoll(text) % 6 == 2 ? std::string() : "must be 6 n + 2, got " + text;
        });
    app.add_option("--final-survival", options.final_survival,
                   "Survival probability of the last block; earlier ones by linear decay. 1: "
                   "constant depth")
        ->type_name("P")
        ->check(common::above_zero(1.0, "1"));
    common::add_mask_scope(app, options.mask_scope);
    common::add_steps(app, options);
    app.add_flag("--augment", options.augment,
                 "Pad each training image by 4, crop it at random, and flip every other one");
    app.add_option("--seed", options.seed,
                   "Fixes weights, order of images, masks and what augmentation does")
        ->type_name("S")
        ->check(common::seed());
    common::add_threads(app, options);
    common::add_json(app, options);

    if (!common::parse(app, argc, argv)) return std::nullopt;
    return options;
}

}  // namespace image_classification
