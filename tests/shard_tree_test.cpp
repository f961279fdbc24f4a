// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/shard_tree.hpp>

#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {
namespace sd = stochastic_depth;
using sd::Index;

/// The sum of the shards [first, first + size) that there are, in brackets.
std::string tree(Index first, Index size, Index shards) {
    if (size == 1) return std::to_string(first);
    const Index half = size / 2;
    if (first + half >= shards) return tree(first, half, shards);
    return "(" + tree(first, half, shards) + "+" + tree(first + half, half, shards) + ")";
}

void put(std::vector<std::string>& stack, const std::string& sum, Index additions) {
    stack.push_back(sum);
    for (; additions > 0; --additions) {
        const std::string top = stack.back();
        stack.pop_back();
        stack.back() = "(" + stack.back() + "+" + top + ")";
    }
}

TEST_CASE("shards are added in one tree, whatever the number of ranks") {
    for (Index shards = 1; shards <= 33; ++shards)
        for (Index ranks = 1; ranks <= 12; ++ranks) {
            const sd::detail::ShardTree sums{shards, ranks};
            std::vector<std::string> all;
            Index next = 0;
            for (Index r = 0; r < ranks; ++r) {
                std::vector<std::string> own;
                const auto of_rank = sums.shards_of(r);
                for (Index k = of_rank.first; k < of_rank.end(); ++k) {
                    REQUIRE(k == next++);
                    put(own, std::to_string(k), sums.additions_after_shard(k));
                    REQUIRE(static_cast<Index>(own.size()) <= sums.highest());
                }
                const auto nodes = sums.nodes_of(r);
                REQUIRE(nodes.count == static_cast<Index>(own.size()));
                for (Index i = 0; i < nodes.count; ++i)
                    put(all, own[static_cast<std::size_t>(i)],
                        sums.additions_after_node(nodes.first + i));
            }
            Index size = 1;
            while (size < shards) size *= 2;
            REQUIRE(next == shards);
            REQUIRE(all == std::vector{tree(0, size, shards)});
        }
}

TEST_CASE("ranks whose shards are whole nodes have one sum each") {
    for (const Index ranks : {1, 2, 4, 8}) {
        const sd::detail::ShardTree sums{8, ranks};
        CHECK(sums.nodes() == ranks);
        CHECK(sums.highest() == (ranks == 1 ? 3 : ranks == 2 ? 2 : 1));
    }
    CHECK(sd::detail::ShardTree{8, 3}.nodes() == 5);
}

TEST_CASE("single values are added in the same order") {
    const sd::detail::ShardTree one{5, 1};
    std::vector<double> values{1e16, 1.0, -1e16, 1.0, 0.5};
    CHECK(one.sum(values) == ((1e16 + 1.0) + (-1e16 + 1.0)) + 0.5);
    values = {2.5};
    CHECK(sd::detail::ShardTree{1, 1}.sum(values) == 2.5);
}

}  // namespace
