// SPDX-License-Identifier: MIT
#include <stochastic_depth/distributed/communicator.hpp>

#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/ranks.hpp"

namespace {
namespace sd = stochastic_depth;

TEST_CASE("a communicator has the ranks of the user's, and its own messages") {
    const sd::detail::Communicator ranks{"Test", MPI_COMM_WORLD};
    CHECK(ranks.rank() == sd::test::rank());
    CHECK(ranks.size() == sd::test::ranks());
    int comparison = MPI_IDENT;
    MPI_Comm_compare(ranks.get(), MPI_COMM_WORLD, &comparison);
    CHECK(comparison == MPI_CONGRUENT);
}

TEST_CASE("a communicator of no ranks is refused") {
    CHECK_THROWS_WITH((sd::detail::Communicator{"Test", MPI_COMM_NULL}),
                      "Test: communicator must be one, got MPI_COMM_NULL");
}

TEST_CASE("texts of different lengths reach every rank, in the order of ranks") {
    const sd::detail::Communicator ranks{"Test", MPI_COMM_WORLD};
    const auto text_of = [](int rank) { return std::string(static_cast<std::size_t>(rank), 'x'); };
    const std::vector<std::string> texts = ranks.all_texts(text_of(ranks.rank()));
    REQUIRE(texts.size() == static_cast<std::size_t>(ranks.size()));
    for (int r = 0; r < ranks.size(); ++r) CHECK(texts[static_cast<std::size_t>(r)] == text_of(r));
}

TEST_CASE("rank 0's values reach every rank") {
    const sd::detail::Communicator ranks{"Test", MPI_COMM_WORLD};
    std::array<double, 2> values{};
    if (ranks.rank() == 0) values = {1.5, -2.5};
    ranks.share<double>(values);
    CHECK(values == std::array{1.5, -2.5});
}

TEST_CASE("what differs between ranks is named with the first rank that differs, on every rank") {
    const sd::detail::Communicator ranks{"Test", MPI_COMM_WORLD};
    const bool is_last = ranks.rank() == ranks.size() - 1;
    const auto check = [&](const std::string& seed) {
        sd::detail::check_agreement(ranks, {{"depth", "3"}, {"seed", seed}});
    };
    CHECK_NOTHROW(check("42"));
    if (ranks.size() > 1)
        CHECK_THROWS_WITH(check(is_last ? "43" : "42"),
                          "Test: seed must be the same on every rank, got 42 on rank 0 and 43 on "
                          "rank " + std::to_string(ranks.size() - 1));
}

TEST_CASE("a failure of one rank is known to all, which can go on afterwards") {
    const sd::detail::Communicator ranks{"Test", MPI_COMM_WORLD};
    for (int failing = 0; failing < ranks.size(); ++failing) {
        const auto run = [&] {
            sd::detail::together(ranks, [&] {
                if (ranks.rank() == failing) throw std::invalid_argument("no data");
            });
        };
        if (ranks.rank() == failing)
            CHECK_THROWS_AS(run(), std::invalid_argument);
        else
            CHECK_THROWS_WITH(run(), "Test: rank " + std::to_string(failing) + ": no data");
        int count = 0;
        sd::detail::together(ranks, [&] { ++count; });
        CHECK(count == 1);
    }
}

}  // namespace
