// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/mask_tile.hpp>

#include <cmath>
#include <cstdint>

#include <stochastic_depth/random/philox.hpp>

#include "support/catch.hpp"
#include "support/mask_stream.hpp"

namespace {

using namespace stochastic_depth;
using test::digit;

TEST_CASE("BinaryDigits: windows are the digits of p", "[mask_tile]") {
    for (const double p : {0.5, 0.75, 0.1, 1.0 / 3, std::nextafter(1.0, 0.0), 0x1p-60, 0x1p-64,
                           0x1p-65, 0x1.8p-64, 0x1.fffffffffffffp-12, 0x1.fffffffffffffp-64,
                           0x1p-1022, 5e-324, 0x1.23456789abcdep-500}) {
        const detail::BinaryDigits digits{p};
        double rest = p;
        int last_one = 0;
        for (int i = 1; i <= 1088; ++i) {
            rest *= 2;
            const bool expected = rest >= 1;
            if (expected) rest -= 1, last_one = i;
            const std::uint64_t window = digits.window((i - 1) / 64 * 64);
            REQUIRE((window >> (63 - (i - 1) % 64) & 1u) == (expected ? 1u : 0u));
        }
        CHECK(rest == 0);
        CHECK(digits.count() == last_one);
    }
}

TEST_CASE("MaskTile: digits past the 64th are compared too", "[mask_tile]") {
    // To get there by chance takes 2^64 draws; the tile is started at digit 64 instead, where p is
    // the fraction p 2^64.
    const double p = 0x1.6a09e667f3bcdp-65;
    const detail::BinaryDigits digits{p};
    const auto block = philox4x32_10({42, 0, 0, 0}, {1, 1});
    const detail::PhiloxSchedule key{{block[0], block[1]}};
    detail::MaskTile tile;
    for (std::uint64_t layer = 0; layer < 5; ++layer) tile.add(layer, 3, digits, ~std::uint64_t{0});
    for (std::uint32_t b = 32; tile.draw(b, b + 1, 17, key);) ++b;
    int words = 0;
    const auto check = [&](std::uint64_t layer, std::uint64_t group, std::uint64_t word) {
        ++words;
        REQUIRE(group == 3);
        for (std::uint64_t j = 0; j < 64; ++j) {
            double rest = p * 0x1p64;
            bool kept = false;
            for (std::uint32_t i = 64; rest > 0; ++i) {
                rest *= 2;
                const bool of_p = rest >= 1;
                if (of_p) rest -= 1;
                const bool of_u = digit(42, 17, 3 * 64 + j, static_cast<std::uint32_t>(layer), i);
                if (of_u == of_p) continue;
                kept = of_p;
                break;
            }
            REQUIRE((word >> j & 1u) == (kept ? 1u : 0u));
        }
    };
    tile.for_each(check);
    CHECK(words == 5);
}

}  // namespace
