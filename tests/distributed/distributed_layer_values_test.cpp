// SPDX-License-Identifier: MIT
#include <stochastic_depth/distributed/distributed_layer_values.hpp>

#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/own_networks.hpp"

namespace {

using namespace own;

template <class Values>
bool is_same(const Values& a, const Values& b) {
    return same_bits(a.value.values(), b.value.values()) &&
           same_bits(a.standard_error.values(), b.standard_error.values()) &&
           a.layer_evaluations == b.layer_evaluations;
}

TEST_CASE("DistributedLayerValues: bit for bit the exact Shapley and Banzhaf values") {
    const auto network = mixed_network(4);
    SharedTreeOptions options;
    for (const Index prefix_layers : {0, 1, 4})
        for (const Index columns : {0, 2, 130}) {
            options.prefix_layers = prefix_layers;
            const DistributedLayerValues values{options, MPI_COMM_WORLD};
            CHECK(is_same(values.shapley(network, inputs(columns)),
                          shapley_values(network, inputs(columns))));
            CHECK(is_same(values.banzhaf(network, inputs(columns)),
                          banzhaf_values(network, inputs(columns))));
        }
}

TEST_CASE("DistributedLayerValues: one file for all sweeps, also where some columns overflow") {
    const detail::Communicator ranks{"Test", MPI_COMM_WORLD};
    const TemporaryDirectory own;
    SharedTreeOptions options;
    options.path = ranks.all_texts(own.file("values"))[0];
    options.prefix_layers = 3;
    Matrix<double> x = inputs(3);
    x(0, 1) = std::numeric_limits<double>::infinity();
    const auto network = mixed_network(5);
    const auto exact = shapley_values(network, x);
    // Stopped after a few words, it comes to its end, sweep by sweep.
    int runs = 0;
    for (bool is_finished = false; !is_finished; ++runs) {
        REQUIRE(runs < 100);
        int words = 0;
        double fraction = 0;
        options.progress = [&](const DistributedProgress& progress) {
            CHECK(progress.fraction >= fraction);
            CHECK(progress.fraction <= 1);
            fraction = progress.fraction;
            return ++words < 3 + runs;
        };
        try {
            const auto values = DistributedLayerValues{options, MPI_COMM_WORLD}.shapley(network, x);
            CHECK(is_same(values, exact));
            is_finished = true;
        } catch (const Cancelled&) {
        }
    }
    MPI_Barrier(ranks.get());
}

}  // namespace
