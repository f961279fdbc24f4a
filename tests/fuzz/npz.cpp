// SPDX-License-Identifier: MIT

// NpzFile, and open_npz with zlib: every array of an archive, as a matrix and as masks; what is
// inflated, by itself.

#include <stochastic_depth/io/npz_deflated.hpp>

#include "fuzz.hpp"

namespace {

using namespace stochastic_depth;
using fuzz::Bytes;

void read_archive(std::span<const std::uint8_t> bytes, detail::Inflate inflate) {
    const fuzz::File file{bytes};
    std::vector<NpzArray> arrays;
    // An array that is deflated may have as many bytes as its part of the file allows for, three
    // times while it grows, and each number of a byte becomes one of a matrix, or a mask.
    const std::size_t each = sizeof(SurvivalMask) + 8;
    fuzz::expect_memory(bytes.size() * (inflate ? detail::most_inflation * (3 + each) : each), [&] {
        (void)fuzz::is_refused([&] {
            const NpzFile archive{file.path(), inflate};
            for (const std::string& name : archive.names()) {
                (void)fuzz::is_refused([&] { (void)archive.masks(name); });
                (void)fuzz::is_refused([&] {
                    const Matrix<double> matrix = archive.matrix<double>(name);
                    if (matrix.size() < 1000) arrays.emplace_back(name, matrix);
                });
            }
        });
    });
    if (arrays.empty()) return;
    // What is written again reads the same, either way. Names that archives may have and ours don't
    // are refused.
    for (const detail::Deflate deflate :
         {detail::Deflate{nullptr}, detail::Deflate{detail::deflate_raw}})
        try {
            const fuzz::File again{detail::npz_bytes(arrays, deflate)};
            const NpzFile archive{again.path(), detail::inflate_raw};
            fuzz::expect(archive.names().size() == arrays.size(), "every array is there again");
            for (const NpzArray& array : arrays)
                fuzz::expect(detail::npy_bytes(archive.matrix<double>(array.name)) == array.npy,
                             "what is written again reads the same");
        } catch (const std::invalid_argument&) {
        }
}

/// The first two bytes are the size to inflate to.
void inflate(std::span<const std::uint8_t> bytes) {
    if (bytes.size() < 2) return;
    const std::size_t size = detail::load_little<std::uint16_t>(bytes.data());
    Bytes inflated;
    bool refused = false;
    fuzz::expect_memory(bytes.size(), [&] {
        refused =
            fuzz::is_refused([&] { inflated = detail::inflate_raw(bytes.subspan(2), size); });
    });
    if (refused) return;
    fuzz::expect(inflated.size() == size, "as many bytes as asked for");
    const Bytes deflated = detail::deflate_raw(inflated);
    fuzz::expect(detail::inflate_raw(deflated, inflated.size()) == inflated,
                 "what is deflated inflates to the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::span<const std::uint8_t> bytes{data, size};
    switch (fuzz::take_choice(bytes, 3)) {
        case 0: read_archive(bytes, nullptr); break;
        case 1: read_archive(bytes, detail::inflate_raw); break;
        default: inflate(bytes); break;
    }
    return 0;
}
