// SPDX-License-Identifier: MIT
//
// A transformer whose sublayers, attention and feed-forward, are skipped at random in training
// learns to say what a text is: of which kind a question, how a critic liked a film. The file's
// lines are a label, a tab and a text. With --final-survival 1 no layer is ever skipped: the same
// network at constant depth. At the end all rules for using the network stand side by side, and a
// baseline that knows n-grams and no order: multinomial naive Bayes. Then, with --ask, texts that are
// typed are answered, with what the masks disagree about.
//
// The defaults are for TREC (questions, 6 classes); SST-2 (sentences, 2 classes) overfits sooner:
//
//     text_classification --train trec.train.tsv --test trec.test.tsv
//     text_classification --train sst2.train.tsv --dev sst2.dev.tsv --test sst2.test.tsv --blocks 2
//         --width 64 --epochs 10 --dropout 0.4 --token-dropout 0.5 --weight-decay 1
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "../common/output_file.hpp"
#include "../common/program.hpp"
#include "../common/rules_report.hpp"
#include "../common/text_model.hpp"
#include "../common/text_report.hpp"
#include "../common/text_training.hpp"
#include "../common/training_outputs.hpp"
#include "options.hpp"

namespace text_classification {
namespace {

namespace sd = stochastic_depth;

/// \throws UsageError  if a file cannot be read, or is not what it should be.
common::RawTexts read_texts(const Options& options) {
    try {
        common::RawTexts texts;
        texts.name = options.train;
        texts.train = sd::read_tab_separated(options.train);
        if (texts.train.classes.size() < 2)
            throw common::UsageError(options.train + ": expected at least 2 labels, found 1");
        const sd::TabSeparatedOptions as_in_training{.classes = texts.train.classes};
        if (!options.dev.empty()) texts.dev = sd::read_tab_separated(options.dev, as_in_training);
        texts.test = sd::read_tab_separated(options.test, as_in_training);
        return texts;
    } catch (const std::runtime_error& error) {
        throw common::UsageError(error.what());
    }
}

void run(const Options& options) {
    if (!options.load.empty())
        return common::answer_lines(std::cin, std::cout, common::load_model(options.load),
                                    options.threads);
    common::check_outputs(options);
    if (!options.save.empty()) common::check_writable("--save", options.save);
    const common::RawTexts raw = read_texts(options);
    // Two n-grams of words, or five of smaller tokens.
    const std::size_t longest = options.tokens == sd::TokenUnit::word ? 2 : 5;
    const common::TextModel model =
        common::train_and_report(raw, options, options, options.threads, options.exact_texts,
                                 common::naive_bayes(raw, options, longest));
    if (!options.save.empty()) common::save_model(options.save, model, options);
    if (options.ask) common::answer_lines(std::cin, std::cout, model, options.threads);
}

}  // namespace
}  // namespace text_classification

int main(int argc, char** argv) {
    return common::run_program("text_classification", argc, argv,
                               text_classification::parse_options, text_classification::run);
}
