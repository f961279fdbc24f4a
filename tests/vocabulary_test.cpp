// SPDX-License-Identifier: MIT
#include <stochastic_depth/text/vocabulary.hpp>

#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using Words = std::vector<std::string>;
using test::refusal;

TokenCounts counts_of(const Words& tokens) {
    TokenCounts counts;
    for (const std::string& token : tokens) counts.add(token);
    return counts;
}

TEST_CASE("Vocabulary: ids are unknown, reserved names, tokens", "[vocabulary]") {
    const Vocabulary vocabulary({"the", "of", "end"}, {"begin", "end"});
    CHECK(vocabulary.size() == 6);
    CHECK(vocabulary.reserved_count() == 2);
    CHECK(vocabulary.id_of("the") == 3);
    CHECK(vocabulary.id_of("of") == 4);
    CHECK(vocabulary.id_of("and") == Vocabulary::unknown);
    CHECK(vocabulary.reserved_id("begin") == 1);
    CHECK(vocabulary.reserved_id("end") == 2);
    // A reserved id is no text's, whatever it is called.
    CHECK(vocabulary.id_of("begin") == Vocabulary::unknown);
    CHECK(vocabulary.id_of("end") == 5);
    for (Index id = 3; id < 6; ++id) CHECK(vocabulary.id_of(vocabulary.text_of(id)) == id);
    CHECK(vocabulary.text_of(0) == "\xEF\xBF\xBD");
    CHECK(vocabulary.text_of(1) == "begin");
    CHECK(vocabulary.text_of(2) == "end");
    CHECK(Vocabulary{}.size() == 1);
    CHECK(Vocabulary{}.id_of("") == 0);
}

TEST_CASE("Vocabulary: a copy outlives what it was copied from", "[vocabulary]") {
    Vocabulary copy;
    {
        const Vocabulary original({"a long token that is kept on the heap", "b"});
        copy = original;
        CHECK(copy == original);
    }
    CHECK(copy.id_of("a long token that is kept on the heap") == 1);
    CHECK_FALSE(copy == Vocabulary({"b"}));
    CHECK_FALSE(Vocabulary({"b"}) == Vocabulary({"b"}, {"b"}));
}

TEST_CASE("TokenCounts: the most frequent tokens come first, equally frequent ones by their bytes",
          "[vocabulary]") {
    const Words tokens{"b", "c", "a", "b", "a", "d", "b", "\xC3\xA9", "Z", "d"};
    CHECK(counts_of(tokens).size() == 6);
    const Words expected{"b", "a", "d", "Z", "c", "\xC3\xA9"};
    CHECK(counts_of(tokens).vocabulary().tokens() == expected);
    // Whatever the order in which they came.
    CHECK(counts_of(Words(tokens.rbegin(), tokens.rend())).vocabulary().tokens() == expected);
    CHECK(counts_of(tokens).vocabulary({.minimum_count = 2}).tokens() == Words{"b", "a", "d"});
    CHECK(counts_of(tokens).vocabulary({.minimum_count = 4}).size() == 1);
    // Unknown and reserved ids count too.
    const Vocabulary four = counts_of(tokens).vocabulary({.maximum_size = 4, .reserved = {"end"}});
    CHECK(four.size() == 4);
    CHECK(four.tokens() == Words{"b", "a"});
    CHECK(counts_of(tokens).vocabulary({.maximum_size = 1}).size() == 1);
    CHECK(counts_of(tokens).vocabulary({.maximum_size = 1000}).tokens() == expected);
    CHECK(counts_of({}).vocabulary().size() == 1);
}

TEST_CASE("Vocabulary: what is no vocabulary is refused", "[vocabulary]") {
    CHECK(refusal([] {
              (void)Vocabulary({"a", "b", "a"});
          }) == "Vocabulary: tokens must differ, got a twice");
    CHECK(refusal([] {
              (void)Vocabulary({"a", ""});
          }) == "Vocabulary: tokens must not be empty, got an empty one at 1");
    CHECK(refusal([] {
              (void)Vocabulary({"a"}, {"x", "x"});
          }) == "Vocabulary: reserved must differ, got x twice");
    CHECK(refusal([] { (void)Vocabulary({"a"}, {""}); }) ==
          "Vocabulary: reserved must not be empty, got an empty one at 0");
    const Vocabulary vocabulary({"a"});
    CHECK(refusal([&] { (void)vocabulary.text_of(2); }) ==
          "Vocabulary: id must lie in [0, 2), got 2");
    CHECK(refusal([&] { (void)vocabulary.text_of(-1); }) ==
          "Vocabulary: id must lie in [0, 2), got -1");
    CHECK(refusal([&] { (void)vocabulary.reserved_id("a"); }) ==
          "Vocabulary: name must be reserved, got a");
}

}  // namespace
