// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "output_file.hpp"
#include "progress.hpp"
#include "rules_report.hpp"
#include "text.hpp"
#include "text_model.hpp"
#include "text_training.hpp"
#include "training_outputs.hpp"

/// What programs on texts do alike: train, compare the rules with naive Bayes, print, write, plot.
namespace common {

inline void print_epoch(std::ostream& out, std::size_t number, const TextEpoch& epoch) {
    out << std::setw(5) << number << std::setw(9) << fixed(epoch.loss, 4) << std::setw(12)
        << fixed(epoch.share_of_layers, 3) << std::setw(9) << fixed(epoch.seconds, 1)
        << std::setw(13) << fixed(100 * epoch.test_error, 2) << " %" << std::endl;
}

inline void print_data(std::ostream& out, const Texts& texts) {
    out << texts.train.size() << " texts to train on, ";
    if (texts.dev) out << texts.dev->size() << " for development, ";
    out << texts.test.size() << " to test on; " << texts.classes.size() << " classes; "
        << texts.tokenizer.vocabulary_size() << " token ids";
    if (texts.truncated > 0)
        out << "; of " << texts.truncated << " training texts the end is cut off";
    out << ".\n\n";
}

/// \param exact_texts   Of the test texts, so many have the exact expectation beside the other rules.
/// \param longest_gram  Of naive Bayes.
inline TextModel train_and_report(const RawTexts& raw, const TextSettings& settings,
                                  const TrainingOutputs& outputs, unsigned threads,
                                  sd::Index exact_texts, std::size_t longest_gram) {
    const Texts texts = encode(raw, settings);
    print_data(std::cout, texts);
    std::vector<Row> all, exact;
    Progress progress;
    std::cout << "epoch     loss  layers run  seconds   "
              << (texts.dev ? "dev error" : "test error") << " (weight scaling)\n";
    TextTraining training = train_texts(
        texts, settings,
        {.threads = threads, .checkpoint = outputs.checkpoint, .resume = outputs.resume}, progress,
        [&](const TextTraining& so_far) {
            progress.clear();
            print_epoch(std::cout, so_far.history.size(), so_far.history.back());
        });
    EvaluationOptions rules{.masks = {10, 100},
                            .samples = Samples::texts,
                            .samples_at_once = 64,
                            .seed = settings.seed,
                            .threads = threads};
    const sd::Index count = std::min(exact_texts, texts.test.size());
    const auto with_exact = [&] {
        EvaluationOptions options = rules;
        options.exact_evaluations = std::uint64_t{1} << 13;  // 12 layers
        return options;
    };
    all = evaluate(training.network, texts.test, count == texts.test.size() ? with_exact() : rules,
                   progress);
    all.push_back(naive_bayes(raw, settings, longest_gram));
    if (count > 0 && count < texts.test.size())
        exact = evaluate(training.network, texts.test.head(count), with_exact(), progress);
    progress.clear();
    std::cout << "\nOn all " << texts.test.size() << " test texts:\n\n";
    print(std::cout, all);
    if (!exact.empty()) {
        std::cout << "\nOn the first " << count << ":\n\n";
        print(std::cout, exact);
    }
    print_legend(std::cout, threads);
    std::cout << ".\n";

    if (!outputs.json.empty()) {
        const nlohmann::ordered_json figures{{"settings", json_of(settings, raw.name)},
                                             {"threads", threads},
                                             {"epochs", nlohmann::json(training.history)},
                                             {"rules", json_of(all)},
                                             {"exact_texts", count},
                                             {"rules_on_exact_texts", json_of(exact)}};
        write_file("--json", outputs.json, figures.dump(2) + "\n");
    }
    if (!outputs.plot_dir.empty())
        std::cout << '\n' << plot_errors(outputs.plot_dir, raw.name, training.history) << '\n';
    return {texts.tokenizer, texts.classes, std::move(training.network), settings.positions};
}

}  // namespace common
