// SPDX-License-Identifier: MIT
#include <stochastic_depth/threads/team.hpp>

#include <algorithm>
#include <utility>
#include <vector>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;
using stochastic_depth::detail::Team;
using Parts = std::vector<std::pair<Index, Index>>;

/// A crew that runs the parts from the last to the first, in the caller's thread.
struct Backwards {
    int calls = 0;

    Team team(Index size) {
        return {size, this,
                [](void* self, Index all, Index width, Team::Run run, const void* part) {
                    ++static_cast<Backwards*>(self)->calls;
                    for (Index k = (all + width - 1) / width; k-- > 0;)
                        run(part, k * width, std::min(width, all - k * width));
                }};
    }
};

Parts parts_of(const Team& team, Index size, Index grain, double work) {
    Parts parts;
    team.split(size, grain, work,
               [&](Index first, Index count) { parts.emplace_back(first, count); });
    return parts;
}

constexpr double plenty = 1e9;

}  // namespace

TEST_CASE("Team: alone is one member, who does all in one part", "[team]") {
    CHECK(Team::alone().size() == 1);
    CHECK(Team().size() == 1);
    CHECK(parts_of(Team::alone(), 100, 8, plenty) == Parts{{0, 100}});
    CHECK(parts_of(Team::alone(), 0, 8, plenty).empty());
}

TEST_CASE("Team: a part for each member, of whole grains but the last", "[team]") {
    Backwards crew;
    const Team team = crew.team(3);
    CHECK(team.size() == 3);
    CHECK(parts_of(team, 100, 8, plenty) == Parts{{80, 20}, {40, 40}, {0, 40}});
    CHECK(parts_of(team, 9, 8, plenty) == Parts{{8, 1}, {0, 8}});
    CHECK(parts_of(team, 6, 1, plenty) == Parts{{4, 2}, {2, 2}, {0, 2}});
    CHECK(crew.calls == 3);
    // More members than work.
    CHECK(parts_of(crew.team(50), 3, 1, plenty) == Parts{{2, 1}, {1, 1}, {0, 1}});
}

TEST_CASE("Team: nobody is called for a grain, for nothing, or for what takes no time", "[team]") {
    Backwards crew;
    const Team team = crew.team(4);
    CHECK(parts_of(team, 8, 8, plenty) == Parts{{0, 8}});
    CHECK(parts_of(team, 0, 8, plenty).empty());
    CHECK(parts_of(team, 1000, 8, 99.9) == Parts{{0, 1000}});
    CHECK(crew.calls == 0);
    CHECK(parts_of(team, 1000, 8, 100.0).size() == 4);
    CHECK(crew.calls == 1);
}
