// SPDX-License-Identifier: MIT
#include <stochastic_depth/analysis/subnetwork_search.hpp>

#include <cstddef>
#include <stdexcept>
#include <vector>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/refusals.hpp"
#include "support/structures.hpp"
#include "support/subnetworks.hpp"

namespace {

using namespace stochastic_depth;
using test::refuses;

using Branch = plain::OneLinear<double, Tanh<double>>;

auto network_of(Philox& random, std::size_t depth) {
    return plain::to_library<Branch>(
        plain::random_network(random, {depth, 4, 1, plain::Activation::tanh, true}));
}

const auto norm = [](const Matrix<double>& y) { return y.squaredNorm(); };

TEST_CASE("best_removals: every number of removals, against all masks", "[subnetwork_search]") {
    Philox random{31};
    for (std::size_t depth = 0; depth < 7; ++depth) {
        const auto network = network_of(random, depth);
        const Matrix<double> x = test::random_matrix<double>(random, 3, 2);
        const Eigen::VectorXd costs = test::random_matrix<double>(random, network.depth(), 1)
                                          .cwiseAbs();
        for (Index most = 0; most <= network.depth(); ++most) {
            const BestSubnetworks best =
                best_removals(network, x, norm, most, {.layer_costs = costs});
            CHECK(best.search == SubnetworkSearch::removals);
            test::check_best(best, network, x, norm, costs, most);
            CHECK(test::equal(best_removals(network, x, norm, most,
                                            {.layer_costs = costs, .threads = 3}),
                              best));
        }
    }
}

TEST_CASE("best_removals: layers inside a removed one count as removed", "[subnetwork_search]") {
    test::Structures make{32};
    const Matrix<double> x = test::random_matrix<double>(make.random, 5, 3);
    const auto nested = make.nested();
    for (const Index most : {1, 3, 7})
        test::check_best(best_removals(nested, x, norm, most), nested, x, norm, {}, most);
    const auto around = make.residual_around();
    const Matrix<double> wide = test::random_matrix<double>(make.random, 6, 100);
    test::check_best(best_removals(around, wide, norm, 2), around, wide, norm, {}, 2);
}

TEST_CASE("beam_search_subnetworks: wide enough, it sees all; width 1 is greedy",
          "[subnetwork_search]") {
    Philox random{33};
    const auto network = network_of(random, 6);
    const Matrix<double> x = test::random_matrix<double>(random, 3, 4);
    const BestSubnetworks all = beam_search_subnetworks(network, x, norm, 20);
    CHECK(all.search == SubnetworkSearch::beam);
    test::check_best(all, network, x, norm, {});

    const BestSubnetworks greedy = beam_search_subnetworks(network, x, norm, 1);
    REQUIRE(greedy.by_size.size() == 7);
    SurvivalMask mask = SurvivalMask::all(6);
    for (std::size_t size = 6; size > 0; --size) {
        CHECK(greedy.by_size[size].mask == mask);
        CHECK(greedy.by_size[size].score == norm(network(x, mask)));
        SurvivalMask best;
        for (Index l = 0; l < 6; ++l) {
            SurvivalMask less = mask;
            less.skip(l);
            if (mask[l] && (best.size() == 0 || norm(network(x, less)) > norm(network(x, best))))
                best = less;
        }
        mask = best;
    }
    test::Structures make{34};
    const auto nested = make.nested();
    const Matrix<double> inputs = test::random_matrix<double>(random, 5, 2);
    test::check_best(beam_search_subnetworks(nested, inputs, norm, 100), nested, inputs, norm, {});
}

/// y = x + slope.
StochasticDepth<Residual<Linear<double>>> adding_layer(double slope) {
    return StochasticDepth{
        Residual{Linear<double>{Matrix<double>::Zero(1, 1), Eigen::VectorXd::Constant(1, slope)}},
        SurvivalProbability{0.5}};
}

TEST_CASE("subnetwork searches: seventy layers, of which each adds its number",
          "[subnetwork_search]") {
    std::vector<StochasticDepth<Residual<Linear<double>>>> layers;
    for (int l = 0; l < 70; ++l) layers.push_back(adding_layer(l % 35 + (l < 35 ? 1.0 : 1.5)));
    const Stack network{layers};
    const Matrix<double> x = Matrix<double>::Zero(1, 1);
    const auto sum = [](const Matrix<double>& y) { return y.sum(); };
    SurvivalMask mask = SurvivalMask::all(70);
    const BestSubnetworks removals = best_removals(network, x, sum, 2);
    REQUIRE(removals.by_size.size() == 3);
    CHECK(removals.by_size[2].mask == mask);
    mask.skip(0);
    CHECK(removals.by_size[1].mask == mask);
    mask.skip(35);
    CHECK(removals.by_size[0].mask == mask);
    CHECK(removals.frontier.size() == 3);
    // 1 + 70 + 2415 masks; without their prefixes shared these are 169,120 evaluations of a layer.
    CHECK(removals.layer_evaluations < 100000);

    const BestSubnetworks beam = beam_search_subnetworks(network, x, sum, 3);
    REQUIRE(beam.by_size.size() == 71);
    CHECK(beam.by_size[68].mask == mask);
    CHECK(beam.by_size[1].score == 35.5);
    CHECK(beam.by_size[0].mask == SurvivalMask::none(70));
}

TEST_CASE("subnetwork searches: what they refuse", "[subnetwork_search]") {
    Philox random{35};
    const auto network = network_of(random, 4);
    const Matrix<double> x = Matrix<double>::Ones(3, 2);
    int calls = 0;
    const auto score = [&](const Matrix<double>& y) { return ++calls, y.sum(); };
    const auto uncalled = [&] { return calls == 0; };
    refuses([&] { (void)best_removals(network, x, score, 5); },
            {"best_removals: most must lie in [0, 4], got 5"}, uncalled);
    refuses([&] { (void)best_removals(network, x, score, -1); }, {"best_removals: most", "got -1"},
            uncalled);
    refuses([&] { (void)beam_search_subnetworks(network, x, score, 0); },
            {"beam_search_subnetworks: width must be at least 1, got 0"}, uncalled);
    refuses([&] { (void)best_removals(network, x, score, 1, {.threads = 0}); },
            {"best_removals: threads must be at least 1, got 0"}, uncalled);
    refuses([&] { (void)best_removals(network, x.leftCols(0), score, 1); },
            {"best_removals: x must have at least 1 column, got 0"}, uncalled);
    refuses([&] { (void)best_removals(network, x.topRows(2), score, 1); },
            {"Linear: input must have 3 rows", "got 2"}, uncalled);
    const BestSubnetworksOptions two_costs{.layer_costs = Eigen::VectorXd{{1, 2}}};
    refuses([&] { (void)best_removals(network, x, score, 1, two_costs); },
            {"best_removals: layer_costs must have one entry for each of 4 layers"}, uncalled);
    // 4, and four masks of three layers.
    refuses<std::length_error>(
        [&] { (void)best_removals(network, x, score, 1, {.max_layer_evaluations = 15}); },
        {"best_removals: depth 4 takes 16 layer evaluations", "max_layer_evaluations is 15",
         "narrower beam"},
        uncalled);
    CHECK_NOTHROW(best_removals(network, x, score, 1, {.max_layer_evaluations = 16}));
    const auto none = [](const Matrix<double>&) { return test::nan; };
    refuses([&] { (void)beam_search_subnetworks(network, x, none, 2); },
            {"beam_search_subnetworks: score must be a number, got nan"});
    CHECK_THROWS_AS(beam_search_subnetworks(network, x, norm, 2,
                                            {.progress = [](double) { return false; }}),
                    Cancelled);
}

}  // namespace
