// SPDX-License-Identifier: MIT
#pragma once

#include "command_line.hpp"

namespace common {

/// Adds what ImageSettings has but survival, augmentation and seed, and where the images are: --data,
/// --train, --test, --epochs, --depth, --mask-scope, --batch-size, --learning-rate, --weight-decay.
template <class Options>
void add_image_settings(CLI::App& app, Options& options) {
    add_images(app, options);
    app.get_option("--data")->description(
        "Folder of CIFAR-10's binary version, or of Fashion-MNIST's IDX files, gzip-compressed");
    add_epochs(app, options, 1);
    app.add_option("--depth", options.depth, "Layers of the network, 6 n + 2")
        ->type_name("L")
        ->check(count(8, 100'000))
        ->check([](const std::string& text) {
            return std::stoll(text) % 6 == 2 ? std::string() : "must be 6 n + 2, got " + text;
        });
    add_mask_scope(app, options.mask_scope);
    add_steps(app, options);
    app.add_option("--weight-decay", options.weight_decay, "Of all parameters")
        ->type_name("R")
        ->check(number_in(0.0, 1e6, "a number in [0, 1000000]"));
}

/// Adds --exact-images.
template <class Options>
void add_exact_images(CLI::App& app, Options& options) {
    app.add_option("--exact-images", options.exact_images,
                   "Test images on which the exact expectation stands beside the other rules")
        ->type_name("N")
        ->check(count(0, 10'000));
}

/// Adds --final-survival, of the last block.
template <class Options>
void add_final_survival(CLI::App& app, Options& options) {
    app.add_option("--final-survival", options.final_survival,
                   "Survival probability of the last block, where blocks are skipped; earlier ones "
                   "by linear decay. 1: constant depth")
        ->type_name("P")
        ->check(above_zero(1.0, "1"));
}

}  // namespace common
