// SPDX-License-Identifier: MIT
#pragma once

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <iostream>
#include <limits>
#include <string>
#include <system_error>

#include <stochastic_depth/types.hpp>

#include "mask_scope.hpp"
#include "usage_error.hpp"

namespace common {

using stochastic_depth::Index;

/// Accepts what reads as a Number in [lowest, highest], as a whole: no rest, no overflow, no NaN.
template <class Number>
[[nodiscard]] CLI::Validator number_in(Number lowest, Number highest, const std::string& range) {
    const auto check = [=](const std::string& text) -> std::string {
        Number value{};
        const char* const end = text.data() + text.size();
        const auto [rest, error] = std::from_chars(text.data(), end, value);
        if (error == std::errc{} && rest == end && value >= lowest && value <= highest) return {};
        return "must be " + range + ", got " + text;
    };
    return {check, ""};
}

[[nodiscard]] inline CLI::Validator count(Index lowest, Index highest) {
    return number_in(
        lowest, highest,
        "a whole number from " + std::to_string(lowest) + " to " + std::to_string(highest));
}

/// (0, highest].
[[nodiscard]] inline CLI::Validator above_zero(double highest, const std::string& name) {
    return number_in(std::numeric_limits<double>::min(), highest, "a number in (0, " + name + "]");
}

/// What an option that fixes random numbers accepts.
[[nodiscard]] inline CLI::Validator seed() {
    return number_in(std::uint64_t{0}, std::numeric_limits<std::uint64_t>::max(),
                     "a whole number from 0 to 2^64 - 1");
}

/// Adds --data, --train and --test: where the images are, and how many of them to use.
template <class Options>
void add_images(CLI::App& app, Options& options) {
    app.add_option("--data", options.data, "Folder of the four IDX files, gzip-compressed")
        ->type_name("DIR");
    app.add_option("--train", options.train, "Training images to use")
        ->type_name("N")
        ->check(count(1, 60'000));
    app.add_option("--test", options.test, "Test images to use")
        ->type_name("N")
        ->check(count(1, 10'000));
}

/// Adds --epochs, at least so many.
template <class Options>
void add_epochs(CLI::App& app, Options& options, Index fewest) {
    app.add_option("--epochs", options.epochs, "Passes over the training images")
        ->type_name("N")
        ->check(count(fewest, 100'000));
}

/// Adds --json.
template <class Options>
void add_json(CLI::App& app, Options& options) {
    app.add_option("--json", options.json, "Also write every figure to this file")
        ->type_name("FILE");
}

/// Adds --width and --final-survival.
template <class Options>
void add_layers(CLI::App& app, Options& options) {
    app.add_option("--width", options.width, "Features of each layer")
        ->type_name("D")
        ->check(count(1, 10'000));
    app.add_option("--final-survival", options.final_survival,
                   "Survival probability of the last layer, where layers are skipped")
        ->type_name("P")
        ->check(above_zero(1.0, "1"));
}

/// Adds --batch-size and --learning-rate.
/// \returns  The latter, whose default a program may describe in words.
template <class Options>
CLI::Option* add_steps(CLI::App& app, Options& options) {
    app.add_option("--batch-size", options.batch_size, "Images in a training step")
        ->type_name("N")
        ->check(count(1, 60'000));
    return app.add_option("--learning-rate", options.learning_rate, "Highest learning rate")
        ->type_name("R")
        ->check(above_zero(1e6, "1000000"));
}

/// Adds --threads.
template <class Options>
void add_threads(CLI::App& app, Options& options) {
    app.add_option("--threads", options.threads, "Threads; their number changes no figure but time")
        ->type_name("N")
        ->check(count(1, 1024));
}

/// Adds --shards.
template <class Options>
void add_shards(CLI::App& app, Options& options) {
    app.add_option("--shards", options.shards,
                   "Parts of a batch, each of which one thread computes alone: faster with several "
                   "threads, and of other figures. 0: 1, or 8 where processes share the training")
        ->type_name("N")
        ->check(count(0, 1024));
}

/// Adds --mask-scope. \param scope  Its default, and where the answer goes.
inline void add_mask_scope(CLI::App& app, stochastic_depth::MaskScope& scope) {
    using stochastic_depth::MaskScope;
    static constexpr MaskScope scopes[] = {MaskScope::sample, MaskScope::batch, MaskScope::subset};
    const auto choose = [&scope](const std::string& text) {
        for (const MaskScope each : scopes)
            if (text == to_string(each)) scope = each;
    };
    const auto check = [](const std::string& text) -> std::string {
        for (const MaskScope each : scopes)
            if (text == to_string(each)) return {};
        return "must be sample, batch or subset, got " + text;
    };
    app.add_option_function<std::string>(
           "--mask-scope", choose,
           "Who shares a mask in a training step: each sample has its own, the batch has one, or "
           "each layer keeps a subset of fixed size: sample, batch or subset")
        ->type_name("WHO")
        ->default_str(to_string(scope))
        ->check(check);
}

/// \returns  Whether the program should go on; --help has been answered otherwise.
/// \throws UsageError  for an option that does not exist, or a value out of its range.
[[nodiscard]] inline bool parse(CLI::App& app, int argc, const char* const* argv) {
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
        std::cout << app.help();
        return false;
    } catch (const CLI::ParseError& error) {
        throw UsageError(std::string(error.what()) + " (--help lists the options)");
    }
    return true;
}

}  // namespace common
