// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "../common/json_file.hpp"
#include "../common/output_file.hpp"
#include "../common/progress.hpp"
#include "../common/rules.hpp"
#include "../common/rules_report.hpp"
#include "../common/text_training.hpp"
#include "data.hpp"
#include "depth.hpp"
#include "options.hpp"

namespace text_study {

/// What a trained network comes to: by each rule, and made shorter.
[[nodiscard]] inline nlohmann::json measure(const common::TextNetwork& network,
                                            const StudyTexts& data, const Options& options,
                                            const common::TextSettings& settings,
                                            common::Progress& progress) {
    const common::Texts& texts = data.texts;
    nlohmann::json measured;
    measured["survival_probabilities"] = nlohmann::json::array();
    for (const double p : network.survival_probabilities())
        measured["survival_probabilities"].push_back(p);
    measured["texts"] = {{"train", texts.train.size()},
                         {"dev", texts.dev->size()},
                         {"test", texts.test.size()},
                         {"token_ids", texts.tokenizer.vocabulary_size()}};
    measured["masks"] = options.masks;
    measured["rules"] =
        common::json_of(common::evaluate(network, texts.test,
                                         {.masks = {options.masks},
                                          .exact_evaluations = std::uint64_t{1} << 17,  // 16 layers
                                          .samples = common::Samples::texts,
                                          .samples_at_once = 64,
                                          .seed = settings.seed,
                                          .threads = options.threads},
                                         progress));
    measured["baseline"] = common::json_of(data.baseline);
    progress.now("networks without some of their layers");
    measured["choices"] = nlohmann::json::array();
    for (const Choice& choice : choices(network, *texts.dev, texts.test, options.threads))
        measured["choices"].push_back(
            {{"name", choice.name},
             {"errors", choice.errors},
             {"negative_log_likelihoods", choice.negative_log_likelihoods}});
    measured["extracted_seconds"] = extracted_seconds(network, texts.test);
    return measured;
}

/// Trains and measures, and writes NAME.json; or does nothing, if that is there.
/// \throws UsageError  if what is there comes from other settings, or a file cannot be written.
inline void run_one(const StudyTexts& data, const Variant& variant, const Options& options,
                    const common::TextSettings& settings, common::Progress& progress) {
    const common::Texts& texts = data.texts;
    const std::string name =
        texts.name + "_" + variant.name + "_seed" + std::to_string(settings.seed);
    const std::string path = options.output + "/" + name;
    const nlohmann::json described = common::json_of(settings, texts.name);
    if (std::filesystem::exists(path + ".json")) {
        common::check_same_settings(path + ".json",
                                    common::read_json(path + ".json").at("settings"), described);
        return progress.done(name + ": is finished");
    }
    auto training = common::train_texts(
        texts, settings,
        {.threads = options.threads, .checkpoint = path + ".training", .name = name + ": "},
        progress);
    common::TextNetwork network = std::move(training.network);
    if (settings.skipping == common::SkippingTime::early) {
        // It ended at full depth, and so it is used.
        common::TextSettings at_the_end = settings;
        at_the_end.final_survival = 1;
        network = with_survival(network, at_the_end, texts.tokenizer.vocabulary_size(),
                                texts.train.classes());
    }
    const nlohmann::json result{{"settings", described},
                                {"variant", variant.name},
                                {"threads", options.threads},
                                {"history", training.history},
                                {"measured", measure(network, data, options, settings, progress)}};
    // Whole or not at all: a file that is there is a run that is finished.
    common::write_file("--output", path + ".partial", result.dump(2) + "\n");
    std::filesystem::rename(path + ".partial", path + ".json");
    std::filesystem::remove(path + ".training");
    progress.done(name + ": finished");
}

}  // namespace text_study
