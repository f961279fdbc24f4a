// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/most_probable_masks.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/survival/schedules.hpp>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;

long double exact_probability(const SurvivalMask& mask, const Eigen::VectorXd& p) {
    long double product = 1;
    for (Index l = 0; l < p.size(); ++l) {
        const long double kept = p(l);
        product *= mask[l] ? kept : 1 - kept;
    }
    return product;
}

double relative(double value, long double exact) {
    return static_cast<double>(std::abs(value - exact) / exact);
}

TEST_CASE("MostProbableMasks: two layers by hand", "[most_probable_masks]") {
    MostProbableMasks masks{Eigen::VectorXd{{0.9, 0.25}}};
    const std::vector<std::pair<std::string, double>> expected{
        {"(1,0)", 0.675}, {"(1,1)", 0.225}, {"(0,0)", 0.075}, {"(0,1)", 0.025}};
    for (const auto& [mask, probability] : expected) {
        const auto next = masks.next();
        REQUIRE(next);
        CHECK(to_string(next->mask) == mask);
        CHECK(relative(next->probability, probability) <= 4e-16);
    }
    CHECK_FALSE(masks.next());
    CHECK_FALSE(masks.next());
}

TEST_CASE("MostProbableMasks: all masks, sorted, for every depth up to 12",
          "[most_probable_masks]") {
    Philox random{1};
    for (Index depth = 0; depth <= 12; ++depth)
        for (int kind = 0; kind < 6; ++kind) {
            Eigen::VectorXd p(depth);
            for (Index l = 0; l < depth; ++l) {
                const double u = uniform<double>(random);
                p(l) = kind == 0   ? 1 - u
                       : kind == 1 ? 0.7
                       : kind == 2 ? (u < 0.4 ? 1 : 0.8)
                       : kind == 3 ? 0.5
                       : kind == 4 ? std::exp2(-40 * u)
                                   : 1 - 0.5 * std::exp2(-40 * u);
            }
            Index branching = 0;
            for (Index l = 0; l < depth; ++l) branching += p(l) < 1 ? 1 : 0;
            std::vector<long double> expected;
            for (std::uint64_t bits = 0; bits < std::uint64_t{1} << depth; ++bits) {
                SurvivalMask mask = SurvivalMask::none(depth);
                if (depth > 0) mask.set_word(0, bits);
                const long double probability = exact_probability(mask, p);
                if (probability > 0) expected.push_back(probability);
            }
            std::sort(expected.begin(), expected.end(), std::greater<>{});
            REQUIRE(expected.size() == std::size_t{1} << branching);

            CAPTURE(depth, kind);
            MostProbableMasks masks{p};
            std::set<std::string> seen;
            double worst = 0, before = 1;
            long double sum = 0;
            bool never_rises = true;
            for (const long double probability : expected) {
                const auto next = masks.next();
                REQUIRE(next);
                seen.insert(to_string(next->mask));
                never_rises = never_rises && next->probability <= before;
                before = next->probability;
                sum += next->probability;
                worst =
                    std::max(worst, relative(next->probability, exact_probability(next->mask, p)));
                // The k-th mask is as probable as the k-th of all, ties aside.
                worst = std::max(worst, relative(next->probability, probability));
            }
            CHECK_FALSE(masks.next());
            CHECK(seen.size() == expected.size());
            CHECK(never_rises);
            CHECK(worst <= 8 * static_cast<double>(std::max<Index>(depth, 1)) * 0x1p-53);
            CHECK(std::abs(sum - 1) <= 1e-14L);
        }
}

// Costs of log 2 times whole numbers: masks are grouped by their cost, and how many there are of
// each cost is what a table of subset sums says.
TEST_CASE(
    "MostProbableMasks: 200 layers, 30,000 masks, against a count of the subsets of each cost",
    "[most_probable_masks]") {
    const Index depth = 200;
    Eigen::VectorXd p(depth);
    std::vector<int> cost;
    for (Index l = 0; l < depth; ++l) {
        cost.push_back(4 + static_cast<int>(l * 7 % 23));
        const double odds = std::exp2(-cost.back());
        p(l) = l % 3 == 0 ? odds / (1 + odds) : 1 / (1 + odds);
    }
    std::vector<double> subsets(400);
    subsets[0] = 1;
    for (const int c : cost)
        for (std::size_t total = subsets.size(); total-- > static_cast<std::size_t>(c);)
            subsets[total] += subsets[total - static_cast<std::size_t>(c)];

    MostProbableMasks masks{p};
    std::set<std::vector<std::uint64_t>> seen;
    std::size_t total = 0;
    double left = subsets[0], before = 1;
    for (int k = 0; k < 30000; ++k) {
        while (left == 0) left = subsets[++total];
        --left;
        const auto next = masks.next();
        REQUIRE(next);
        std::size_t of_mask = 0;
        for (Index l = 0; l < depth; ++l)
            if (next->mask[l] != (l % 3 != 0))
                of_mask += static_cast<std::size_t>(cost[static_cast<std::size_t>(l)]);
        REQUIRE(of_mask == total);
        REQUIRE(next->probability <= before);
        REQUIRE(relative(next->probability, exact_probability(next->mask, p)) <= 1600 * 0x1p-53);
        before = next->probability;
        seen.insert({next->mask.words().begin(), next->mask.words().end()});
    }
    CHECK(total > 10);
    CHECK(seen.size() == 30000);
}

TEST_CASE("MostProbableMasks: the same p gives the same order, ties included",
          "[most_probable_masks]") {
    const Eigen::VectorXd p = uniform_survival(70, 0.7);
    MostProbableMasks a{p}, b{p};
    for (int k = 0; k < 2000; ++k) {
        const auto from_a = a.next(), from_b = b.next();
        REQUIRE(from_a->mask == from_b->mask);
        // A copy goes on from here by itself.
        if (k == 1000) b = MostProbableMasks{a};
    }
}

TEST_CASE("MostProbableMasks: layers that are always kept, and no layers at all",
          "[most_probable_masks]") {
    MostProbableMasks certain{uniform_survival(3, 1.0)}, none{Eigen::VectorXd(0)};
    const auto only = certain.next();
    CHECK(to_string(only->mask) == "(1,1,1)");
    CHECK(only->probability == 1);
    CHECK_FALSE(certain.next());
    CHECK(none.next()->mask == SurvivalMask{});
    CHECK_FALSE(none.next());
}

}  // namespace
