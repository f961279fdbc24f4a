// SPDX-License-Identifier: MIT
// Bad input to what reads texts and makes sequences of them.
#include <cmath>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <stochastic_depth/io/plain_text.hpp>
#include <stochastic_depth/io/tab_separated.hpp>
#include <stochastic_depth/text/length_blocks.hpp>
#include <stochastic_depth/text/tokenizer.hpp>
#include <stochastic_depth/text/tokens.hpp>
#include <stochastic_depth/text/vocabulary.hpp>
#include <stochastic_depth/training/token_dropout.hpp>
#include <stochastic_depth/training/trainer.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Ids = std::vector<Index>;
using Words = std::vector<std::string>;
using test::inf;
using test::nan;
using test::refuses;

test::Bytes bytes(std::string_view text) { return {text.begin(), text.end()}; }

TEST_CASE("bad input: files of texts that hold something else", "[bad_input_text]") {
    const auto refuses_lines = [](std::string_view file, std::initializer_list<const char*> said) {
        refuses<std::runtime_error>([&] { (void)parse_lines(bytes(file), "f.txt"); }, said);
    };
    const auto refuses_table = [](std::string_view file, std::initializer_list<const char*> said,
                                  const Words& classes = {}) {
        refuses<std::runtime_error>(
            [&] { (void)parse_tab_separated(bytes(file), "f.tsv", {.classes = classes}); }, said);
    };
    refuses_lines("", {"parse_lines", "f.txt", "at least 1 line"});
    refuses_lines("\xEF\xBB\xBF", {"parse_lines", "f.txt", "at least 1 line"});
    refuses_table("", {"parse_tab_separated", "f.tsv", "at least 1 line"});
    refuses_table("\xEF\xBB\xBF", {"parse_tab_separated", "f.tsv", "at least 1 line"});
    refuses_table("\n", {"f.tsv", "line 1", "no tab"});
    refuses_table("a b", {"f.tsv", "line 1", "no tab"});
    refuses_table("a\tb\n\n", {"f.tsv", "line 2", "no tab"});
    refuses_table("a\tb\r\nc d\r\n", {"f.tsv", "line 2", "no tab"});
    refuses_table("\t", {"f.tsv", "line 1", "a label"});
    refuses_table("a\tb\n\tc", {"f.tsv", "line 2", "a label"});
    refuses_table("a\t", {"f.tsv", "line 1", "a text"});
    refuses_table("a\tb\na\t\r\n", {"f.tsv", "line 2", "a text"});
    // Labels are compared as bytes: neither case nor blanks are overlooked.
    refuses_table("A\tb", {"line 1", "one of 1 labels", "found A"}, {"a"});
    refuses_table("a\tb\na \tb", {"line 2", "one of 2 labels", "found a "}, {"a", "b"});
    refuses(
        [] {
            (void)parse_tab_separated(bytes("a\tb"), "f.tsv", {.classes = {"a", "a"}});
        },
        {"parse_tab_separated: classes", "got a twice"});
    const test::TemporaryDirectory directory;
    refuses<std::runtime_error>([&] { (void)read_lines(directory.file("none")); },
                                {"read_lines", "none"});
    refuses<std::runtime_error>([&] { (void)read_tab_separated(directory.file("none")); },
                                {"read_tab_separated", "none"});
    refuses<std::runtime_error>([&] { (void)read_lines(directory.file("")); }, {"read_lines"});
}

TEST_CASE("bad input: texts that are no UTF-8", "[bad_input_text]") {
    struct Case {
        const char* text;
        const char* byte;
        const char* place;
    };
    const Tokenizer words = Tokenizer::of(Words{"a b"});
    for (const Case& bad :
         std::initializer_list<Case>{{"\x80", "0x80", "at byte 0"},      // goes on with nothing
                                     {"ab\xC3", "0xc3", "at byte 2"},    // cut short
                                     {"a\xC3(b", "0xc3", "at byte 1"},   // not gone on with
                                     {"\xC0\x80", "0xc0", "at byte 0"},  // overlong
                                     {"\xE2\x82\xAC\xE0\x80\xAF", "0xe0", "at byte 3"},
                                     {"\xED\xA0\x80", "0xed", "at byte 0"},      // a surrogate
                                     {"\xF4\x90\x80\x80", "0xf4", "at byte 0"},  // past U+10FFFF
                                     {"ok \xFE", "0xfe", "at byte 3"}}) {
        for (const TokenUnit unit : {TokenUnit::character, TokenUnit::word})
            refuses(
                [&] {
                    (void)Tokenizer::of(Words{"x", bad.text}, {.unit = unit});
                },
                {"Tokenizer: text 1", bad.byte, bad.place});
        refuses([&] { (void)words.encode(bad.text); }, {"Tokenizer: text", bad.byte, bad.place});
        refuses(
            [&] {
                (void)tokens_of<float>(words, Words{"a", "b", bad.text});
            },
            {"tokens_of: sample 2", bad.byte, bad.place});
        CHECK(Tokenizer::bytes().encode(bad.text).size() == std::string(bad.text).size());
    }
}

TEST_CASE("bad input: vocabularies that cannot be", "[bad_input_text]") {
    TokenCounts counts;
    counts.add("a");
    const auto refuses_options = [&](const VocabularyOptions& options,
                                     std::initializer_list<const char*> said) {
        refuses([&] { (void)counts.vocabulary(options); }, said);
        refuses([&] { (void)Tokenizer::of(Words{"a"}, {}, options); }, said);
    };
    refuses_options({.minimum_count = 0}, {"Vocabulary: minimum_count", "got 0"});
    refuses_options({.minimum_count = -4}, {"Vocabulary: minimum_count", "got -4"});
    refuses_options({.maximum_size = -1}, {"Vocabulary: maximum_size", "at least 1", "got -1"});
    refuses_options({.maximum_size = 2, .reserved = {"x", "y"}},
                    {"Vocabulary: maximum_size", "at least 3", "got 2"});
    refuses_options({.reserved = {"x", "x"}}, {"Vocabulary: reserved", "got x twice"});
    refuses_options({.reserved = {"x", ""}}, {"Vocabulary: reserved", "an empty one at 1"});
    counts.add("");
    refuses([&] { (void)counts.vocabulary(); }, {"Vocabulary: tokens", "empty"});
    refuses([] { (void)Vocabulary(Words{"a", "a"}); }, {"Vocabulary: tokens", "got a twice"});
    refuses([] { (void)Tokenizer({}, Vocabulary(Words{" "})); },
            {"Tokenizer: vocabulary", "\" \""});
    refuses([] { (void)Tokenizer({}, Vocabulary(Words{"a."})); },
            {"Tokenizer: vocabulary", "\"a.\""});
    refuses([] { (void)Tokenizer({}, Vocabulary(Words{"\xFF"})); }, {"Tokenizer: text", "0xff"});
    refuses([] { (void)Tokenizer::bytes({"x", "x"}); }, {"Vocabulary: reserved", "got x twice"});
}

TEST_CASE("bad input: ids that stand for nothing", "[bad_input_text]") {
    const Tokenizer words = Tokenizer::of(Words{"a b"});
    const Vocabulary& vocabulary = words.vocabulary();
    for (const Index id : {Index{-1}, Index{3}, Index{1} << 40}) {
        refuses([&] { (void)vocabulary.text_of(id); }, {"Vocabulary: id", "[0, 3)"});
        refuses([&] { (void)words.decode(Ids{0, id}); }, {"Tokenizer: ids", "[0, 3)"});
    }
    refuses([&] { (void)vocabulary.reserved_id("a"); }, {"Vocabulary: name", "got a"});
    for (const double entry : {3.0, -2.0, 1.5, nan, inf, -inf})
        refuses(
            [&] {
                (void)texts_of(words, MatrixXd{{1, 1}, {2, entry}});
            },
            {"texts_of: ids", "[0, 3)", "in row 1 of sample 1"});
    refuses(
        [&] {
            (void)texts_of(words, MatrixXd{{-1}, {2}});
        },
        {"texts_of: ids", "got -1 in row 0 of sample 0"});
}

TEST_CASE("bad input: sequences that cannot be", "[bad_input_text]") {
    const Tokenizer words = Tokenizer::of(Words{"a b"});
    const auto refuses_texts = [&](const Words& texts, const TokensOptions& options,
                                   std::initializer_list<const char*> said) {
        refuses([&] { (void)tokens_of<float>(words, texts, options); }, said);
    };
    refuses_texts({"a", ""}, {}, {"tokens_of: texts", "at least 1 token", "in sample 1"});
    refuses_texts({"\t\r\n "}, {}, {"tokens_of: texts", "at least 1 token", "in sample 0"});
    refuses_texts({"a"}, {.positions = -1}, {"tokens_of: positions", "got -1"});
    refuses_texts({"a"}, {.empty = -1}, {"tokens_of: empty", "got -1"});
    refuses_texts({"a"}, {.empty = 3}, {"tokens_of: empty", "got 3"});
    refuses([] { (void)length_blocks(MatrixXd(2, 2), 0); },
            {"length_blocks: samples_at_once", "got 0"});
    refuses([] { (void)length_blocks(MatrixXd(2, 2), -5); },
            {"length_blocks: samples_at_once", "got -5"});
    refuses([] { (void)Trainer{{.batching = SimilarLengths{0}}}; },
            {"Trainer: window of batching", "got 0"});
    refuses([] { (void)Trainer{{.batching = SimilarLengths{-1}}}; },
            {"Trainer: window of batching", "got -1"});
}

TEST_CASE("bad input: what drops tokens", "[bad_input_text]") {
    for (const double rate : {-0.01, 1.01, nan, inf})
        refuses([&] { (void)TokenDropout{{.rate = rate}}; }, {"TokenDropout: rate", "got "});
    refuses([] { (void)TokenDropout{{.replacement = -1}}; },
            {"TokenDropout: replacement", "got -1"});
    refuses([] { (void)TokenDropout{{.replacement = (1 << 24) + 1}}; },
            {"TokenDropout: replacement", "got 16777217"});
    const TokenDropout dropout{{.rate = 1}};
    const MatrixXd x = MatrixXd::Constant(2, 3, 5);
    MatrixXd y = MatrixXd::Constant(2, 3, 9);
    const auto unchanged = [&] { return (y.array() == 9).all(); };
    refuses([&] { dropout.apply(0, Ids{0, 1}, x, y); }, {"TokenDropout: x", "got 3"}, unchanged);
    refuses(
        [&] {
            dropout.apply(0, Ids{0, 1}, x.leftCols(2), y);
        },
        {"TokenDropout: y must be [2 x 2], got [2 x 3]"}, unchanged);
    refuses(
        [&] {
            dropout.apply(0, Ids{0, 1, -1}, x, y);
        },
        {"TokenDropout: samples", "got -1"}, unchanged);
}

}  // namespace
