// SPDX-License-Identifier: MIT
#include <cmath>
#include <cstddef>
#include <vector>

#include <stochastic_depth/expectation/enumerate_masks.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/recorded_pass.hpp"

namespace {

using namespace stochastic_depth;
using test::largest_difference;
using test::parameters;
using test::random_matrix;

TEST_CASE(
    "Trainer: the mean stochastic gradient over all masks is the gradient of the expected loss",
    "[expected_loss_gradient]") {
    Philox random{22};
    // Smooth branches, one of them around a layer that may be skipped itself, and a shortcut of its
    // own.
    const auto block = [&](Index width, double p) {
        return StochasticDepth{
            Residual{Sequential{Linear<double>{width, width, random}, Tanh<double>{}}},
            SurvivalProbability{p}};
    };
    Sequential network{
        block(3, 0.8),
        StochasticDepth{Residual{Sequential{Linear<double>{3, 3, random}, block(3, 0.3)}},
                        SurvivalProbability{0.6}},
        StochasticDepth{Residual{Sequential{Linear<double>{3, 2, random}, Tanh<double>{}},
                                 Linear<double>{3, 2, random}},
                        SurvivalProbability{0.45}}};
    using Network = decltype(network);
    constexpr Index depth = 4, batch = 3;
    REQUIRE(network.depth() == depth);
    const auto x = random_matrix<double>(random, 3, batch);
    const auto t = random_matrix<double>(random, 2, batch);
    const MeanSquaredError<double> loss;

    test::RecordedPass<Network> pass;
    Eigen::VectorXd mean = Eigen::VectorXd::Zero(parameters(network).size());
    const auto rows = enumerate_masks(network, x);
    for (const auto& row : rows) {
        auto gradient = network.zero_gradient();
        Matrix<double> h = x;
        pass.forward(network, h, detail::MaskView{row.mask});
        CHECK(largest_difference(h, row.output) <= 1e-14);
        Matrix<double> d(2, batch);
        (void)loss.value_and_gradient(h, t, d);
        pass.backward(network, d, gradient);
        mean += row.probability * test::slopes(network, gradient);
    }

    // Central differences with h = 1e-5: about h^2 = 1e-10 from the third derivative, and 1e-16 / h
    // = 1e-11 from rounding.
    const auto expected_loss = [&] {
        double sum = 0;
        for (const auto& row : enumerate_masks(network, x))
            sum += row.probability * loss.value(row.output, t);
        return sum;
    };
    Index at = 0;
    test::for_each_parameter(network, [&](double& parameter) {
        const double value = parameter;
        parameter = value + 1e-5;
        const double above = expected_loss();
        parameter = value - 1e-5;
        const double below = expected_loss();
        parameter = value;
        INFO("parameter " << at);
        CHECK(std::abs((above - below) / 2e-5 - mean(at)) <= 2e-9);
        ++at;
    });
    CHECK(mean.cwiseAbs().minCoeff() > 0);

    SECTION("and one pass with a mask for each sample has the sum of these gradients") {
        std::vector<SurvivalMask> masks;
        for (const auto& row : rows)
            for (Index j = 0; j < batch; ++j) masks.push_back(row.mask);
        const auto all = SurvivalMasks::from_masks(masks);
        auto gradient = network.zero_gradient();
        Matrix<double> h = x.replicate(1, 16);
        pass.forward(network, h, detail::MaskView{all});
        Matrix<double> d(2, 16 * batch);
        (void)loss.value_and_gradient(h, t.replicate(1, 16), d);
        // Each mask with its probability in place of the mean's 1/16.
        for (Index k = 0; k < 16; ++k)
            d.middleCols(k * batch, batch) *= 16 * rows[static_cast<std::size_t>(k)].probability;
        pass.backward(network, d, gradient);
        CHECK(largest_difference(test::slopes(network, gradient), mean) <= 1e-14);
    }
}

}  // namespace
