// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/text/utf8.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

namespace detail {

struct TextHash {
    using is_transparent = void;
    [[nodiscard]] std::size_t operator()(std::string_view text) const {
        return std::hash<std::string_view>{}(text);
    }
};
/// A number for each of some texts.
using TextNumbers = std::unordered_map<std::string, Index, TextHash, std::equal_to<>>;

}  // namespace detail

/// Tokens and their ids: 0 is every token that is not in the vocabulary, 1 to r are reserved, the
/// tokens follow.
///
/// A reserved id has a name and is no text's: a program puts it in where it means something, as the
/// beginning of a sequence. A value, which never changes.
class Vocabulary {
public:
    /// The id of a token that is not in the vocabulary.
    static constexpr Index unknown = 0;

    /// Of no tokens: all are unknown.
    Vocabulary() = default;

    /// \param tokens    In the order of their ids, each once, none empty.
    /// \param reserved  Names in the order of their ids, each once, none empty; a token may have
    ///                  the same letters.
    /// \throws std::invalid_argument  if one of these does not hold.
    explicit Vocabulary(std::vector<std::string> tokens, std::vector<std::string> reserved = {})
        : reserved_(std::move(reserved)), tokens_(std::move(tokens)) {
        (void)numbered("reserved", reserved_, 0);
        ids_ = numbered("tokens", tokens_, 1 + reserved_count());
    }

    /// Ids: of unknown, reserved, and tokens.
    [[nodiscard]] Index size() const {
        return 1 + reserved_count() + static_cast<Index>(tokens_.size());
    }
    [[nodiscard]] Index reserved_count() const { return static_cast<Index>(reserved_.size()); }
    [[nodiscard]] const std::vector<std::string>& reserved() const { return reserved_; }
    [[nodiscard]] const std::vector<std::string>& tokens() const { return tokens_; }

    /// The token's id; `unknown` if it is not in the vocabulary.
    [[nodiscard]] Index id_of(std::string_view token) const {
        const auto found = ids_.find(token);
        return found == ids_.end() ? unknown : found->second;
    }

    /// \throws std::invalid_argument  if there is no such name.
    [[nodiscard]] Index reserved_id(std::string_view name) const {
        const auto found = std::find(reserved_.begin(), reserved_.end(), name);
        if (found == reserved_.end())
            detail::refuse("Vocabulary: name must be reserved, got ", name);
        return 1 + static_cast<Index>(found - reserved_.begin());
    }

    /// The token, or the name of a reserved id; of `unknown`, U+FFFD.
    /// \throws std::invalid_argument  if id is outside [0, size()).
    [[nodiscard]] std::string_view text_of(Index id) const {
        if (id < 0 || id >= size())
            detail::refuse("Vocabulary: id must lie in [0, ", size(), "), got ", id);
        if (id == unknown) return detail::replacement_character;
        const auto place = static_cast<std::size_t>(id - 1);
        return place < reserved_.size() ? reserved_[place] : tokens_[place - reserved_.size()];
    }

    friend bool operator==(const Vocabulary& a, const Vocabulary& b) {
        return a.reserved_ == b.reserved_ && a.tokens_ == b.tokens_;
    }

private:
    [[nodiscard]] static detail::TextNumbers numbered(std::string_view what,
                                                      const std::vector<std::string>& texts,
                                                      Index first) {
        detail::TextNumbers numbers;
        for (const std::string& text : texts) {
            if (text.empty())
                detail::refuse("Vocabulary: ", what, " must not be empty, got an empty one at ",
                               numbers.size());
            if (!numbers.emplace(text, first + static_cast<Index>(numbers.size())).second)
                detail::refuse("Vocabulary: ", what, " must differ, got ", text, " twice");
        }
        return numbers;
    }

    std::vector<std::string> reserved_, tokens_;
    detail::TextNumbers ids_;
};

struct VocabularyOptions {
    /// Tokens that come less often are unknown; at least 1.
    Index minimum_count = 1;
    /// Of all ids, `unknown` and reserved ones among them; 0: no limit.
    Index maximum_size = 0;
    /// Names of reserved ids.
    std::vector<std::string> reserved = {};
};

/// How often tokens came, from which a vocabulary is made: the most frequent ones, in that order;
/// of equally frequent ones the one first whose bytes come first. The order in which they were
/// added does not matter.
class TokenCounts {
public:
    void add(std::string_view token) {
        const auto found = counts_.find(token);
        if (found == counts_.end())
            counts_.emplace(token, 1);
        else
            ++found->second;
    }

    /// Different tokens.
    [[nodiscard]] Index size() const { return static_cast<Index>(counts_.size()); }

    /// \throws std::invalid_argument  if an option lies outside its range, or there is no room for
    ///                                reserved ids, or a token or a name is empty.
    [[nodiscard]] Vocabulary vocabulary(const VocabularyOptions& options = {}) const {
        if (options.minimum_count < 1)
            detail::refuse("Vocabulary: minimum_count must be at least 1, got ",
                           options.minimum_count);
        const Index fixed = 1 + static_cast<Index>(options.reserved.size());
        if (options.maximum_size != 0 && options.maximum_size < fixed)
            detail::refuse("Vocabulary: maximum_size must be 0 or at least ", fixed,
                           " for unknown and reserved ids, got ", options.maximum_size);
        std::vector<std::pair<std::string_view, Index>> kept;
        for (const auto& [token, count] : counts_)
            if (count >= options.minimum_count) kept.emplace_back(token, count);
        std::sort(kept.begin(), kept.end(), [](const auto& a, const auto& b) {
            return a.second != b.second ? a.second > b.second : a.first < b.first;
        });
        if (options.maximum_size != 0)
            kept.resize(
                std::min(kept.size(), static_cast<std::size_t>(options.maximum_size - fixed)));
        std::vector<std::string> tokens;
        tokens.reserve(kept.size());
        for (const auto& [token, count] : kept) tokens.emplace_back(token);
        return Vocabulary(std::move(tokens), options.reserved);
    }

private:
    detail::TextNumbers counts_;
};

}  // namespace stochastic_depth
