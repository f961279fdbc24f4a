// SPDX-License-Identifier: MIT
#include <stochastic_depth/io/tokenizer_file.hpp>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using Words = std::vector<std::string>;
using test::refuses;

TEST_CASE("load_tokenizer: what was saved encodes as before", "[tokenizer_file]") {
    const test::TemporaryFile file;
    const Words texts{"The cat, the dog", "na\xC3\xAFve"};
    for (const TokenUnit unit : {TokenUnit::byte, TokenUnit::character, TokenUnit::word})
        for (const Punctuation punctuation : {Punctuation::apart, Punctuation::within_words})
            for (const LetterCase letters : {LetterCase::as_written, LetterCase::ascii_lower}) {
                const Tokenizer saved = Tokenizer::of(
                    texts, {.unit = unit, .punctuation = punctuation, .letters = letters},
                    {.reserved = {"begin", "end"}});
                save_tokenizer(file.path(), saved);
                const Tokenizer loaded = load_tokenizer(file.path());
                CHECK(loaded == saved);
                CHECK(loaded.encode("the Dog, x") == saved.encode("the Dog, x"));
            }
    save_tokenizer(file.path(), Tokenizer::bytes());
    CHECK(load_tokenizer(file.path()) == Tokenizer::bytes());
    save_tokenizer(file.path(), Tokenizer({}, Vocabulary{}));
    CHECK(load_tokenizer(file.path()).vocabulary_size() == 1);
}

TEST_CASE("load_tokenizer: a file cut short or changed anywhere is refused", "[tokenizer_file]") {
    const test::TemporaryFile file;
    save_tokenizer(file.path(), Tokenizer::of(Words{"a b c"}));
    const test::Bytes whole = test::read(file.path());
    for (std::size_t i = 0; i < whole.size(); ++i) {
        test::write(file.path(), {whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(i)});
        refuses<std::runtime_error>([&] { (void)load_tokenizer(file.path()); },
                                    {"load_tokenizer", file.path().c_str()});
        test::Bytes changed = whole;
        changed[i] = static_cast<std::uint8_t>(changed[i] ^ 0x41);
        test::write(file.path(), changed);
        refuses<std::runtime_error>([&] { (void)load_tokenizer(file.path()); },
                                    {"load_tokenizer", file.path().c_str()});
    }
}

/// A sealed file of these numbers and texts.
void seal(const std::string& path, std::vector<std::uint32_t> choices, std::uint64_t reserved,
          std::uint64_t tokens, const Words& texts, const char* magic = "SDTOKENS",
          std::uint32_t version = 1) {
    std::vector<std::uint8_t> content;
    detail::ByteWriter writer{content};
    for (const std::uint32_t choice : choices) writer.number(choice);
    writer.number(reserved);
    writer.number(tokens);
    for (const std::string& text : texts) writer.text(text);
    detail::write_sealed("test", path, magic, version, content);
}

TEST_CASE("load_tokenizer: whole files that hold something else are refused", "[tokenizer_file]") {
    const test::TemporaryFile file;
    const auto refused = [&](std::initializer_list<const char*> fragments) {
        refuses<std::runtime_error>([&] { (void)load_tokenizer(file.path()); }, fragments);
    };
    seal(file.path(), {2, 0, 0}, 0, 2, {"a", "b"});
    CHECK(load_tokenizer(file.path()) == Tokenizer::of(Words{"a b"}));
    seal(file.path(), {3, 0, 0}, 0, 0, {});
    refused({"load_tokenizer", "token unit 3"});
    seal(file.path(), {2, 2, 0}, 0, 0, {});
    refused({"punctuation 2"});
    seal(file.path(), {2, 0, 2}, 0, 0, {});
    refused({"letter case 2"});
    seal(file.path(), {2, 0, 0}, 0, 2, {"a", "a"});
    refused({"tokens must differ, got a twice"});
    seal(file.path(), {2, 0, 0}, 0, 1, {"a b"});
    refused({"single tokens", "a b"});
    seal(file.path(), {2, 0, 0}, 0, 1, {"a", "b"});
    refused({"5 bytes after the last token"});
    // Nothing is set aside for what a file only says that it has.
    seal(file.path(), {2, 0, 0}, 0, std::uint64_t{1} << 60, {"a"});
    refused({"a record needs 4 bytes, 0 are left"});
    seal(file.path(), {2, 0, 0}, 0, 1, {"a"}, "SDPARAMS");
    refused({"of another kind"});
    seal(file.path(), {2, 0, 0}, 0, 1, {"a"}, "SDTOKENS", 2);
    refused({"format version 2"});
    refuses<std::runtime_error>([] { (void)load_tokenizer("no-such-folder/x"); },
                                {"load_tokenizer", "no-such-folder/x"});
    refuses<std::runtime_error>([] { save_tokenizer("no-such-folder/x", Tokenizer::bytes()); },
                                {"save_tokenizer", "no-such-folder/x"});
}

}  // namespace
