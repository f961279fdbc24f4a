// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/io/tab_separated.hpp>
#include <stochastic_depth/text/split.hpp>
#include <stochastic_depth/text/tokenizer.hpp>
#include <stochastic_depth/text/tokens.hpp>
#include <stochastic_depth/training/dataset.hpp>

#include "naive_bayes.hpp"
#include "text_settings.hpp"
#include "usage_error.hpp"

namespace common {

namespace sd = stochastic_depth;

/// Texts that a program trains and tests on, as they were read. All have the training texts' classes.
struct RawTexts {
    std::string name;
    sd::LabelledTexts train;
    std::optional<sd::LabelledTexts> dev;
    sd::LabelledTexts test;
};

/// The same as a network takes them.
struct Texts {
    std::string name;
    sd::Tokenizer tokenizer;
    std::vector<std::string> classes;
    sd::Dataset<float> train;
    std::optional<sd::Dataset<float>> dev;
    sd::Dataset<float> test;
    sd::Index truncated = 0;  ///< training texts of more tokens than positions
};

/// How a training's tokens are made of texts: words are set apart at white space alone, as the data
/// sets have them.
[[nodiscard]] inline sd::TokenizerOptions tokenizer_options(const TextSettings& settings) {
    return {
        .unit = settings.tokens,
        .punctuation = sd::Punctuation::within_words,
        .letters = settings.lower_case ? sd::LetterCase::ascii_lower : sd::LetterCase::as_written};
}

/// The vocabulary is that of the training texts. A text without a token is one unknown token.
/// \throws UsageError  if a text is no UTF-8, unless tokens are bytes.
[[nodiscard]] inline Texts encode(const RawTexts& raw, const TextSettings& settings) {
    try {
        const auto tokenizer = sd::Tokenizer::of(raw.train.texts, tokenizer_options(settings),
                                                 {.minimum_count = settings.minimum_count});
        const auto classes = static_cast<sd::Index>(raw.train.classes.size());
        const auto encoded = [&](const sd::LabelledTexts& part, sd::Index& truncated) {
            sd::Tokens<float> tokens = sd::tokens_of<float>(
                tokenizer, part.texts,
                {.positions = settings.positions, .empty = sd::Vocabulary::unknown});
            truncated = tokens.truncated;
            return sd::Dataset<float>{std::move(tokens.ids), part.labels, classes};
        };
        sd::Index of_train = 0, others = 0;
        sd::Dataset<float> train = encoded(raw.train, of_train);
        std::optional<sd::Dataset<float>> dev;
        if (raw.dev) dev = encoded(*raw.dev, others);
        return {raw.name,         tokenizer, raw.train.classes,
                std::move(train), dev,       encoded(raw.test, others),
                of_train};
    } catch (const std::invalid_argument& error) {
        throw UsageError(error.what());
    }
}

/// Tokens as texts, every one of them, known or not.
[[nodiscard]] inline std::vector<std::vector<std::string>> split(
    const std::vector<std::string>& texts, const sd::TokenizerOptions& options) {
    std::vector<std::vector<std::string>> tokens;
    for (const std::string& text : texts) {
        const sd::Tokenizer alone = sd::Tokenizer::of(std::vector{text}, options);
        std::vector<std::string>& of_text = tokens.emplace_back();
        for (const sd::Index id : alone.encode(text))
            of_text.emplace_back(alone.vocabulary().text_of(id));
    }
    return tokens;
}

/// Naive Bayes of the same training and test texts, cut in the same way.
[[nodiscard]] inline Row naive_bayes(const RawTexts& raw, const TextSettings& settings,
                                     std::size_t longest) {
    const sd::TokenizerOptions options = tokenizer_options(settings);
    const NaiveBayes bayes(split(raw.train.texts, options), raw.train.labels,
                           static_cast<sd::Index>(raw.train.classes.size()), longest);
    return bayes.evaluate("naive Bayes, 1- to " + std::to_string(longest) + "-grams",
                          split(raw.test.texts, options), raw.test.labels);
}

}  // namespace common
