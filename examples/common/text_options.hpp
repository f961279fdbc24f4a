// SPDX-License-Identifier: MIT
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "command_line.hpp"
#include "text_settings.hpp"

namespace common {

/// Adds all that TextSettings has but what a token is.
template <class Options>
void add_text_settings(CLI::App& app, Options& options) {
    const auto whole = [&](const char* name, Index& value, Index lowest, Index highest,
                           const char* what) {
        app.add_option(name, value, what)->type_name("N")->check(count(lowest, highest));
    };
    const auto share = [&](const char* name, double& value, const char* what) {
        app.add_option(name, value, what)
            ->type_name("R")
            ->check(number_in(0.0, 0.99, "a number in [0, 0.99]"));
    };
    whole("--minimum-count", options.minimum_count, 1, 1'000'000,
          "Tokens that the training texts have less often are unknown");
    whole("--positions", options.positions, 1, 100'000,
          "Tokens of a text; later ones are left out");
    whole("--blocks", options.blocks, 1, 1'000,
          "Blocks of the network, each of attention and feed-forward, two skippable layers");
    whole("--width", options.width, 1, 10'000, "Features of a token");
    whole("--heads", options.heads, 1, 1'000, "Heads of attention, which divide the width");
    whole("--feed-forward", options.feed_forward, 1, 100'000,
          "Features inside the feed-forward layers");
    app.add_option("--final-survival", options.final_survival,
                   "Survival probability of the last layer, where layers are skipped; earlier ones "
                   "by linear decay. 1: constant depth")
        ->type_name("P")
        ->check(above_zero(1.0, "1"));
    add_mask_scope(app, options.mask_scope);
    app.add_flag("--rotary,!--learned", options.rotary,
                 "Positions turn queries and keys, or are vectors that are learned");
    share("--dropout", options.dropout, "Share of features that dropout layers drop");
    share("--token-dropout", options.token_dropout,
          "Share of tokens that a training step sees as unknown");
    add_epochs(app, options, 1);
    app.get_option("--epochs")->description("Passes over the training texts");
    add_steps(app, options);
    app.get_option("--batch-size")->description("Texts in a training step");
    app.add_option("--weight-decay", options.weight_decay, "Of all parameters")
        ->type_name("R")
        ->check(number_in(0.0, 1e6, "a number in [0, 1000000]"));
    share("--label-smoothing", options.label_smoothing,
          "Share of a label's probability that all classes get");
    app.add_option("--seed", options.seed, "Fixes weights, order of texts, masks, dropped tokens")
        ->type_name("S")
        ->check(seed());
}

/// Adds --tokens and --keep-case.
template <class Options>
void add_tokens(CLI::App& app, Options& options) {
    using stochastic_depth::TokenUnit;
    static constexpr TokenUnit units[] = {TokenUnit::byte, TokenUnit::character, TokenUnit::word};
    const auto choose = [&options](const std::string& text) {
        for (const TokenUnit unit : units)
            if (text == to_string(unit)) options.tokens = unit;
    };
    const auto check = [](const std::string& text) -> std::string {
        for (const TokenUnit unit : units)
            if (text == to_string(unit)) return {};
        return "must be bytes, characters or words, got " + text;
    };
    app.add_option_function<std::string>("--tokens", choose,
                                         "What a token is: bytes, characters or words")
        ->type_name("UNIT")
        ->default_str(to_string(options.tokens))
        ->check(check);
    app.add_flag("!--keep-case", options.lower_case,
                 "Leave capital letters; without, those of ASCII become small");
}

/// Adds --exact-texts.
template <class Options>
void add_exact_texts(CLI::App& app, Options& options) {
    app.add_option("--exact-texts", options.exact_texts,
                   "Test texts on which the exact expectation stands beside the other rules")
        ->type_name("N")
        ->check(count(0, 1'000'000));
}

}  // namespace common
