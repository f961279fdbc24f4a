// SPDX-License-Identifier: MIT
#include <stochastic_depth/analysis/mask_histogram.hpp>

#include <cmath>
#include <cstddef>
#include <stdexcept>

#include <stochastic_depth/analysis/mask_distribution.hpp>
#include <stochastic_depth/expectation/mask_values.hpp>
#include <stochastic_depth/random/uniform.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/refusals.hpp"
#include "support/structures.hpp"

namespace {

using namespace stochastic_depth;
using test::refuses;

const auto first = [](const Matrix<double>& y) { return y(0, 0); };

/// Its bounds hold what the table says, and are no wider than a bin.
template <class Network>
void check_bounds(const Network& network, const Matrix<double>& x, Philox& random, Index bins) {
    const Eigen::VectorXd values = mask_values(network, x, first);
    const MaskDistribution exact(values, network.survival_probabilities());
    const double middle = values.mean(), spread = 1e-3 + values.maxCoeff() - values.minCoeff();
    MaskHistogramOptions options{.lowest = middle - 0.4 * spread,
                                 .highest = middle + 0.6 * spread,
                                 .bins = bins};
    const MaskHistogram found = mask_histogram(network, x, first, options);
    CHECK(std::abs(found.probabilities.sum() - 1) <= found.probability_error);
    CHECK(found.probability_error < 1e-12);
    for (Index k = 0; k < found.edges.size(); ++k) {
        const double below = exact(std::nextafter(found.edges(k), -1e9));
        CHECK(std::abs(found.probabilities.head(k + 1).sum() - below) < 1e-13);
    }
    for (int k = 0; k < 20; ++k) {
        const double u = uniform<double>(random), quantile = exact.quantile(u);
        const auto [least, most] = found.quantile(u);
        CHECK(least <= quantile);
        CHECK(quantile <= most);
        const double y = uniform<double>(random, options.lowest - 1, options.highest + 1);
        const auto [lower, upper] = found.distribution(y);
        CHECK(lower <= exact(y));
        CHECK(exact(y) <= upper);
    }
    options.threads = 3;
    CHECK(test::same_bits(mask_histogram(network, x, first, options).probabilities,
                          found.probabilities));
}

TEST_CASE("mask_histogram: what the table of all masks says, up to a bin", "[mask_histogram]") {
    Philox random{71};
    for (std::size_t trial = 0; trial < 40; ++trial) {
        const auto network = plain::to_library<plain::OneLinear<double, Tanh<double>>>(
            plain::random_network(random, {trial % 10, 4, 1, plain::Activation::tanh, true}));
        check_bounds(network, test::random_matrix<double>(random, 3, 1), random,
                     trial % 3 == 0 ? 1 : 50);
    }
    test::Structures make{72};
    check_bounds(make.nested(), test::random_matrix<double>(random, 5, 2), random, 20);
}

TEST_CASE("mask_histogram: by hand, with values on the edges and none without probability",
          "[mask_histogram]") {
    // y = x + 1 with p = 1/4, and x + 1 with p = 1: from 0, it is 1 or 2.
    const Linear<double> one{Matrix<double>::Zero(1, 1), Eigen::VectorXd::Ones(1)};
    const Sequential network{StochasticDepth{Residual{one}, SurvivalProbability{0.25}},
                             StochasticDepth{Residual{one}, SurvivalProbability{1.0}}};
    const Matrix<double> x = Matrix<double>::Zero(1, 1);
    const auto score = [](const Matrix<double>& y) { return y(0, 0) == 0 ? test::nan : y(0, 0); };
    const MaskHistogram found =
        mask_histogram(network, x, score, {.lowest = 0, .highest = 2, .bins = 2});
    CHECK(test::same_bits(found.edges, Eigen::VectorXd{{0, 1, 2}}));
    CHECK(test::same_bits(found.probabilities, Eigen::VectorXd{{0, 0, 0.75, 0.25}}));
    CHECK(found.quantile(0.5).least == 1);
    CHECK(found.quantile(0.5).most == 2);
    CHECK(found.quantile(0.75).most == test::inf);  // the sum may be short of it
    CHECK(found.quantile(0.8).least == 2);
    CHECK(found.distribution(0.5).most < 1e-14);
    CHECK(found.distribution(2).least > 0.75 - 1e-14);
    CHECK(found.distribution(2).most == 1);
}

TEST_CASE("mask_histogram: what it refuses", "[mask_histogram]") {
    Philox random{73};
    const auto network = plain::to_library<plain::OneLinear<double, Tanh<double>>>(
        plain::random_network(random, {4, 4, 1, plain::Activation::tanh, true}));
    const Matrix<double> x = Matrix<double>::Ones(3, 2);
    refuses([&] { (void)mask_histogram(network, x, first, {.threads = 0}); },
            {"mask_histogram: threads must be at least 1, got 0"});
    refuses([&] { (void)mask_histogram(network, x, first, {.bins = 0}); },
            {"mask_histogram: bins must be at least 1, got 0"});
    for (const double highest : {0.0, -1.0, test::nan, test::inf})
        refuses([&] { (void)mask_histogram(network, x, first, {.highest = highest}); },
                {"mask_histogram: highest must be above lowest, both finite, got "});
    refuses([&] { (void)mask_histogram(network, x.topRows(1), first, {}); },
            {"Linear: input must have 3 rows", "got 1"});
    refuses<std::length_error>(
        [&] { (void)mask_histogram(network, x, first, {.max_layer_evaluations = 14}); },
        {"mask_histogram: depth 4 takes 15 layer evaluations"});
    const auto none = [](const Matrix<double>&) { return test::nan; };
    refuses([&] { (void)mask_histogram(network, x, none, {}); },
            {"mask_histogram: score must be a number, got nan"});
    CHECK_THROWS_AS(
        mask_histogram(network, x, first, {.progress = [](double) { return false; }}), Cancelled);
    const MaskHistogram found = mask_histogram(network, x, first, {});
    for (const double u : {0.0, 1.0, test::nan})
        refuses([&] { (void)found.quantile(u); }, {"MaskHistogram: u must lie in (0, 1), got "});
    refuses([&] { (void)found.distribution(test::nan); },
            {"MaskHistogram: y must be a number, got nan"});
}

}  // namespace
