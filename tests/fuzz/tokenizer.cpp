// SPDX-License-Identifier: MIT

// load_tokenizer, from files as they are and from their contents, sealed.

#include <stochastic_depth/io/tokenizer_file.hpp>

#include "fuzz.hpp"

namespace {

using namespace stochastic_depth;

void read(std::span<const std::uint8_t> bytes) {
    const fuzz::File file{bytes};
    // Each token has memory of its own, and a place in a table.
    fuzz::expect_memory(100 * bytes.size(), [&] {
        (void)fuzz::is_refused([&] {
            const Tokenizer tokenizer = load_tokenizer(file.path());
            const Vocabulary& vocabulary = tokenizer.vocabulary();
            Index id = vocabulary.reserved_count();
            for (const std::string& token : vocabulary.tokens())
                fuzz::expect(vocabulary.id_of(token) == ++id, "a token has the id of its place");
        });
    });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::span<const std::uint8_t> bytes{data, size};
    if (fuzz::take_choice(bytes, 2) == 0)
        read(bytes);
    else
        read(detail::sealed_bytes(detail::tokenizer_magic, detail::tokenizer_version, bytes));
    return 0;
}
