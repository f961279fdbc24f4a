// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <iostream>
#include <limits>
#include <thread>

namespace fashion_mnist {
namespace {

using stochastic_depth::Index;
using stochastic_depth::MaskScope;

/// Accepts what reads as a Number in [lowest, highest], as a whole: no rest, no overflow, no NaN.
template <class Number>
CLI::Validator number_in(Number lowest, Number highest, const std::string& range) {
    const auto check = [=](const std::string& text) -> std::string {
        Number value{};
        const char* const end = text.data() + text.size();
        const auto [rest, error] = std::from_chars(text.data(), end, value);
        if (error == std::errc{} && rest == end && value >= lowest && value <= highest) return {};
        return "must be " + range + ", got " + text;
    };
    return {check, ""};
}

CLI::Validator count(Index lowest, Index highest) {
    return number_in(
        lowest, highest,
        "a whole number from " + std::to_string(lowest) + " to " + std::to_string(highest));
}

}  // namespace

std::string to_string(MaskScope scope) { return scope == MaskScope::sample ? "sample" : "batch"; }

std::optional<Options> parse_options(int argc, const char* const* argv) {
    Options options;
    options.threads = std::max(1u, std::thread::hardware_concurrency());

    CLI::App app{
        "Trains a residual network with stochastic depth on Fashion-MNIST, then compares the rules "
        "for using it: full depth, weight scaling, Monte Carlo, and the exact expectation."};
    app.name("fashion_mnist");
    app.option_defaults()->always_capture_default();

    constexpr double least = std::numeric_limits<double>::min();
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
        ->check(number_in(least, 1.0, "a number in (0, 1]"));
    app.add_option_function<std::string>(
           "--mask-scope",
           [&](const std::string& scope) {
               options.mask_scope = scope == "batch" ? MaskScope::batch : MaskScope::sample;
           },
           "Who shares a mask in a training step: sample or batch")
        ->type_name("WHO")
        ->default_str("sample")
        ->check([](const std::string& text) {
            return text == "sample" || text == "batch" ? std::string{}
                                                       : "must be sample or batch, got " + text;
        });
    app.add_option("--batch-size", options.batch_size, "Images in a training step")
        ->type_name("N")
        ->check(count(1, 60'000));
    app.add_option("--learning-rate", options.learning_rate, "Highest learning rate")
        ->type_name("R")
        ->check(number_in(least, 1e6, "a number in (0, 1000000]"));
    app.add_option("--seed", options.seed, "Fixes weights, order of images and masks")
        ->type_name("S")
        ->check(number_in(std::uint64_t{0}, std::numeric_limits<std::uint64_t>::max(),
                          "a whole number from 0 to 2^64 - 1"));
    app.add_option("--threads", options.threads, "Threads for Monte Carlo and exact expectation")
        ->type_name("N")
        ->check(count(1, 1024));
    app.add_option("--json", options.json, "Also write every figure to this file")
        ->type_name("FILE");

    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
        std::cout << app.help();
        return std::nullopt;
    } catch (const CLI::ParseError& error) {
        throw UsageError(std::string(error.what()) + " (--help lists the options)");
    }
    return options;
}

}  // namespace fashion_mnist
