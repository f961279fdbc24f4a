// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/most_probable_law_masks.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include <stochastic_depth/expectation/certified_interval.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>

#include "support/catch.hpp"
#include "support/laws.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"
#include "support/structures.hpp"

namespace {

using namespace stochastic_depth;

TEST_CASE("MostProbableLawMasks: all masks of every law, the most probable first",
          "[most_probable_law_masks]") {
    Philox random{15};
    for (Index depth = 0; depth <= 8; ++depth)
        test::for_each_law(random, depth, [&](const auto& law) {
            std::vector<double> expected;
            for (const SurvivalMask& mask : test::all_masks(depth))
                if (const double p = probability(mask, law); p > 0) expected.push_back(p);
            std::sort(expected.begin(), expected.end(), std::greater<>());
            std::set<std::string> seen;
            MostProbableLawMasks masks{law};
            std::size_t k = 0;
            for (auto next = masks.next(); next; next = masks.next(), ++k) {
                REQUIRE(k < expected.size());
                CHECK(std::abs(next->probability - expected[k]) <= 1e-15);
                CHECK(std::abs(next->probability - probability(next->mask, law)) <= 1e-15);
                CHECK(seen.insert(to_string(next->mask)).second);
            }
            CHECK(k == expected.size());
            CHECK_FALSE(masks.next());
        });
}

TEST_CASE("MostProbableLawMasks: the first of many equally probable masks comes at once",
          "[most_probable_law_masks]") {
    // C(60, 30) masks; without knowing the best completions the search would go through them all.
    MostProbableLawMasks masks{LayerCountLaw::exactly(60, 30)};
    for (int k = 0; k < 100; ++k) CHECK(masks.next()->mask.count() == 30);
}

TEST_CASE("CertifiedInterval: bounds under a law hold its exact expectation",
          "[most_probable_law_masks]") {
    test::Structures make{31};
    const Sequential network{make.nested(), Softmax<double>{}};
    const auto x = test::random_matrix<double>(make.random, 5, 3);
    const auto check = [&](const auto& law, double uncovered) {
        const auto exact = ExactExpectation{}(network, x, law);
        const auto bounds =
            CertifiedInterval{{.lowest = 0, .highest = 1, .uncovered = uncovered}}(network, x, law);
        CHECK((exact.mean - bounds.lower).minCoeff() >= -1e-15);
        CHECK((bounds.upper - exact.mean).minCoeff() >= -1e-15);
        CHECK((bounds.upper - bounds.lower).maxCoeff() <= uncovered + 1e-12);
        CHECK(bounds.covered >= 1 - uncovered);
        return bounds.masks;
    };
    const Index depth = network.depth();
    const test::TwoBackLaw law{depth};
    CHECK(check(law, 0.1) < check(law, 0));
    CHECK(check(LayerCountLaw::exactly(depth, 1), 0) == depth);
    CHECK(test::refusal([&] {
              (void)CertifiedInterval{{.lowest = 0, .highest = 1}}(network, x, test::TwoBackLaw{2});
          }) == detail::message("CertifiedInterval: law must have ", depth, " layers, got 2"));
}

}  // namespace
