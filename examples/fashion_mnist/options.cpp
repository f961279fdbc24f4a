// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <algorithm>
#include <limits>
#include <thread>

#include "../common/command_line.hpp"

namespace fashion_mnist {

using common::above_zero;
using common::count;
using common::number_in;

std::optional<Options> parse_options(int argc, const char* const* argv) {
    Options options;
    options.threads = std::max(1u, std::thread::hardware_concurrency());

    CLI::App app{
        "Trains a residual network with stochastic depth on Fashion-MNIST, then compares the rules "
        "for using it: full depth, weight scaling, Monte Carlo, and the exact expectation."};
    app.name("fashion_mnist");
    app.option_defaults()->always_capture_default();

    app.add_option("--data", options.data, "Folder of the four IDX files, gzip-compressed")
        ->type_name("DIR");
    app.add_option("--train", options.train, "Training images to use")
        ->type_name("N")
        ->check(count(1, 60'000));
    app.add_option("--test", options.test, "Test images to use")
        ->type_name("N")
        ->check(count(1, 10'000));
    app.add_option("--epochs", options.epochs, "Passes over the training images")
        ->type_name("N")
        ->check(count(0, 100'000));
    app.add_option("--depth", options.depth, "Number of skippable layers")
        ->type_name("L")
        ->check(count(0, 10'000));
    app.add_option("--width", options.width, "Features of each layer")
        ->type_name("D")
        ->check(count(1, 10'000));
    app.add_option("--final-survival", options.final_survival,
                   "Survival probability of the last layer")
        ->type_name("P")
        ->check(above_zero(1.0, "1"));
    common::add_mask_scope(app, options.mask_scope);
    app.add_option("--batch-size", options.batch_size, "Images in a training step")
        ->type_name("N")
        ->check(count(1, 60'000));
    app.add_option("--learning-rate", options.learning_rate, "Highest learning rate")
        ->type_name("R")
        ->check(above_zero(1e6, "1000000"));
    app.add_option("--seed", options.seed, "Fixes weights, order of images and masks")
        ->type_name("S")
        ->check(number_in(std::uint64_t{0}, std::numeric_limits<std::uint64_t>::max(),
                          "a whole number from 0 to 2^64 - 1"));
    app.add_option("--threads", options.threads, "Threads for Monte Carlo and exact expectation")
        ->type_name("N")
        ->check(count(1, 1024));
    app.add_option("--json", options.json, "Also write every figure to this file")
        ->type_name("FILE");

    if (!common::parse(app, argc, argv)) return std::nullopt;
    return options;
}

}  // namespace fashion_mnist
