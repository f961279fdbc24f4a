// SPDX-License-Identifier: MIT
#include <stochastic_depth/random/shuffle.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;
using stochastic_depth::detail::random_order;

}  // namespace

TEST_CASE("random_order: each number once, the same for the same key and order", "[shuffle]") {
    for (const Index size : {0, 1, 2, 3, 100, 1000}) {
        std::vector<Index> order = random_order(size, {1, 2}, 3);
        CHECK(order == random_order(size, {1, 2}, 3));
        std::vector<Index> sorted(static_cast<std::size_t>(size));
        std::iota(sorted.begin(), sorted.end(), Index{0});
        std::sort(order.begin(), order.end());
        CHECK(order == sorted);
    }
}

TEST_CASE("random_order: every bit of the key and of the order's number matters", "[shuffle]") {
    // Two independent orders of 30 are the same with probability 1 / 30! = 4e-33.
    const std::uint64_t number = 0x123456789abcdef0;
    const std::vector<Index> order = random_order(30, {7, 8}, number);
    for (int bit = 0; bit < 64; ++bit) {
        CAPTURE(bit);
        CHECK(random_order(30, {7, 8}, number ^ std::uint64_t{1} << bit) != order);
    }
    for (int bit = 0; bit < 32; ++bit) {
        CAPTURE(bit);
        CHECK(random_order(30, {7 ^ std::uint32_t{1} << bit, 8}, number) != order);
        CHECK(random_order(30, {7, 8 ^ std::uint32_t{1} << bit}, number) != order);
    }
}

TEST_CASE("random_order: all orders of three are as frequent", "[shuffle]") {
    // Each count of 60000 orders has mean 10000 and sigma sqrt(60000 * 5 / 36) = 91: within 6
    // sigma, false alarms 2e-9 each.
    std::vector<int> counts(27);
    for (std::uint64_t number = 0; number < 60000; ++number) {
        const std::vector<Index> order = random_order(3, {5, 6}, number);
        ++counts[static_cast<std::size_t>(9 * order[0] + 3 * order[1] + order[2])];
    }
    int seen = 0;
    for (const int count : counts) {
        if (count == 0) continue;
        ++seen;
        CHECK(std::abs(count - 10000) < 550);
    }
    CHECK(seen == 6);
}
