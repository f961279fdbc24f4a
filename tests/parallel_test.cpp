// SPDX-License-Identifier: MIT
#include <stochastic_depth/threads/parallel.hpp>

#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::detail;

/// How often each task ran.
std::vector<int> runs(Index tasks, unsigned threads) {
    std::vector<std::atomic<int>> counts(static_cast<std::size_t>(tasks));
    parallel_for(tasks, threads, [&](Index i) { ++counts[static_cast<std::size_t>(i)]; });
    return {counts.begin(), counts.end()};
}

std::vector<int> ones(Index size) { return std::vector<int>(static_cast<std::size_t>(size), 1); }

}  // namespace

TEST_CASE("parallel_for: every task runs once, also with more threads than tasks", "[parallel]") {
    for (const unsigned threads : {1u, 2u, 5u, 40u})
        for (const Index tasks : {0, 1, 2, 3, 100}) {
            CAPTURE(threads, tasks);
            CHECK(runs(tasks, threads) == ones(tasks));
        }
}

TEST_CASE("parallel_for: an exception ends the work, and the next call knows nothing of it",
          "[parallel]") {
    for (const unsigned threads : {1u, 2u, 4u}) {
        std::atomic<Index> begun{0};
        const auto fails = [&](Index i) {
            ++begun;
            if (i == 2) throw std::runtime_error("task 2");
        };
        CHECK_THROWS_WITH(parallel_for(1'000'000, threads, fails), "task 2");
        CHECK(begun < 1'000'000);
        CHECK(runs(100, threads) == ones(100));
        CHECK_THROWS_WITH(
            parallel_for(20, threads, [](Index) { throw std::runtime_error("each"); }), "each");
    }
}

TEST_CASE("parallel_for: may be nested", "[parallel]") {
    std::vector<std::vector<int>> inner(6);
    parallel_for(6, 3, [&](Index i) { inner[static_cast<std::size_t>(i)] = runs(20, 2); });
    for (const std::vector<int>& counts : inner) CHECK(counts == ones(20));
    CHECK_THROWS_WITH(parallel_for(4, 2,
                                   [](Index) {
                                       parallel_for(4, 2, [](Index i) {
                                           if (i == 3) throw std::runtime_error("inner");
                                       });
                                   }),
                      "inner");
}

TEST_CASE("parallel_blocks: blocks of one width but the last, none for nothing", "[parallel]") {
    for (const unsigned threads : {1u, 3u})
        for (const Index size : {0, 1, 9, 10, 11, 35}) {
            std::vector<std::atomic<int>> counts(static_cast<std::size_t>(size));
            std::atomic<int> blocks{0}, odd{0};
            parallel_blocks(size, 10, threads, [&](Index first, Index count) {
                ++blocks;
                if (first % 10 != 0 || (count != 10 && first + count != size)) ++odd;
                for (Index i = first; i < first + count; ++i) ++counts[static_cast<std::size_t>(i)];
            });
            CAPTURE(threads, size);
            CHECK(blocks == (size + 9) / 10);
            CHECK(odd == 0);
            CHECK(std::vector<int>(counts.begin(), counts.end()) == ones(size));
        }
}
