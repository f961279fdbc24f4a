// SPDX-License-Identifier: MIT
#include <stochastic_depth/threads/helpers.hpp>

#include <atomic>
#include <new>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::detail;

/// Counts its calls; memory runs out in copy number `fails_at` of the first one.
struct Work {
    std::atomic<int>* calls;
    std::atomic<int>* copies;
    int fails_at;

    Work(std::atomic<int>& calls_, std::atomic<int>& copies_, int at)
        : calls(&calls_), copies(&copies_), fails_at(at) {}
    Work(const Work& other) : calls(other.calls), copies(other.copies), fails_at(other.fails_at) {
        if (++*copies == fails_at) throw std::bad_alloc();
    }
    Work(Work&&) = default;
    Work& operator=(const Work&) = delete;
    void operator()() const { ++*calls; }
};

}  // namespace

TEST_CASE("Helpers: each runs the work once, and all are done at the end", "[helpers]") {
    for (const Index count : {0, 1, 5}) {
        std::atomic<int> calls{0}, copies{0};
        {
            const Helpers helpers(count, Work(calls, copies, 0));
            CHECK(helpers.count() == count);
        }
        CHECK(calls == count);
    }
}

TEST_CASE("Helpers: where memory runs out, those that there are work, and are waited for",
          "[helpers]") {
    for (const int fails_at : {1, 2, 5}) {
        std::atomic<int> calls{0}, copies{0};
        {
            const Helpers helpers(5, Work(calls, copies, fails_at));
            CHECK(helpers.count() == fails_at - 1);
        }
        CHECK(calls == fails_at - 1);
    }
}
