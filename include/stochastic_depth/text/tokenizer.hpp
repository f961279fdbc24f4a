// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/text/split.hpp>
#include <stochastic_depth/text/utf8.hpp>
#include <stochastic_depth/text/vocabulary.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// Makes ids of a text: `encode(text)` has an id in [0, vocabulary_size()) for each token.
///
/// Beyond the syntax: encode is a function of the text alone, and a text without tokens has no ids.
///
/// Models: Tokenizer; a user's type that has the two members. Taken by tokens_of. The smallest:
///
///     struct Letters {
///         Index vocabulary_size() const { return 26; }
///         std::vector<Index> encode(std::string_view text) const {
///             std::vector<Index> ids;
///             for (const char c : text) ids.push_back(c - 'a');
///             return ids;
///         }
///     };
template <class Encoder>
concept TextEncoder = requires(const Encoder& encoder, std::string_view text) {
    { encoder.vocabulary_size() } -> std::convertible_to<Index>;
    { encoder.encode(text) } -> std::convertible_to<std::vector<Index>>;
};

/// A range of what reads as text.
template <class Texts>
concept TextRange = std::ranges::input_range<Texts> &&
    std::convertible_to<std::ranges::range_reference_t<Texts>, std::string_view>;

/// How texts become tokens.
struct TokenizerOptions {
    TokenUnit unit = TokenUnit::word;
    /// Of words.
    Punctuation punctuation = Punctuation::apart;
    LetterCase letters = LetterCase::as_written;

    friend bool operator==(const TokenizerOptions&, const TokenizerOptions&) = default;
};

/// Texts to ids and back: of bytes, of UTF-8 characters or of words, with a vocabulary.
///
///     const auto words = Tokenizer::of(texts, {.unit = TokenUnit::word}, {.minimum_count = 2});
///     words.encode("How far is it?");  // ids
///
/// Ids are the vocabulary's: 0 is an unknown token, reserved ids follow, then the tokens. A value,
/// which never changes; io/tokenizer_file.hpp saves it beside a network.
class Tokenizer {
public:
    /// \throws std::invalid_argument  if a token of the vocabulary is none of this unit.
    Tokenizer(TokenizerOptions options, Vocabulary vocabulary)
        : options_(options), vocabulary_(std::move(vocabulary)) {
        for (const std::string& token : vocabulary_.tokens()) {
            Index parts = 0;
            for_each_token(token, [&](std::string_view part) { parts += part == token ? 1 : 2; });
            if (parts != 1)
                detail::refuse("Tokenizer: vocabulary must hold single tokens, got \"", token,
                               "\"");
        }
    }

    /// With all 256 bytes for a vocabulary: byte b has the id 1 + reserved.size() + b, and none is
    /// unknown.
    [[nodiscard]] static Tokenizer bytes(std::vector<std::string> reserved = {}) {
        std::vector<std::string> tokens;
        for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
        return Tokenizer({.unit = TokenUnit::byte},
                         Vocabulary(std::move(tokens), std::move(reserved)));
    }

    /// With the vocabulary of some texts.
    ///
    /// \param texts  Any range of texts; held-out ones should not be among them.
    /// \throws std::invalid_argument  naming text and byte, if a text is no UTF-8 and tokens are no
    ///                                bytes; or as TokenCounts::vocabulary does.
    template <TextRange Texts>
    [[nodiscard]] static Tokenizer of(Texts&& texts, const TokenizerOptions& options = {},
                                      const VocabularyOptions& vocabulary = {}) {
        const Tokenizer splitter(options, Vocabulary{});
        TokenCounts counts;
        Index number = 0;
        for (auto&& text : texts) {
            splitter.for_each_token(
                std::string_view(text), [&](std::string_view token) { counts.add(token); },
                detail::message("Tokenizer: text ", number));
            ++number;
        }
        return Tokenizer(options, counts.vocabulary(vocabulary));
    }

    [[nodiscard]] const TokenizerOptions& options() const { return options_; }
    [[nodiscard]] const Vocabulary& vocabulary() const { return vocabulary_; }
    /// Ids: what an Embedding needs.
    [[nodiscard]] Index vocabulary_size() const { return vocabulary_.size(); }

    /// An id for each token of a text.
    /// \throws std::invalid_argument  naming the byte and its place, if the text is no UTF-8 and
    ///                                tokens are not bytes.
    [[nodiscard]] std::vector<Index> encode(std::string_view text) const {
        std::vector<Index> ids;
        for_each_token(text,
                       [&](std::string_view token) { ids.push_back(vocabulary_.id_of(token)); });
        return ids;
    }

    /// The tokens as one text: words with a blank between them, bytes and characters one after
    /// another. An unknown token is U+FFFD, a reserved one its name. Of bytes and characters, none
    /// of them unknown, decode(encode(text)) is the text (in lower case, where that is asked for).
    ///
    /// \throws std::invalid_argument  if an id is outside [0, vocabulary_size()).
    [[nodiscard]] std::string decode(std::span<const Index> ids) const {
        std::string text;
        for (const Index id : ids) {
            if (options_.unit == TokenUnit::word && !text.empty()) text += ' ';
            if (id < 0 || id >= vocabulary_size())
                detail::refuse("Tokenizer: ids must lie in [0, ", vocabulary_size(), "), got ", id);
            text += vocabulary_.text_of(id);
        }
        return text;
    }

    friend bool operator==(const Tokenizer&, const Tokenizer&) = default;

private:
    template <class Visit>
    void for_each_token(std::string_view text, const Visit& visit,
                        std::string_view who = "Tokenizer") const {
        if (options_.letters == LetterCase::as_written)
            return detail::for_each_token(who, text, options_.unit, options_.punctuation, visit);
        const std::string lower = detail::in_ascii_lower(text);
        detail::for_each_token(who, lower, options_.unit, options_.punctuation, visit);
    }

    TokenizerOptions options_;
    Vocabulary vocabulary_;
};

}  // namespace stochastic_depth
