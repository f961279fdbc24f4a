// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/dense/linear.hpp>

#include <tuple>

#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"

namespace {

using namespace stochastic_depth;
using test::largest_difference;
using test::random_matrix;
using test::same_bits;

TEST_CASE("Linear: threads that share a gradient add each part of it once", "[linear]") {
    // Wide enough that the threads are called, for the first layer (dW and db) as for the second
    // (dx too); widths that no packet divides.
    Philox random{1};
    const Index inputs = 301, hidden = 131, outputs = 67, batch = 71;
    using Network = Sequential<Linear<double>, Linear<double>>;
    const Network network{Linear<double>{inputs, hidden, random, 1.0},
                          Linear<double>{hidden, outputs, random, 1.0}};
    const Matrix<double> x = random_matrix<double>(random, inputs, batch);
    const Matrix<double> targets = random_matrix<double>(random, outputs, batch);

    const auto& [first, second] = network.layers();
    const MeanSquaredError<double> loss;
    const Matrix<double> z = (first.weights() * x).colwise() + first.bias();
    const Matrix<double> y = (second.weights() * z).colwise() + second.bias();
    Matrix<double> dy(outputs, batch);
    (void)loss.value_and_gradient(y, targets, dy);
    const Matrix<double> dz = second.weights().transpose() * dy;

    TrainingStep alone{network, loss, {.threads = 1}};
    (void)alone.differentiate(network, x, targets, 0);
    const auto& [of_first, of_second] = alone.gradient().layers;
    const double tolerance = 1e-12;
    CHECK(largest_difference(of_second.bias, dy.rowwise().sum()) <= tolerance);
    CHECK(largest_difference(of_second.weights, dy * z.transpose()) <= tolerance);
    CHECK(largest_difference(of_first.bias, dz.rowwise().sum()) <= tolerance);
    CHECK(largest_difference(of_first.weights, dz * x.transpose()) <= tolerance);
    REQUIRE(of_first.bias.cwiseAbs().minCoeff() > 1e3 * tolerance);
    REQUIRE(of_second.bias.cwiseAbs().minCoeff() > 1e3 * tolerance);

    for (const unsigned threads : {2u, 3u, 7u}) {
        CAPTURE(threads);
        TrainingStep shared{network, loss, {.threads = threads}};
        (void)shared.differentiate(network, x, targets, 0);
        const auto& [first_shared, second_shared] = shared.gradient().layers;
        CHECK(same_bits(second_shared.bias, of_second.bias));
        CHECK(same_bits(second_shared.weights, of_second.weights));
        CHECK(same_bits(first_shared.bias, of_first.bias));
        CHECK(same_bits(first_shared.weights, of_first.weights));
    }
}

}  // namespace
