// SPDX-License-Identifier: MIT
#include <stochastic_depth/analysis/best_subnetworks.hpp>

#include <cstddef>
#include <limits>
#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

#include <stochastic_depth/random/uniform.hpp>

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

TEST_CASE("best_subnetworks: 200 random networks against all their masks", "[best_subnetworks]") {
    Philox random{21};
    for (std::size_t trial = 0; trial < 200; ++trial) {
        const auto network = network_of(random, trial % 7);
        const Matrix<double> x = test::random_matrix<double>(random, 3, 2);
        // Every other score is a small whole number, so that many are equal.
        const bool rounds = trial % 2 == 0;
        const auto score = [&](const Matrix<double>& y) {
            return rounds ? std::round(3 * y.sum()) : y.squaredNorm();
        };
        BestSubnetworksOptions options;
        if (trial % 3 > 0) {
            options.layer_costs.resize(network.depth());
            for (double& cost : options.layer_costs)
                cost = trial % 3 == 1 ? uniform<double>(random, 0.0, 2.0)
                                      : std::floor(uniform<double>(random, 0.0, 3.0));
        }
        const BestSubnetworks best = best_subnetworks(network, x, score, options);
        CHECK(best.search == SubnetworkSearch::every_mask);
        CHECK(best.layer_evaluations == std::ldexp(1.0, static_cast<int>(network.depth())) - 1);
        test::check_best(best, network, x, score, options.layer_costs);
        const BestSubnetworks same =
            best_subnetworks(network, mask_values(network, x, score), options);
        CHECK(same.layer_evaluations == 0);
        CHECK(test::equal(same, best));
        options.threads = 3;
        CHECK(test::equal(best_subnetworks(network, x, score, options), best));
    }
}

TEST_CASE("best_subnetworks: layers inside a skipped one are not kept", "[best_subnetworks]") {
    test::Structures make{22};
    const auto score = [](const Matrix<double>& y) { return std::round(4 * y.norm()); };
    const Matrix<double> x = test::random_matrix<double>(make.random, 5, 3);
    const auto nested = make.nested();
    const BestSubnetworks best = best_subnetworks(nested, x, score);
    REQUIRE(best.by_size.size() == static_cast<std::size_t>(nested.depth()) + 1);
    test::check_best(best, nested, x, score, {});
}

TEST_CASE("best_subnetworks: a frontier by hand", "[best_subnetworks]") {
    Philox random{23};
    const auto network = network_of(random, 2);
    const double inf = std::numeric_limits<double>::infinity();
    // Masks 00, 10, 01, 11 in the order of the table.
    const auto costs_of = [&](Eigen::Vector4d values, Eigen::Vector2d costs) {
        std::vector<double> found;
        for (const Subnetwork& each :
             best_subnetworks(network, values, {.layer_costs = costs}).frontier)
            found.push_back(each.cost);
        return found;
    };
    CHECK(costs_of({0, 1, 2, 3}, {1, 1}) == std::vector<double>{0, 1, 2});
    CHECK(costs_of({0, 1, 2, 2}, {1, 5}) == std::vector<double>{0, 1, 5});
    CHECK(costs_of({0, 3, 2, 1}, {1, 5}) == std::vector<double>{0, 1});
    CHECK(costs_of({0, 1, 2, 3}, {5, 1}) == std::vector<double>{0, 1, 6});
    CHECK(costs_of({0, 1, 2, 3}, {0, 0}) == std::vector<double>{0});
    CHECK(costs_of({-inf, -inf, -inf, inf}, {1, 1}) == std::vector<double>{0, 2});
    CHECK(best_subnetworks(network, Eigen::Vector4d{-inf, -inf, -inf, -inf}).by_size.size() == 3);
}

TEST_CASE("best_subnetworks: what it refuses", "[best_subnetworks]") {
    Philox random{24};
    const auto network = network_of(random, 3);
    const Matrix<double> x = Matrix<double>::Ones(3, 2);
    int calls = 0;
    const auto score = [&](const Matrix<double>& y) { return ++calls, y.sum(); };
    const auto uncalled = [&] { return calls == 0; };
    const auto refuses_costs = [&](Eigen::VectorXd costs, const char* got) {
        refuses([&] { (void)best_subnetworks(network, x, score, {.layer_costs = costs}); },
                {"best_subnetworks: layer_costs must", got}, uncalled);
    };
    refuses_costs(Eigen::VectorXd{{1, 2}}, "one entry for each of 3 layers, got 2");
    refuses_costs(Eigen::VectorXd{{1, -1, 2}}, "got -1 for layer 1");
    refuses_costs(Eigen::VectorXd{{1, 1, test::nan}}, "got nan for layer 2");
    refuses_costs(Eigen::VectorXd{{test::inf, 1, 1}}, "got inf for layer 0");
    refuses([&] { (void)best_subnetworks(network, x, score, {.threads = 0}); },
            {"best_subnetworks: threads must be at least 1, got 0"}, uncalled);
    refuses<std::length_error>(
        [&] { (void)best_subnetworks(network, x, score, {.max_layer_evaluations = 6}); },
        {"best_subnetworks: depth 3 takes 7 layer evaluations", "max_layer_evaluations is 6",
         "best_removals or beam_search_subnetworks"},
        uncalled);
    refuses<std::length_error>(
        [&] { (void)best_subnetworks(network, x, score, {.max_bytes = 63}); },
        {"best_subnetworks: depth 3 takes a table of 64 bytes"}, uncalled);
    refuses([&] { (void)best_subnetworks(network, Eigen::VectorXd::Zero(7)); },
            {"best_subnetworks: values must have one entry for each mask of 3 layers", "got 7"});
    refuses([&] { (void)best_subnetworks(network, Eigen::VectorXd::Constant(8, test::nan)); },
            {"best_subnetworks: score must be a number, got nan"});
    const auto none = [](const Matrix<double>&) { return test::nan; };
    refuses([&] { (void)best_subnetworks(network, x, none); },
            {"best_subnetworks: score must be a number, got nan"});
}

}  // namespace
