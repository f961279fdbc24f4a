// SPDX-License-Identifier: MIT
// What the reproduction of the paper computes from its runs.
#include "../examples/reproduction/lesions.hpp"

#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "../examples/common/spread.hpp"
#include "../examples/reproduction/curves.hpp"
#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;

TEST_CASE("lesions: errors with blocks removed, by hand", "[lesions]") {
    // Block l adds b_l to the difference of the two scores, which is to be above the threshold of
    // an image: the error counts the images that the sum of the blocks kept does not reach.
    using Block = StochasticDepth<Residual<Linear<float>>>;
    const std::vector<float> steps{8, 1, 4, 2};
    std::vector<Block> blocks;
    for (const float step : steps) {
        Linear<float> linear{Matrix<float>::Zero(2, 2), Vector<float>{{step, 0}}};
        blocks.emplace_back(Residual{std::move(linear)}, SurvivalProbability{0.5});
    }
    const Stack<Block> network{std::move(blocks)};
    constexpr Index images = 16;  // thresholds -0.5, -1.5, ..., -15.5
    Matrix<float> x = Matrix<float>::Zero(2, images);
    for (Index j = 0; j < images; ++j) x(0, j) = -0.5f - static_cast<float>(j);
    const Dataset<float> test{x, Eigen::VectorXi::Zero(images), 2};
    const auto error = [](float sum) { return (16.0 - static_cast<double>(sum)) / 16.0; };

    for (const unsigned threads : {1u, 2u}) {
        const auto found = reproduction::lesions(network, test, 20, 3, threads);
        CHECK(found.last ==
              std::vector<double>{error(15), error(13), error(9), error(8), error(0)});
        REQUIRE(found.random.size() == 20);
        std::set<std::vector<double>> different;
        for (const auto& order : found.random) {
            different.insert(order);
            REQUIRE(order.size() == 5);
            CHECK(order.front() == error(15));
            CHECK(order.back() == error(0));
            // One block after another goes, each once.
            std::multiset<double> removed;
            for (std::size_t k = 0; k < 4; ++k) removed.insert(16 * (order[k + 1] - order[k]));
            CHECK(removed == std::multiset<double>{1, 2, 4, 8});
        }
        CHECK(different.size() > 5);
        CHECK(reproduction::lesions(network, test, 20, 3, 1).random == found.random);
        CHECK(reproduction::lesions(network, test, 20, 4, 1).random != found.random);
    }
}

TEST_CASE("spread: mean and standard deviation of a sample", "[lesions]") {
    const common::Spread one = common::spread({3.0});
    CHECK(one.mean == 3.0);
    CHECK(one.deviation == 0.0);
    const common::Spread three = common::spread({1.0, 2.0, 6.0});
    CHECK(std::abs(three.mean - 3.0) <= 1e-15);
    CHECK(std::abs(three.deviation - std::sqrt(7.0)) <= 1e-15);
    CHECK(common::mean_and_deviation({2.0}, 1) == "2.0");
    CHECK(common::mean_and_deviation({1.0, 2.0, 6.0}, 2) == "3.00 +- 2.65");
}

TEST_CASE("curves: savings and means", "[lesions]") {
    CHECK(std::abs(reproduction::theoretical_saving({1.0, 0.75, 0.5}) - 0.25) <= 1e-15);
    CHECK(reproduction::theoretical_saving({1.0}) == 0.0);
    CHECK(std::abs(reproduction::time_saved({10.0, 30.0}, {15.0}) - 0.25) <= 1e-15);
    CHECK(reproduction::mean_curve({{1.0, 2.0, 9.0}, {3.0, 6.0}}) == std::vector<double>{2.0, 4.0});
}

}  // namespace
