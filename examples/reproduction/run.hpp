// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../common/image_training.hpp"
#include "../common/json_file.hpp"
#include "../common/output_file.hpp"
#include "../common/rules.hpp"
#include "../common/rules_report.hpp"
#include "lesions.hpp"
#include "options.hpp"

namespace reproduction {

/// "resnet32_p0.5_augmented_seed2".
[[nodiscard]] inline std::string name_of(const common::ImageSettings& settings) {
    std::string survival = common::fixed(settings.final_survival, 3);
    survival.erase(survival.find_last_not_of('0') + 1);
    if (survival.back() == '.') survival.pop_back();
    return "resnet" + std::to_string(settings.depth) + "_p" + survival +
           (settings.augment ? "_augmented" : "") + "_seed" + std::to_string(settings.seed);
}

/// What a trained network comes to: by each rule on some test images, and with blocks removed.
[[nodiscard]] inline nlohmann::json measure(const common::ImageNetwork& network,
                                            const sd::Dataset<float>& test, const Options& options,
                                            const common::ImageSettings& settings,
                                            common::Progress& progress) {
    common::EvaluationOptions rules{
        .masks = {}, .samples_at_once = 100, .seed = settings.seed, .threads = options.threads};
    const auto evaluated = [&](sd::Index images) {
        const sd::Index count = std::min(images, test.size());
        nlohmann::json result{{"images", count}, {"rules", nlohmann::json::array()}};
        if (count > 0)
            result["rules"] =
                common::json_of(common::evaluate(network, test.head(count), rules, progress));
        return result;
    };
    nlohmann::json measured;
    measured["test"] = evaluated(test.size());
    rules.masks = {100};
    measured["sampled"] = evaluated(options.sampled_images);
    rules.masks = {};
    rules.samples_at_once = 10;
    rules.exact_evaluations = std::uint64_t{1} << 17;  // 16 blocks
    measured["exact"] = evaluated(options.exact_images);
    progress.now("networks without some of their blocks");
    const sd::Dataset<float> some = test.head(std::min(options.lesion_images, test.size()));
    const Lesions removed = lesions(network, some, 3, settings.seed, options.threads);
    measured["lesions"] = {
        {"images", some.size()}, {"random", removed.random}, {"last", removed.last}};
    return measured;
}

/// Trains and measures, and writes NAME.json; or does nothing, if that is there.
/// \throws UsageError  if what is there comes from other settings, or a file cannot be written.
inline void run_one(const common::Images& images, const Options& options,
                    const common::ImageSettings& settings, common::Progress& progress) {
    const std::string name = name_of(settings);
    const std::string path = options.output + "/" + name;
    const nlohmann::json described = common::json_of(settings, images.name);
    if (std::filesystem::exists(path + ".json")) {
        common::check_same_settings(path + ".json", common::read_json(path + ".json").at("settings"),
                                    described);
        return progress.done(name + ": is finished");
    }
    const auto training = common::train_images(
        images, settings,
        {.threads = options.threads, .checkpoint = path + ".training", .name = name + ": "},
        progress);
    nlohmann::json result{{"settings", described},
                          {"threads", options.threads},
                          {"history", training.history},
                          {"survival_probabilities", nlohmann::json::array()}};
    for (const double p : training.network.survival_probabilities())
        result["survival_probabilities"].push_back(p);
    result["measured"] = measure(training.network, images.test, options, settings, progress);
    // Whole or not at all: a file that is there is a run that is finished.
    common::write_file("--output", path + ".partial", result.dump(2) + "\n");
    std::filesystem::rename(path + ".partial", path + ".json");
    progress.done(name + ": finished");
}

}  // namespace reproduction
