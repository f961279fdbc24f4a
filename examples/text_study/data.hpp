// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/io/tab_separated.hpp>

#include "../common/naive_bayes.hpp"
#include "../common/texts.hpp"

namespace text_study {

namespace sd = stochastic_depth;

/// A data set: texts to train on, to choose sub-networks on, and to judge on.
struct StudyTexts {
    common::Texts texts;   ///< its `dev` is there
    common::Row baseline;  ///< naive Bayes, of the same training texts
};

/// Takes every tenth text out of those to train on.
[[nodiscard]] inline sd::LabelledTexts held_out(sd::LabelledTexts& train) {
    const auto count = static_cast<sd::Index>(train.texts.size());
    sd::LabelledTexts kept{.texts = {}, .labels = {}, .classes = train.classes};
    sd::LabelledTexts out = kept;
    out.labels.resize(count / 10);
    kept.labels.resize(count - count / 10);
    for (sd::Index i = 0; i < count; ++i) {
        sd::LabelledTexts& part = i % 10 == 9 ? out : kept;
        part.labels(static_cast<sd::Index>(part.texts.size())) = train.labels(i);
        part.texts.push_back(std::move(train.texts[static_cast<std::size_t>(i)]));
    }
    train = std::move(kept);
    return out;
}

/// SET.train.tsv, SET.dev.tsv and SET.test.tsv of a folder; without the second, every tenth text to
/// train on is held out.
/// \throws UsageError  if a file cannot be read, or is not what it should be.
[[nodiscard]] inline StudyTexts read_texts(const std::string& folder, const std::string& name,
                                           const common::TextSettings& settings) {
    try {
        const std::string path = folder + "/" + name;
        common::RawTexts raw;
        raw.name = name;
        raw.train = sd::read_tab_separated(path + ".train.tsv");
        if (raw.train.classes.size() < 2 || raw.train.texts.size() < 10)
            throw common::UsageError(path + ".train.tsv: expected at least 2 labels and 10 texts");
        const sd::TabSeparatedOptions as_in_training{.classes = raw.train.classes};
        if (std::filesystem::exists(path + ".dev.tsv"))
            raw.dev = sd::read_tab_separated(path + ".dev.tsv", as_in_training);
        else
            raw.dev = held_out(raw.train);
        raw.test = sd::read_tab_separated(path + ".test.tsv", as_in_training);
        return {common::encode(raw, settings), common::naive_bayes(raw, settings, 2)};
    } catch (const std::runtime_error& error) {
        throw common::UsageError(error.what());
    }
}

}  // namespace text_study
