// SPDX-License-Identifier: MIT
#include <stochastic_depth/text/tokens.hpp>

#include <list>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::MatrixXf;
using Words = std::vector<std::string>;
using test::refusal;

/// A user's own encoder: ids of letters.
struct Letters {
    Index size = 26;
    [[nodiscard]] Index vocabulary_size() const { return size; }
    [[nodiscard]] std::vector<Index> encode(std::string_view text) const {
        std::vector<Index> ids;
        for (const char c : text) ids.push_back(c - 'a');
        return ids;
    }
};
static_assert(TextEncoder<Letters> && TextEncoder<Tokenizer> && !TextEncoder<std::string>);

TEST_CASE("tokens_of: a column for each text, -1 past its end", "[tokens]") {
    const std::list<std::string> texts{"abc", "z", "ca"};
    const Tokens<double> tokens = tokens_of<double>(Letters{}, texts);
    CHECK(tokens.ids == MatrixXd{{0, 25, 2}, {1, -1, 0}, {2, -1, -1}});
    CHECK(tokens.truncated == 0);
    CHECK(lengths_of(tokens.ids) == std::vector<Index>{3, 1, 2});
    CHECK(lengths_of(MatrixXf::Constant(3, 1, -1)) == std::vector<Index>{0});
    CHECK(tokens_of<float>(Letters{}, Words{}).ids.size() == 0);
}

TEST_CASE("tokens_of: what lies past the positions is left out and counted", "[tokens]") {
    const Words texts{"abc", "z", "ca"};
    const auto two = tokens_of<float>(Letters{}, texts, {.positions = 2});
    CHECK(two.ids == MatrixXf{{0, 25, 2}, {1, -1, 0}});
    CHECK(two.truncated == 1);
    CHECK(tokens_of<float>(Letters{}, texts, {.positions = 1}).truncated == 2);
    const auto five = tokens_of<float>(Letters{}, texts, {.positions = 5});
    CHECK(five.ids.rows() == 5);
    CHECK(five.truncated == 0);
    CHECK((five.ids.bottomRows(2).array() == -1).all());
}

TEST_CASE("tokens_of: a text without tokens is refused, or gets the id that is named", "[tokens]") {
    const Tokenizer words = Tokenizer::of(Words{"a b"});
    const Words texts{"a", " \t"};
    CHECK(refusal([&] { (void)tokens_of<float>(words, texts); }) ==
          "tokens_of: texts must have at least 1 token, got none in sample 1");
    CHECK(tokens_of<float>(words, texts, {.empty = 0}).ids == MatrixXf{{1, 0}});
    CHECK(refusal([&] { (void)tokens_of<float>(words, texts, {.empty = 3}); }) ==
          "tokens_of: empty must lie in [0, 3), got 3");
}

TEST_CASE("texts_of: gives back what the ids stand for", "[tokens]") {
    const Words texts{"Na\xC3\xAFve", "\n", "x y"};
    const Tokenizer characters = Tokenizer::of(texts, {.unit = TokenUnit::character});
    CHECK(texts_of(characters, tokens_of<float>(characters, texts).ids) == texts);
    CHECK(texts_of(characters, tokens_of<double>(characters, texts, {.positions = 2}).ids) ==
          Words{"Na", "\n", "x "});
    CHECK(texts_of(characters, MatrixXd::Constant(2, 1, -1)) == Words{""});
}

TEST_CASE("tokens_of, texts_of: ids and vocabularies out of range are refused", "[tokens]") {
    CHECK(refusal([] {
              (void)tokens_of<float>(Letters{.size = 5}, Words{"ab", "af"});
          }) == "tokens_of: ids must lie in [0, 5), got 5 in sample 1");
    CHECK(refusal([] { (void)tokens_of<float>(Letters{}, Words{"a b"}); }) ==
          "tokens_of: ids must lie in [0, 26), got -65 in sample 0");
    CHECK(refusal([] { (void)tokens_of<float>(Letters{.size = (1 << 24) + 1}, Words{"a"}); }) ==
          "tokens_of: vocabulary must have 1 to 16777216 ids, got 16777217");
    CHECK(tokens_of<double>(Letters{.size = (1 << 24) + 1}, Words{"b"}).ids == MatrixXd{{1}});
    CHECK(refusal([] { (void)tokens_of<float>(Letters{.size = 0}, Words{"a"}); }) ==
          "tokens_of: vocabulary must have 1 to 16777216 ids, got 0");
    CHECK(refusal([] { (void)tokens_of<float>(Letters{}, Words{"a"}, {.positions = -1}); }) ==
          "tokens_of: positions must be at least 0, got -1");
    const Tokenizer words = Tokenizer::of(Words{"a b"});
    for (const double id : {3.0, -2.0, 0.5, 1e300})
        CHECK(refusal([&] {
                  (void)texts_of(words, MatrixXd{{1, 1}, {2, id}});
              }).starts_with("texts_of: ids must be whole numbers in [0, 3), got "));
    CHECK(refusal([&] {
              (void)texts_of(words, MatrixXd{{-1}, {1}});
          }) == "texts_of: ids must be whole numbers in [0, 3), got -1 in row 0 of sample 0");
}

}  // namespace
