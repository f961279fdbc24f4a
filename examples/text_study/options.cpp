// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <CLI/CLI.hpp>
#include <cstddef>
#include <string>

#include "../common/command_line.hpp"

namespace text_study {

std::optional<Options> parse_options(int argc, const char* const* argv) {
    Options options;
    // Of eight skippable layers the 256 masks are cheap, and at constant depth so little dropout
    // lets it overfit.
    options.blocks = 4;
    options.width = 64;
    options.heads = 4;
    options.feed_forward = 128;
    options.dropout = 0.1;
    options.token_dropout = 0.1;
    options.batch_size = 32;
    options.learning_rate = 0.001;
    options.weight_decay = 0.01;

    CLI::App app{
        "What stochastic depth does for text: trains a transformer for each data set, seed and way "
        "of skipping layers, takes layers out of it afterwards, and writes tables and figures of all "
        "that the output folder holds. What is finished there is skipped, and a training that was "
        "interrupted goes on."};
    app.name("text_study");
    app.option_defaults()->always_capture_default();
    const auto whole = [&](const char* name, common::Index& value, common::Index lowest,
                           common::Index highest, const char* what) {
        app.add_option(name, value, what)->type_name("N")->check(common::count(lowest, highest));
    };
    const auto share = [&](const char* name, double& value, const char* what) {
        app.add_option(name, value, what)
            ->type_name("R")
            ->check(common::number_in(0.0, 0.99, "a number in [0, 0.99]"));
    };
    app.add_option("--output", options.output, "Folder of results, which is made if need be")
        ->type_name("DIR")
        ->required();
    app.add_option(
           "--data", options.data,
           "Folder of SET.train.tsv, SET.test.tsv and, where there is one, SET.dev.tsv, each "
           "line a label, a tab and a text")
        ->type_name("DIR");
    app.add_option("--sets", options.sets, "Data sets of the folder")
        ->type_name("SET")
        ->delimiter(',');
    app.add_option("--variants", options.variants, "Ways of skipping layers")
        ->type_name("NAME")
        ->delimiter(',')
        ->check([](const std::string& name) {
            if (variant_of(name)) return std::string{};
            std::string known;
            for (const std::string& each : variant_names())
                known += (known.empty() ? "" : ", ") + each;
            return "must be among " + known + ", got " + name;
        });
    app.add_option("--seeds", options.seeds, "A training for each")
        ->type_name("S")
        ->delimiter(',')
        ->check(common::seed());
    app.add_option(
           "--epochs", options.epochs_of_sets,
           "Passes over the training texts: one number for all sets, or one for each. Without: "
           "trec 12, sst2 6, others 10")
        ->type_name("N")
        ->delimiter(',')
        ->check(common::count(1, 100'000));
    // Every mask of the two layers of each block is looked at.
    whole("--blocks", options.blocks, 1, 8,
          "Blocks of the network, each of attention and feed-forward, two skippable layers");
    whole("--width", options.width, 1, 10'000, "Features of a token");
    whole("--heads", options.heads, 1, 1'000, "Heads of attention, which divide the width");
    whole("--feed-forward", options.feed_forward, 1, 100'000,
          "Features inside the feed-forward layers");
    share("--dropout", options.dropout, "Share of features that dropout layers drop");
    share("--token-dropout", options.token_dropout,
          "Share of tokens that a training step sees as unknown");
    whole("--minimum-count", options.minimum_count, 1, 1'000'000,
          "Words that the training texts have less often are unknown");
    common::add_steps(app, options);
    app.get_option("--batch-size")->description("Texts in a training step");
    app.add_option("--weight-decay", options.weight_decay, "Of all parameters")
        ->type_name("R")
        ->check(common::number_in(0.0, 1e6, "a number in [0, 1000000]"));
    whole("--masks", options.masks, 1, 1'000'000, "Of Monte Carlo");
    common::add_threads(app, options);
    app.add_flag("--report", options.report, "Train nothing: write tables and figures alone");
    if (!common::parse(app, argc, argv)) return std::nullopt;
    if (!options.report && options.data.empty())
        throw common::UsageError("--data or --report must be given (--help lists the options)");
    const std::size_t epochs = options.epochs_of_sets.size();
    if (epochs > 1 && epochs != options.sets.size())
        throw common::UsageError("--epochs: expected one number, or one for each of " +
                                 std::to_string(options.sets.size()) + " data sets, got " +
                                 std::to_string(epochs));
    return options;
}

}  // namespace text_study
