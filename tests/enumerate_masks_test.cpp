// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/enumerate_masks.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/probe_layers.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using plain::Activation;
using Branch = plain::OneLinear<double, ReLU<double>>;

TEST_CASE("enumerate_masks: from all kept to all skipped, the last layer changing fastest",
          "[enumerate_masks]") {
    Philox random{1};
    for (const std::size_t depth : {0u, 1u, 2u, 3u, 7u}) {
        const auto network = plain::to_blocks<Branch>(
            plain::random_network(random, {depth, 3, 1, Activation::relu, false}));
        const auto rows = enumerate_masks(network, Eigen::MatrixXd(Eigen::MatrixXd::Ones(3, 2)));
        REQUIRE(rows.size() == std::size_t{1} << depth);
        CHECK(rows.front().mask == SurvivalMask::all(static_cast<Index>(depth)));
        CHECK(rows.back().mask == SurvivalMask::none(static_cast<Index>(depth)));
        for (std::size_t k = 0; k < rows.size(); ++k) {
            // As a binary number with s_1 in front, the mask counts down.
            std::size_t number = 0;
            for (Index l = 0; l < rows[k].mask.size(); ++l)
                number = 2 * number + static_cast<std::size_t>(rows[k].mask[l]);
            CHECK(number == rows.size() - 1 - k);
        }
    }
}

TEST_CASE("enumerate_masks: probabilities are P(S) and sum to 1", "[enumerate_masks]") {
    Philox random{2};
    for (const std::size_t depth : {0u, 1u, 5u, 12u}) {
        const auto plain_network =
            plain::random_network(random, {depth, 1, 1, Activation::relu, false});
        const auto network = plain::to_blocks<Branch>(plain_network);
        const auto rows = enumerate_masks(network, Eigen::MatrixXd(Eigen::MatrixXd::Ones(1, 1)));
        long double sum = 0;
        for (std::size_t k = 0; k < rows.size(); ++k) {
            std::uint64_t mask = 0;
            for (Index l = 0; l < rows[k].mask.size(); ++l)
                mask |= static_cast<std::uint64_t>(rows[k].mask[l]) << l;
            const long double expected = plain_network.probability(mask);
            CHECK(std::abs(rows[k].probability - expected) <= 1e-14L * expected);
            sum += rows[k].probability;
        }
        CHECK(std::abs(sum - 1) <= 1e-14L);
    }
}

TEST_CASE("enumerate_masks: masks of probability 0 are among them", "[enumerate_masks]") {
    Philox random{3};
    auto plain_network = plain::random_network(random, {3, 2, 1, Activation::relu, false});
    plain_network.blocks[1].p = 1;
    const auto rows = enumerate_masks(plain::to_blocks<Branch>(plain_network),
                                      Eigen::MatrixXd(Eigen::MatrixXd::Ones(2, 1)));
    REQUIRE(rows.size() == 8);
    for (const auto& row : rows) CHECK((row.probability == 0) == !row.mask[1]);
}

TEST_CASE("enumerate_masks: outputs are the masked forward passes, and those the plain loops",
          "[enumerate_masks]") {
    Philox random{4};
    const auto plain_network = plain::random_network(random, {6, 9, 2, Activation::tanh, true});
    const auto network = plain::to_library<plain::TwoLinears<double, Tanh<double>>>(plain_network);
    const auto x = test::random_matrix<double>(random, 3, 4);
    for (const auto& row : enumerate_masks(network, x)) {
        CHECK(test::same_bits(row.output, network(x, row.mask)));
        std::uint64_t mask = 0;
        for (Index l = 0; l < 6; ++l) mask |= static_cast<std::uint64_t>(row.mask[l]) << l;
        for (Index j = 0; j < x.cols(); ++j) {
            const auto expected = plain_network(plain::column(x, j), mask);
            const long double scale = std::max(std::abs(expected[0]), std::abs(expected[1]));
            for (std::size_t i = 0; i < 2; ++i)
                CHECK(std::abs(row.output(static_cast<Index>(i), j) - expected[i]) <=
                      1e-13L * scale);
        }
    }
}

TEST_CASE("enumerate_masks: a skipped layer leaks no NaN", "[enumerate_masks]") {
    const Sequential network{
        StochasticDepth{probe::NotANumber{}, SurvivalProbability{0.5}},
        StochasticDepth{Sequential{Tanh<double>{},
                                   StochasticDepth{probe::NotANumber{}, SurvivalProbability{0.5}}},
                        SurvivalProbability{0.5}}};
    for (const auto& row : enumerate_masks(network, Eigen::MatrixXd(Eigen::MatrixXd::Ones(2, 3)))) {
        const bool reached = row.mask[0] || (row.mask[1] && row.mask[2]);
        CHECK(row.output.array().isNaN().all() == reached);
        CHECK(row.output.allFinite() == !reached);
    }
}

TEST_CASE("enumerate_masks: more than 24 layers are refused before any work", "[enumerate_masks]") {
    std::atomic<long> columns{0};
    for (const std::size_t depth : {25u, 64u, 300u}) {
        const Stack network{std::vector<StochasticDepth<probe::Counted>>(
            depth, {probe::Counted{&columns}, SurvivalProbability{0.5}})};
        const std::string message = thrown<std::length_error>(
            [&] { (void)enumerate_masks(network, Eigen::MatrixXd::Ones(2, 3)); });
        INFO(message);
        CHECK(holds(message, "enumerate_masks", "24", std::to_string(depth), "ExactExpectation",
                    "MonteCarloExpectation"));
        CHECK(columns == 0);
    }
}

}  // namespace
