// SPDX-License-Identifier: MIT
#include <stochastic_depth/threads/thread_team.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;
using stochastic_depth::detail::Team;
using stochastic_depth::detail::ThreadTeam;

constexpr double plenty = 1e9;

/// How often each of 0, ..., size - 1 was in a part.
std::vector<int> visits(const Team& team, Index size, Index grain) {
    std::vector<std::atomic<int>> counts(static_cast<std::size_t>(size));
    team.split(size, grain, plenty, [&](Index first, Index count) {
        for (Index i = first; i < first + count; ++i) ++counts[static_cast<std::size_t>(i)];
    });
    return {counts.begin(), counts.end()};
}

std::vector<int> ones(Index size) { return std::vector<int>(static_cast<std::size_t>(size), 1); }

}  // namespace

TEST_CASE("ThreadTeam: every part runs once, for any number of threads and any size",
          "[thread_team]") {
    for (const unsigned threads : {1u, 2u, 3u, 8u}) {
        const ThreadTeam owner(threads);
        const Team& team = owner;
        CHECK(team.size() == static_cast<Index>(threads));
        for (const Index size : {0, 1, 2, 7, 8, 9, 1000})
            for (const Index grain : {1, 4, 2000}) {
                CAPTURE(threads, size, grain);
                CHECK(visits(team, size, grain) == ones(size));
            }
    }
}

TEST_CASE("ThreadTeam: one call after another, and after a pause in which all fall asleep",
          "[thread_team]") {
    const ThreadTeam team(3);
    for (int round = 0; round < 3; ++round) {
        for (int call = 0; call < 200; ++call) REQUIRE(visits(team, 60, 4) == ones(60));
        std::this_thread::sleep_for(std::chrono::milliseconds(60));
    }
}

TEST_CASE("ThreadTeam: a part's exception is thrown when all parts are done, once",
          "[thread_team]") {
    const ThreadTeam owner(4);
    const Team& team = owner;
    for (const Index fails : {0, 1, 2, 3}) {
        std::atomic<int> done{0};
        const auto part = [&](Index first, Index) {
            if (first == fails) throw std::runtime_error("part " + std::to_string(first));
            ++done;
        };
        CHECK_THROWS_WITH(team.split(4, 1, plenty, part), "part " + std::to_string(fails));
        CHECK(done == 3);
        // The failure does not stay for the next call.
        CHECK(visits(team, 40, 1) == ones(40));
    }
    std::atomic<int> failed{0};
    const auto all_fail = [&](Index, Index) {
        ++failed;
        throw std::runtime_error("all");
    };
    CHECK_THROWS_WITH(team.split(4, 1, plenty, all_fail), "all");
    CHECK(failed == 4);
    CHECK(visits(team, 40, 1) == ones(40));
}

TEST_CASE("ThreadTeam: a failed call keeps nothing of its exception", "[thread_team]") {
    const auto held = std::make_shared<int>(1);
    struct Holder : std::runtime_error {
        explicit Holder(std::shared_ptr<int> what)
            : std::runtime_error("holder"), kept(std::move(what)) {}
        std::shared_ptr<int> kept;
    };
    const ThreadTeam owner(3);
    const Team& team = owner;
    CHECK_THROWS_AS(team.split(3, 1, plenty, [&](Index, Index) { throw Holder(held); }), Holder);
    CHECK(held.use_count() == 1);
}

TEST_CASE("ThreadTeam: a call from within a part is done by its caller", "[thread_team]") {
    const ThreadTeam owner(3);
    const Team& team = owner;
    std::vector<std::vector<int>> inner(12);
    team.split(12, 1, plenty, [&](Index first, Index count) {
        for (Index i = first; i < first + count; ++i)
            inner[static_cast<std::size_t>(i)] = visits(team, 50, 1);
    });
    for (const std::vector<int>& counts : inner) CHECK(counts == ones(50));
    CHECK_THROWS_WITH(team.split(3, 1, plenty,
                                 [&](Index, Index) {
                                     team.split(3, 1, plenty, [](Index, Index) {
                                         throw std::runtime_error("inner");
                                     });
                                 }),
                      "inner");
    CHECK(visits(team, 50, 1) == ones(50));
}

TEST_CASE("ThreadTeam: may be called from several threads", "[thread_team]") {
    const ThreadTeam owner(3);
    const Team& team = owner;
    std::atomic<int> wrong{0};
    const auto call = [&] {
        for (int k = 0; k < 300; ++k) wrong += visits(team, 30, 1) != ones(30);
    };
    std::thread other(call);
    call();
    other.join();
    CHECK(wrong == 0);
}

TEST_CASE("ThreadTeam: moves with its threads, and leaves a team of one", "[thread_team]") {
    ThreadTeam first(3);
    const ThreadTeam second(std::move(first));
    CHECK(static_cast<const Team&>(second).size() == 3);
    CHECK(static_cast<const Team&>(first).size() == 1);
    CHECK(visits(second, 30, 1) == ones(30));
    CHECK(visits(first, 30, 1) == ones(30));
}
