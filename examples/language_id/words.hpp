// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <stochastic_depth/io/plain_text.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/text/utf8.hpp>

#include "../common/texts.hpp"
#include "../common/usage_error.hpp"

/// Word lists, as Debian has them in /usr/share/dict, as data to train and test on.
namespace language_id {

namespace sd = stochastic_depth;

/// A word list and what the language is called.
struct Language {
    std::string name;
    std::string file;
};

/// Those of Debian's packages wamerican, wfrench, ...
[[nodiscard]] inline std::vector<Language> debian_languages() {
    return {{"English", "american-english"}, {"French", "french"},   {"German", "ngerman"},
            {"Spanish", "spanish"},          {"Italian", "italian"}, {"Dutch", "dutch"},
            {"Portuguese", "portuguese"},    {"Polish", "polish"},   {"Danish", "danish"},
            {"Swedish", "swedish"},          {"Catalan", "catalan"}, {"Finnish", "finnish"}};
}

/// A code point below U+0250 in lower case; 0 for what is no letter of the Latin alphabet there.
[[nodiscard]] constexpr std::uint32_t folded_letter(std::uint32_t c) {
    if (c >= 'A' && c <= 'Z') return c + 32;
    if (c >= 'a' && c <= 'z') return c;
    if (c < 0xC0 || c >= 0x250 || c == 0xD7 || c == 0xF7) return 0;
    if (c <= 0xDE) return c + 32;
    if (c < 0x100) return c;
    if (c == 0x130) return 'i';
    if (c == 0x178) return 0xFF;
    // Pairs of an upper and a lower letter, the upper one first: even numbers, and odd ones.
    const bool even = c < 0x138 || (c >= 0x14A && c < 0x178);
    const bool odd = (c >= 0x139 && c < 0x149) || (c >= 0x179 && c < 0x17F);
    return (even && c % 2 == 0) || (odd && c % 2 == 1) ? c + 1 : c;
}

/// A word in lower case; nothing for what has other characters than letters.
[[nodiscard]] inline std::optional<std::string> folded(std::string_view word) {
    std::string result;
    for (std::size_t at = 0, size = 0; at < word.size(); at += size) {
        size = sd::detail::character_size(word, at);
        if (size == 0 || size > 2) return std::nullopt;
        const auto byte = [&](std::size_t i) {
            return static_cast<std::uint32_t>(static_cast<unsigned char>(word[at + i]));
        };
        const std::uint32_t c =
            folded_letter(size == 1 ? byte(0) : (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F));
        if (c == 0) return std::nullopt;
        if (c < 0x80) {
            result += static_cast<char>(c);
        } else {
            result += static_cast<char>(0xC0 | c >> 6);
            result += static_cast<char>(0x80 | (c & 0x3F));
        }
    }
    return result;
}

/// UTF-8 of a text that is that already, or else is taken for ISO 8859-1, as Debian's Swedish list.
[[nodiscard]] inline std::string as_utf8(const std::string& text) {
    for (std::size_t at = 0, size = 0; at < text.size(); at += size) {
        size = sd::detail::character_size(text, at);
        if (size > 0) continue;
        std::string result;
        for (const char c : text) {
            const auto byte = static_cast<unsigned char>(c);
            if (byte < 0x80) {
                result += c;
            } else {
                result += static_cast<char>(0xC0 | byte >> 6);
                result += static_cast<char>(0x80 | (byte & 0x3F));
            }
        }
        return result;
    }
    return text;
}

/// A word as a network reads it: for each letter a token, it with so many neighbours on either side.
/// Behind the ends stands "_". Of "cat" with one: "_ca cat at_".
[[nodiscard]] inline std::string with_neighbours(const std::string& word, std::size_t neighbours) {
    std::vector<std::string> letters(neighbours, "_");
    sd::detail::for_each_character("language_id", word,
                                   [&](std::string_view letter) { letters.emplace_back(letter); });
    letters.insert(letters.end(), neighbours, "_");
    std::string tokens;
    for (std::size_t first = 0; first + 2 * neighbours < letters.size(); ++first) {
        if (!tokens.empty()) tokens += ' ';
        for (std::size_t i = first; i <= first + 2 * neighbours; ++i) tokens += letters[i];
    }
    return tokens;
}

/// The words of a line in lower case, without what is no letter, as a network reads them.
[[nodiscard]] inline std::string as_words(const std::string& line, std::size_t neighbours) {
    std::string words, word;
    const auto end_word = [&] {
        if (word.empty()) return;
        if (!words.empty()) words += ' ';
        words += with_neighbours(word, neighbours);
        word.clear();
    };
    const std::string text = as_utf8(line);
    for (std::size_t at = 0, size = 0; at < text.size(); at += size) {
        size = sd::detail::character_size(text, at);
        if (const auto letter = folded(std::string_view(text).substr(at, size)))
            word += *letter;
        else
            end_word();
    }
    end_word();
    return words;
}

/// A number of 64 bits for a word, like random ones.
[[nodiscard]] inline std::uint64_t number_of(std::string_view word) {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (const char c : word) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    const auto mixed = sd::philox4x32_10(
        {static_cast<std::uint32_t>(hash), static_cast<std::uint32_t>(hash >> 32), 0, 0},
        {2, 2026});
    return static_cast<std::uint64_t>(mixed[0]) << 32 | mixed[1];
}

/// One word in ten is held out. It depends on the word alone, in lower case: a word that is in
/// several lists is on one side.
[[nodiscard]] inline bool is_held_out(std::string_view word) { return number_of(word) % 10 == 0; }

/// The different words of a list, in lower case, in an order like a random one, in which no word's
/// place depends on the others.
/// \throws UsageError  if the file cannot be read.
[[nodiscard]] inline std::vector<std::string> read_words(const std::string& path) {
    std::vector<std::pair<std::uint64_t, std::string>> words;
    try {
        for (const std::string& line : sd::read_lines(path))
            if (auto word = folded(as_utf8(line)); word && !word->empty()) {
                const std::uint64_t number = number_of(*word);
                words.emplace_back(number, std::move(*word));
            }
    } catch (const std::runtime_error& error) {
        throw common::UsageError(error.what());
    }
    // The last digit tells which side a word is on: the others make the order.
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    std::vector<std::string> result;
    for (auto& [number, word] : words) result.push_back(std::move(word));
    return result;
}

/// Words to train and to test on, of each language as many.
struct Words {
    common::RawTexts texts;
    /// Of the test words those that stand in other lists, too, whole as these are.
    double shared = 0;
    /// Least error on the test words that any rule can have: of a word in k lists, which stands
    /// there with each of their names, 1 of k answers is right.
    double least_error = 0;
};

/// \param folder  Of the word lists. \param train  Words of each language, and test.
/// \throws UsageError  if a list is not there, or has fewer words.
[[nodiscard]] inline Words read_languages(const std::vector<Language>& languages,
                                          const std::string& folder, sd::Index train,
                                          sd::Index test) {
    Words result;
    result.texts.name = "words of " + std::to_string(languages.size()) + " languages";
    std::vector<int> train_labels, test_labels;
    std::vector<std::vector<std::string>> all;
    for (const Language& language : languages) {
        const auto label = static_cast<int>(all.size());
        result.texts.train.classes.push_back(language.name);
        const std::string path = folder + "/" + language.file;
        all.push_back(read_words(path));
        const auto take = [&](bool held_out, sd::Index count, sd::LabelledTexts& to,
                              std::vector<int>& labels) {
            sd::Index taken = 0;
            for (const std::string& word : all.back()) {
                if (taken == count) break;
                if (is_held_out(word) != held_out) continue;
                to.texts.push_back(word);
                labels.push_back(label);
                ++taken;
            }
            if (taken < count)
                throw common::UsageError(path + ": " + std::to_string(count) + " words to " +
                                         (held_out ? "test" : "train") +
                                         " on are asked for, and it has " + std::to_string(taken));
        };
        take(false, train, result.texts.train, train_labels);
        take(true, test, result.texts.test, test_labels);
    }
    result.texts.test.classes = result.texts.train.classes;
    const auto column = [](const std::vector<int>& labels) -> Eigen::VectorXi {
        return Eigen::Map<const Eigen::VectorXi>(labels.data(),
                                                 static_cast<sd::Index>(labels.size()));
    };
    result.texts.train.labels = column(train_labels);
    result.texts.test.labels = column(test_labels);

    std::unordered_map<std::string, int> times;  // in the test words
    for (const std::string& word : result.texts.test.texts) ++times[word];
    std::unordered_map<std::string, int> in_lists;
    for (const auto& list : all)
        for (const std::string& word : list)
            if (times.contains(word)) ++in_lists[word];
    const auto count = static_cast<double>(result.texts.test.texts.size());
    for (const auto& [word, number] : times) {
        result.least_error += (number - 1) / count;
        if (in_lists.at(word) > 1) result.shared += number / count;
    }
    return result;
}

/// The same words with each letter's neighbours, as a network reads them.
[[nodiscard]] inline common::RawTexts with_neighbours(common::RawTexts words,
                                                      std::size_t neighbours) {
    for (sd::LabelledTexts* const part : {&words.train, &words.test})
        for (std::string& text : part->texts) text = with_neighbours(text, neighbours);
    return words;
}

/// Naive Bayes on n-grams of letters, n = 1, ..., 5, the ends of a word being letters too.
[[nodiscard]] inline common::Row naive_bayes(common::RawTexts words) {
    for (sd::LabelledTexts* const part : {&words.train, &words.test})
        for (std::string& text : part->texts) text = "_" + text + "_";
    common::TextSettings letters;
    letters.tokens = sd::TokenUnit::character;
    return common::naive_bayes(words, letters, 5);
}

}  // namespace language_id
