// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <algorithm>
#include <filesystem>
#include <thread>

#include "../common/text_options.hpp"
#include "../common/training_outputs.hpp"

namespace language_id {
namespace {

/// "Name=file,Name=file".
std::vector<Language> parse_languages(const std::string& text) {
    std::vector<Language> languages;
    for (std::size_t at = 0; at <= text.size();) {
        const std::size_t end = std::min(text.find(',', at), text.size());
        const std::string one = text.substr(at, end - at);
        const std::size_t equals = one.find('=');
        if (equals == 0 || equals == std::string::npos || equals + 1 == one.size())
            throw common::UsageError("--languages: must be NAME=FILE,NAME=FILE,..., got " + text);
        languages.push_back({one.substr(0, equals), one.substr(equals + 1)});
        at = end + 1;
    }
    return languages;
}

}  // namespace

std::optional<Options> parse_options(int argc, const char* const* argv) {
    Options options;
    options.positions = 24;
    options.blocks = 3;
    options.rotary = true;
    options.minimum_count = 2;
    options.final_survival = 0.9;
    options.dropout = 0.2;
    options.batch_size = 64;
    options.epochs = 5;
    options.learning_rate = 0.002;
    options.threads = std::max(1u, std::thread::hardware_concurrency());
    std::string languages;

    CLI::App app{
        "Trains a transformer on the letters of words to tell their languages, with constant or "
        "stochastic depth, compares the rules for using it, and answers what is typed. Debian has "
        "word lists in wamerican, wfrench, wngerman, wspanish, witalian, wdutch, wportuguese, "
        "wpolish, wdanish, wswedish, wcatalan."};
    app.name("language_id");
    app.option_defaults()->always_capture_default();

    auto* const load = app.add_option("--load", options.load,
                                      "Train nothing: answer words with the model of this file")
                           ->type_name("FILE");
    app.add_option("--data", options.data, "Folder of the word lists, a word in each line")
        ->type_name("DIR");
    app.add_option(
           "--languages", languages,
           "Names and lists, NAME=FILE,NAME=FILE,...; without, all of Debian's that are there")
        ->type_name("LISTS");
    app.add_option("--train", options.train, "Words of each language to train on")
        ->type_name("N")
        ->check(common::count(1, 10'000'000));
    app.add_option("--test", options.test, "Held-out words of each language to test on")
        ->type_name("N")
        ->check(common::count(1, 1'000'000));
    app.add_option("--neighbours", options.neighbours,
                   "Letters on either side that a letter is read with, in one token")
        ->type_name("N")
        ->check(common::count(0, 3));
    common::add_text_settings(app, options);
    common::add_threads(app, options);
    common::add_shards(app, options);
    common::add_exact_texts(app, options);
    common::add_training_outputs(app, options);
    app.add_option("--save", options.save,
                   "Write the trained model to this file, and beside it FILE.tokens and FILE.json")
        ->type_name("FILE")
        ->excludes(load);
    app.add_flag("--ask", options.ask, "Answer words from the standard input after the training")
        ->excludes(load);

    if (!common::parse(app, argc, argv)) return std::nullopt;
    if (!languages.empty()) options.languages = parse_languages(languages);
    if (languages.empty())
        for (const Language& language : debian_languages())
            if (std::filesystem::exists(options.data + "/" + language.file))
                options.languages.push_back(language);
    if (options.load.empty() && options.languages.size() < 2)
        throw common::UsageError("--data: at least 2 word lists are needed, " + options.data +
                                 " has " + std::to_string(options.languages.size()) +
                                 " (Debian: wamerican, wfrench, wngerman, ...)");
    return options;
}

}  // namespace language_id
