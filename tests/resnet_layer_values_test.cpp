// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/exact_sensitivity.hpp>
#include <stochastic_depth/expectation/layer_values.hpp>
#include <stochastic_depth/models/resnet.hpp>

#include <algorithm>

#include <stochastic_depth/expectation/enumerate_masks.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// k! (n - 1 - k)! / n!
double shapley_weight(Index k, Index n) {
    double weight = 1 / static_cast<double>(n);
    for (Index i = 1; i <= k; ++i) weight *= static_cast<double>(i) / static_cast<double>(n - i);
    return weight;
}

TEST_CASE("resnet: what its blocks contribute is the sum over all masks", "[resnet]") {
    for (const Index depth : {8, 14}) {
        Philox random{1};
        const auto network = resnet<double>(
            {.input = {2, 5, 6}, .depth = depth, .classes = 3, .channels = 2}, random);
        const Matrix<double> x = random_matrix<double>(random, 60, 2);
        const auto sensitivities = ExactSensitivity{}(network, x);
        const auto shapley = shapley_values(network, x), banzhaf = banzhaf_values(network, x);
        const auto rows = enumerate_masks(network, x);
        const Eigen::VectorXd p = network.survival_probabilities();
        const Index n = network.depth();
        double largest = 0;
        for (Index l = 0; l < n; ++l) {
            Matrix<double> slope = Matrix<double>::Zero(3, 2), value = slope, mean = slope;
            for (const auto& row : rows) {
                const double sign = row.mask[l] ? 1 : -1;
                Index others = 0;
                for (Index m = 0; m < n; ++m) others += m != l && row.mask[m];
                slope += sign * row.probability / (row.mask[l] ? p(l) : 1 - p(l)) * row.output;
                value += sign * shapley_weight(others, n) * row.output;
                mean += sign / static_cast<double>(Index{1} << (n - 1)) * row.output;
            }
            CAPTURE(depth, l);
            CHECK(largest_difference(sensitivities.by_layer.of(l), slope) <= 1e-12);
            CHECK(largest_difference(shapley.value.of(l), value) <= 1e-12);
            CHECK(largest_difference(banzhaf.value.of(l), mean) <= 1e-12);
            largest = std::max(largest, value.cwiseAbs().maxCoeff());
        }
        CHECK(largest > 0.01);
    }
}

}  // namespace
