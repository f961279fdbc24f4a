// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <algorithm>
#include <thread>

#include "../common/text_options.hpp"
#include "../common/training_outputs.hpp"

namespace text_classification {

std::optional<Options> parse_options(int argc, const char* const* argv) {
    Options options;
    options.minimum_count = 2;
    options.blocks = 3;
    options.width = 128;
    options.dropout = 0.3;
    options.label_smoothing = 0.1;
    options.epochs = 8;
    options.threads = std::max(1u, std::thread::hardware_concurrency());

    CLI::App app{
        "Trains a transformer on labelled texts, each line of a file a label, a tab and a text, with "
        "constant or stochastic depth, and compares the rules for using it: full depth, weight "
        "scaling, Monte Carlo, and the exact expectation."};
    app.name("text_classification");
    app.option_defaults()->always_capture_default();

    auto* const load = app.add_option("--load", options.load,
                                      "Train nothing: answer texts with the model of this file")
                           ->type_name("FILE");
    auto* const train = app.add_option("--train", options.train, "Texts to train on")
                            ->type_name("FILE")
                            ->excludes(load);
    app.add_option("--dev", options.dev,
                   "Texts that the network is tested on after each epoch, in place of the test's")
        ->type_name("FILE")
        ->needs(train);
    app.add_option("--test", options.test, "Texts to test on")->type_name("FILE")->needs(train);
    common::add_tokens(app, options);
    common::add_text_settings(app, options);
    common::add_threads(app, options);
    common::add_shards(app, options);
    common::add_exact_texts(app, options);
    common::add_training_outputs(app, options);
    app.add_option("--save", options.save,
                   "Write the trained model to this file, and beside it FILE.tokens and FILE.json")
        ->type_name("FILE")
        ->needs(train);
    app.add_flag("--ask", options.ask, "Answer texts from the standard input after the training")
        ->needs(train);

    if (!common::parse(app, argc, argv)) return std::nullopt;
    if (options.load.empty() && (options.train.empty() || options.test.empty()))
        throw common::UsageError(
            "--train and --test, or --load, must be given (--help lists the options)");
    return options;
}

}  // namespace text_classification
