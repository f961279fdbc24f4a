// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/text/tokenizer.hpp>

/// A tokenizer in a file, to lie beside its network's: save_parameters keeps what the network has
/// learned, and this what its ids mean. Needs POSIX, for which reason it is not part of all.hpp.
///
/// Format, version 1, all numbers little-endian, a text being its length (4 bytes) and its letters:
/// "SDTOKENS", version (4), length of what follows but the hash (8); unit, punctuation, letters (4
/// each); number of reserved names (8) and names; number of tokens (8) and tokens, in the order of
/// their ids; at the end FNV-1a of all bytes before (8).
namespace stochastic_depth {
namespace detail {

inline constexpr std::string_view tokenizer_magic = "SDTOKENS";
inline constexpr std::uint32_t tokenizer_version = 1;

inline void write_texts(ByteWriter& writer, const std::vector<std::string>& texts) {
    writer.number(static_cast<std::uint64_t>(texts.size()));
    for (const std::string& text : texts) writer.text(text);
}
/// What a file says of its own size is not believed before it is read.
[[nodiscard]] inline std::vector<std::string> read_texts(ByteReader& reader) {
    const auto count = reader.number<std::uint64_t>();
    std::vector<std::string> texts;
    for (std::uint64_t i = 0; i < count; ++i) texts.emplace_back(reader.text());
    return texts;
}

template <class Enum>
[[nodiscard]] Enum read_choice(ByteReader& reader, std::string_view what, Enum last) {
    const auto value = reader.number<std::uint32_t>();
    if (value > static_cast<std::uint32_t>(last))
        throw std::runtime_error(
            message("the file has ", what, " ", value, ", which this library doesn't know"));
    return static_cast<Enum>(value);
}

}  // namespace detail

/// Writes a tokenizer into a file, which is replaced in one step, as save_parameters does.
///
/// \param path  A std::filesystem::path does as well.
/// \throws std::runtime_error  naming the file and the reason, if it cannot be written; the old
///                             file is untouched then.
inline void save_tokenizer(const std::string& path, const Tokenizer& tokenizer) {
    std::vector<std::uint8_t> content;
    detail::ByteWriter writer{content};
    writer.number(static_cast<std::uint32_t>(tokenizer.options().unit));
    writer.number(static_cast<std::uint32_t>(tokenizer.options().punctuation));
    writer.number(static_cast<std::uint32_t>(tokenizer.options().letters));
    detail::write_texts(writer, tokenizer.vocabulary().reserved());
    detail::write_texts(writer, tokenizer.vocabulary().tokens());
    detail::write_sealed("save_tokenizer", path, detail::tokenizer_magic, detail::tokenizer_version,
                         content);
}

/// The tokenizer that save_tokenizer wrote: it encodes as that one does.
///
/// \param path  A std::filesystem::path does as well.
/// \throws std::runtime_error  naming the file and what is wrong, if it cannot be read, is cut
///                             short, damaged, of another kind or version.
[[nodiscard]] inline Tokenizer load_tokenizer(const std::string& path) {
    const std::vector<std::uint8_t> content = detail::read_sealed(
        "load_tokenizer", path, detail::tokenizer_magic, detail::tokenizer_version);
    try {
        detail::ByteReader reader{content};
        TokenizerOptions options;
        options.unit = detail::read_choice(reader, "token unit", TokenUnit::word);
        options.punctuation = detail::read_choice(reader, "punctuation", Punctuation::within_words);
        options.letters = detail::read_choice(reader, "letter case", LetterCase::ascii_lower);
        std::vector<std::string> reserved = detail::read_texts(reader);
        std::vector<std::string> tokens = detail::read_texts(reader);
        if (reader.left() != 0)
            throw std::runtime_error(
                detail::message("the file has ", reader.left(), " bytes after the last token"));
        return Tokenizer(options, Vocabulary(std::move(tokens), std::move(reserved)));
    } catch (const std::exception& error) {
        throw std::runtime_error(detail::message("load_tokenizer: ", path, ": ", error.what()));
    }
}

}  // namespace stochastic_depth
