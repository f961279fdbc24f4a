// SPDX-License-Identifier: MIT
#include <stochastic_depth/random/random_words.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include <stochastic_depth/random/philox.hpp>

#include "support/catch.hpp"

namespace {

using stochastic_depth::philox4x32_10;
using stochastic_depth::detail::RandomWords;

TEST_CASE("RandomWords: the words are those of the blocks 0, 1, ... of the place",
          "[random_words]") {
    RandomWords random{{5, 6}, {7, 8, 9}};
    for (std::uint32_t block = 0; block < 10; ++block)
        for (const std::uint32_t word : philox4x32_10({block, 7, 8, 9}, {5, 6}))
            REQUIRE(random() == word);
}

TEST_CASE("RandomWords: below a bound that divides 2^32, it takes the leading bits of one word",
          "[random_words]") {
    RandomWords random{{1, 2}, {3, 4, 5}}, words{{1, 2}, {3, 4, 5}};
    for (int i = 0; i < 1000; ++i)
        for (const int bits : {1, 5, 31}) {
            const std::uint32_t drawn = random.below(std::uint32_t{1} << bits);
            REQUIRE(drawn == words() >> (32 - bits));
        }
    for (int i = 0; i < 10; ++i) REQUIRE(random.below(1) == 0);
}

TEST_CASE("RandomWords: below any bound, every number is equally likely", "[random_words]") {
    RandomWords random{{1, 2}, {3, 4, 6}};
    constexpr int draws = 40'000;
    const auto check = [](double hits, double chance) {
        const double sigma = std::sqrt(chance * (1 - chance) / draws);
        // 2 + 3 + 7 + 10 + 3 + 1 checks beyond 5 sigma: once in 6e4 choices of the seed.
        CHECK(std::abs(hits / draws - chance) <= 5 * sigma);
    };
    for (const std::uint32_t bound : {2u, 3u, 7u, 10u}) {
        std::vector<double> hits(bound, 0.0);
        for (int i = 0; i < draws; ++i) ++hits.at(random.below(bound));
        for (const double hit : hits) check(hit, 1.0 / bound);
    }
    // Without rejection, every third number would come twice as often: once in two draws.
    const std::uint32_t large = 3u << 30;
    std::vector<double> by_remainder(3, 0.0);
    double lower = 0;
    for (int i = 0; i < draws; ++i) {
        const std::uint32_t drawn = random.below(large);
        REQUIRE(drawn < large);
        ++by_remainder[drawn % 3];
        lower += drawn < large / 2 ? 1 : 0;
    }
    for (const double hits : by_remainder) check(hits, 1.0 / 3);
    check(lower, 0.5);
}

}  // namespace
