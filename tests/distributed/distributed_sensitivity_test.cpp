// SPDX-License-Identifier: MIT
#include <stochastic_depth/distributed/distributed_sensitivity.hpp>

#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/own_networks.hpp"

namespace {

using namespace own;

template <class Network>
void check_exact(const Network& network, const Matrix<typename Network::Scalar>& x,
                 SensitivityOrder order, const std::vector<Index>& cuts) {
    const auto exact = ExactSensitivity{{.order = order}}(network, x);
    DistributedSensitivityOptions options;
    options.order = order;
    for (const Index prefix_layers : cuts) {
        INFO("prefix_layers " << prefix_layers);
        options.prefix_layers = prefix_layers;
        const auto shared = DistributedSensitivity{options, MPI_COMM_WORLD}(network, x);
        CHECK(same_bits(shared.expectation.mean, exact.expectation.mean));
        CHECK(same_bits(shared.expectation.variance, exact.expectation.variance));
        CHECK(shared.expectation.layer_evaluations == exact.expectation.layer_evaluations);
        CHECK(same_bits(shared.by_layer.values(), exact.by_layer.values()));
        for (Index m = 0; order == SensitivityOrder::pairs && m < network.depth(); ++m)
            for (Index l = 0; l < m; ++l)
                CHECK(same_bits(shared.by_pair.of(l, m), exact.by_pair.of(l, m)));
    }
}

Stack<Skippable> blocks(Index depth) {
    Philox random{5};
    std::vector<Skippable> layers;
    for (Index l = 0; l < depth; ++l)
        layers.push_back(skippable(random, l % 3 == 1 ? 1.0 : 0.85 - 0.06 * double(l)));
    return Stack<Skippable>{layers};
}

TEST_CASE("DistributedSensitivity: bit for bit the exact one, also where a layer is always kept") {
    Philox random{1};
    for (const SensitivityOrder order : {SensitivityOrder::layers, SensitivityOrder::pairs}) {
        for (const Index columns : {1, 150}) {
            check_exact(blocks(6), random_matrix<double>(random, 4, columns), order, {0, 3, 5});
            check_exact(mixed_network(3), inputs(columns), order, {1, 2, 4});
        }
        check_exact(mixed_network(3), inputs(0), order, {2});
    }
    for (const Index depth : {0, 1, 2})
        check_exact(blocks(depth), random_matrix<double>(random, 4, 2), SensitivityOrder::layers,
                    {0, 1});
}

TEST_CASE("DistributedSensitivity: what is not finite") {
    Philox random{2};
    Matrix<double> x = random_matrix<double>(random, 4, 5);
    x(1, 1) = std::numeric_limits<double>::infinity();
    x(2, 4) = 1.7e308;
    check_exact(blocks(5), x, SensitivityOrder::pairs, {2});
}

TEST_CASE("DistributedSensitivity: a sum that is asked to stop says so on every rank") {
    Philox random{3};
    DistributedSensitivityOptions options;
    options.prefix_layers = 4;
    options.progress = [](const DistributedProgress&) { return false; };
    const DistributedSensitivity sensitivity{options, MPI_COMM_WORLD};
    CHECK_THROWS_AS(sensitivity(blocks(6), random_matrix<double>(random, 4, 2)), Cancelled);
}

}  // namespace
