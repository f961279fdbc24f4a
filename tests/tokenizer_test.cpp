// SPDX-License-Identifier: MIT
#include <stochastic_depth/text/tokenizer.hpp>

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using Ids = std::vector<Index>;
using Words = std::vector<std::string>;
using test::refusal;

TEST_CASE("Tokenizer: words have the ids of their vocabulary, others that of unknown",
          "[tokenizer]") {
    const Words texts{"the cat", "the dog, the end"};
    const Tokenizer words = Tokenizer::of(texts);
    CHECK(words.vocabulary().tokens() == Words{"the", ",", "cat", "dog", "end"});
    CHECK(words.vocabulary_size() == 6);
    CHECK(words.encode("the mouse,the  cat") == Ids{1, 0, 2, 1, 3});
    CHECK(words.encode(" ").empty());
    CHECK(words.decode(Ids{1, 0, 2, 3}) == "the \xEF\xBF\xBD , cat");
    CHECK(words.decode(Ids{}).empty());
    // In any case, where lower case is asked for.
    const Tokenizer lower = Tokenizer::of(Words{"The the"}, {.letters = LetterCase::ascii_lower});
    CHECK(lower.vocabulary().tokens() == Words{"the"});
    CHECK(lower.encode("THE tHe") == Ids{1, 1});
    const Tokenizer whole =
        Tokenizer::of(Words{"can't"}, {.punctuation = Punctuation::within_words});
    CHECK(whole.encode("can't") == Ids{1});
}

TEST_CASE("Tokenizer: any range of what reads as text gives a vocabulary", "[tokenizer]") {
    const char* const pointers[] = {"b a", "b"};
    const std::deque<std::string_view> views{"b a", "b"};
    CHECK(Tokenizer::of(pointers) == Tokenizer::of(views));
    CHECK(Tokenizer::of(Words{}) == Tokenizer({}, Vocabulary{}));
}

TEST_CASE("Tokenizer: characters and bytes come back as they were", "[tokenizer]") {
    const std::string text = "Na\xC3\xAFve \xE2\x82\xAC 5,\tyes\n";
    const Tokenizer characters = Tokenizer::of(Words{text}, {.unit = TokenUnit::character});
    CHECK(characters.encode(text).size() == 15);
    CHECK(characters.decode(characters.encode(text)) == text);
    CHECK(characters.encode("z") == Ids{0});
    const Tokenizer bytes = Tokenizer::bytes({"end"});
    CHECK(bytes.vocabulary_size() == 258);
    std::string all;
    for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
    const Ids ids = bytes.encode(all);
    REQUIRE(ids.size() == 256);
    for (Index byte = 0; byte < 256; ++byte) CHECK(ids[static_cast<std::size_t>(byte)] == 2 + byte);
    CHECK(bytes.decode(ids) == all);
    CHECK(bytes.decode(Ids{2 + 'a', 1}) == "aend");
    // A vocabulary of the bytes that data have is smaller, and knows no others.
    const Tokenizer seen = Tokenizer::of(Words{"\xFF\xFF!"}, {.unit = TokenUnit::byte});
    CHECK(seen.encode("\xFF?!") == Ids{1, 0, 2});
}

TEST_CASE("Tokenizer: texts that are no UTF-8 are refused with text and byte", "[tokenizer]") {
    const Words bad{"fine", "no\xC3"};
    for (const TokenUnit unit : {TokenUnit::character, TokenUnit::word}) {
        CHECK(refusal([&] { (void)Tokenizer::of(bad, {.unit = unit}); }) ==
              "Tokenizer: text 1: text must be UTF-8, got byte 0xc3 at byte 2");
        const Tokenizer tokenizer = Tokenizer::of(Words{"fine"}, {.unit = unit});
        CHECK(refusal([&] { (void)tokenizer.encode(bad[1]); }) ==
              "Tokenizer: text must be UTF-8, got byte 0xc3 at byte 2");
    }
    CHECK(Tokenizer::of(bad, {.unit = TokenUnit::byte}).encode("\xC3").size() == 1);
}

TEST_CASE("Tokenizer: a vocabulary of other tokens and ids out of range are refused",
          "[tokenizer]") {
    CHECK(refusal([] { (void)Tokenizer({}, Vocabulary({"two words"})); }) ==
          "Tokenizer: vocabulary must hold single tokens, got \"two words\"");
    CHECK(refusal([] { (void)Tokenizer({.unit = TokenUnit::byte}, Vocabulary({"ab"})); }) ==
          "Tokenizer: vocabulary must hold single tokens, got \"ab\"");
    CHECK(refusal([] {
              (void)Tokenizer({.letters = LetterCase::ascii_lower}, Vocabulary({"The"}));
          }) == "Tokenizer: vocabulary must hold single tokens, got \"The\"");
    const Tokenizer words = Tokenizer::of(Words{"a b"});
    CHECK(refusal([&] {
              (void)words.decode(Ids{1, 3});
          }) == "Tokenizer: ids must lie in [0, 3), got 3");
    CHECK(refusal([&] { (void)words.decode(Ids{-1}); }) ==
          "Tokenizer: ids must lie in [0, 3), got -1");
}

}  // namespace
