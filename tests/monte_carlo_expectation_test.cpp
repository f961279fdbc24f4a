// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <limits>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/probe_layers.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using plain::Activation;
using test::random_matrix;
using test::same_bits;

/// A network with a stem of 3 inputs and a head of 2 outputs.
template <class Scalar = double>
auto random_network(Philox& random, std::size_t depth, std::size_t width) {
    return plain::to_library<plain::OneLinear<Scalar, ReLU<Scalar>>>(
        plain::random_network(random, {depth, width, 1, Activation::relu, true}));
}

/// Evaluations if masks share what they have in common: different beginnings that end in a kept
/// layer.
double distinct_kept_prefixes(const SurvivalMasks& masks) {
    std::set<std::string> prefixes;
    for (Index j = 0; j < masks.batch_size(); ++j) {
        std::string prefix;
        for (Index l = 0; l < masks.depth(); ++l) {
            prefix += masks(l, j) ? '1' : '0';
            if (masks(l, j)) prefixes.insert(prefix);
        }
    }
    return static_cast<double>(prefixes.size());
}

template <class Network, class Scalar>
void check_against_loop(const Network& network, const Matrix<Scalar>& x, Index samples,
                        std::uint64_t seed) {
    const auto estimate = MonteCarloExpectation{{.samples = samples, .seed = seed}}(network, x);
    const SurvivalMasks masks =
        MaskSampler{network.survival_probabilities(), seed}.sample(0, samples);
    using LongArray = Eigen::Array<long double, Eigen::Dynamic, Eigen::Dynamic>;
    LongArray mean = LongArray::Zero(estimate.mean.rows(), x.cols()), squares = mean;
    const auto count = static_cast<long double>(samples);
    const auto output = [&](Index k) {
        return LongArray(network(x, masks.mask(k)).template cast<long double>());
    };
    for (Index k = 0; k < samples; ++k) mean += output(k) / count;
    for (Index k = 0; k < samples; ++k) squares += (output(k) - mean).square();
    CHECK(estimate.layer_evaluations == distinct_kept_prefixes(masks));
    CHECK(estimate.samples == samples);
    CHECK(estimate.degrees_of_freedom == static_cast<double>(samples - 1));
    for (Index j = 0; j < x.cols(); ++j) {
        const long double size = mean.col(j).abs().maxCoeff();
        for (Index i = 0; i < mean.rows(); ++i) {
            const long double variance = squares(i, j) / (count - 1);
            CHECK(std::abs(estimate.mean(i, j) - mean(i, j)) <= 1e-12L * size);
            CHECK(std::abs(estimate.variance(i, j) - variance) <=
                  1e-12L * (variance + size * size));
            CHECK(std::abs(estimate.standard_error(i, j) - std::sqrt(variance / count)) <=
                  1e-12L * size);
        }
    }
}

TEST_CASE("MonteCarloExpectation: a plain loop over the sampler's masks gives the same",
          "[monte_carlo_expectation]") {
    Philox random{1};
    const auto network = random_network(random, 7, 9);
    // Below, at and above what passes the network at once; fewer samples than the runs they are
    // split in.
    const struct {
        Index batch, samples;
    } cases[] = {{1, 2},   {1, 5},   {1, 100}, {1, 3000}, {5, 37},
                 {48, 33}, {96, 20}, {97, 20}, {200, 17}};
    std::uint64_t seed = 10;
    for (const auto& row : cases) {
        INFO("batch " << row.batch << ", samples " << row.samples);
        check_against_loop(network, random_matrix<double>(random, 3, row.batch), row.samples,
                           seed++);
    }
}

TEST_CASE("MonteCarloExpectation: within five standard errors of the exact mean",
          "[monte_carlo_expectation]") {
    // 3 networks x 8 entries beyond 5 sigma: once in 7e4 choices of seeds.
    for (const std::uint32_t seed : {1u, 2u, 3u}) {
        Philox random{seed};
        const auto network = random_network(random, 8, 10);
        const auto x = random_matrix<double>(random, 3, 4);
        const auto exact = ExactExpectation{}(network, x);
        constexpr Index samples = 20'000;
        const auto estimate = MonteCarloExpectation{{.samples = samples, .seed = seed}}(network, x);
        for (Index j = 0; j < 4; ++j)
            for (Index i = 0; i < 2; ++i) {
                const double sigma = std::sqrt(exact.variance(i, j) / static_cast<double>(samples));
                REQUIRE(sigma > 0);
                CHECK(std::abs(estimate.mean(i, j) - exact.mean(i, j)) <= 5 * sigma);
            }
    }
}

TEST_CASE(
    "MonteCarloExpectation: mean and variance are unbiased and the standard error is honest, over "
    "400 seeds",
    "[monte_carlo_expectation]") {
    Philox random{4};
    auto plain_network = plain::random_network(random, {6, 5, 1, Activation::relu, true});
    for (std::size_t l = 0; l < 6; ++l)
        plain_network.blocks[l].p = 0.4 + 0.1 * static_cast<double>(l);
    const auto network = plain::to_library<plain::OneLinear<double, ReLU<double>>>(plain_network);
    const auto x = random_matrix<double>(random, 3, 1);

    const auto input = plain::column(x, 0);
    const plain::Moments exact =
        plain_network.moments(input, [](const std::vector<long double>& y) { return y; });
    const plain::Moments fourth = plain_network.moments(input, [&](std::vector<long double> y) {
        for (std::size_t i = 0; i < y.size(); ++i) y[i] = std::pow(y[i] - exact.mean[i], 4);
        return y;
    });

    constexpr int seeds = 400;
    constexpr Index samples = 64;
    constexpr double n = samples;
    for (std::size_t i = 0; i < 2; ++i) {
        const auto mean = static_cast<double>(exact.mean[i]);
        const auto variance = static_cast<double>(exact.variance[i]);
        const auto mu4 = static_cast<double>(fourth.mean[i]);
        REQUIRE(variance > 0);
        double sum_z = 0, sum_z2 = 0, sum_t2 = 0, sum_variance = 0;
        for (int seed = 1; seed <= seeds; ++seed) {
            const auto estimate = MonteCarloExpectation{
                {.samples = samples, .seed = static_cast<std::uint64_t>(seed)}}(network, x);
            const auto row = static_cast<Index>(i);
            const double error = estimate.mean(row, 0) - mean;
            const double z = error / std::sqrt(variance / n);
            const double t = error / estimate.standard_error(row, 0);
            sum_z += z;
            sum_z2 += z * z;
            sum_t2 += t * t;
            sum_variance += estimate.variance(row, 0);
        }
        INFO("output " << i << ": mean z " << sum_z / seeds << ", z^2 " << sum_z2 / seeds
                       << ", t^2 " << sum_t2 / seeds << ", variance " << sum_variance / seeds
                       << " of " << variance);
        // Each line below fails for once in 1e5 choices of seeds at most: 5 sigma, with a right
        // tail that is a little heavier than the normal one for the squares.
        CHECK(std::abs(sum_z / seeds) <= 5 / std::sqrt(seeds));
        const double kurtosis_of_mean = 3 + (mu4 / (variance * variance) - 3) / n;
        CHECK(std::abs(sum_z2 / seeds - 1) <= 5 * std::sqrt((kurtosis_of_mean - 1) / seeds));
        // Student's t of 63 degrees of freedom has variance 63/61, and its square a sigma of 1.5.
        CHECK(std::abs(sum_t2 / seeds - 63.0 / 61.0) <= 5 * 1.5 / std::sqrt(seeds));
        const double variance_of_variance = (mu4 - variance * variance * (n - 3) / (n - 1)) / n;
        CHECK(std::abs(sum_variance / seeds - variance) <=
              5 * std::sqrt(variance_of_variance / seeds));
    }
}

TEST_CASE("MonteCarloExpectation: the standard error is sqrt(variance / samples)",
          "[monte_carlo_expectation]") {
    Philox random{5};
    const auto estimate = MonteCarloExpectation{{.samples = 25, .seed = 3}}(
        random_network(random, 5, 4), random_matrix<double>(random, 3, 6));
    CHECK((estimate.variance.array() > 0).all());
    for (Index k = 0; k < estimate.variance.size(); ++k)
        CHECK(std::abs(estimate.standard_error.data()[k] -
                       std::sqrt(estimate.variance.data()[k] / 25)) <=
              1e-15 * estimate.standard_error.data()[k]);
}

TEST_CASE("MonteCarloExpectation: a single sample tells no variance", "[monte_carlo_expectation]") {
    Philox random{6};
    const auto network = random_network(random, 5, 4);
    const auto x = random_matrix<double>(random, 3, 2);
    const auto estimate = MonteCarloExpectation{{.samples = 1, .seed = 9}}(network, x);
    CHECK(same_bits(estimate.mean,
                    network(x, MaskSampler{network.survival_probabilities(), 9}.sample(0))));
    CHECK(estimate.variance.array().isNaN().all());
    CHECK(estimate.standard_error.array().isNaN().all());
}

TEST_CASE("MonteCarloExpectation: same bits for 1, 2, 3 and 8 threads",
          "[monte_carlo_expectation]") {
    Philox random{7};
    const auto check = [](const auto& network, const auto& x, Index samples) {
        const auto one = MonteCarloExpectation{{.samples = samples, .seed = 2}}(network, x);
        for (const unsigned threads : {2u, 3u, 8u}) {
            INFO("threads " << threads << ", batch " << x.cols() << ", samples " << samples);
            const auto many = MonteCarloExpectation{
                {.samples = samples, .seed = 2, .threads = threads}}(network, x);
            CHECK(same_bits(many.mean, one.mean));
            CHECK(same_bits(many.variance, one.variance));
            CHECK(same_bits(many.standard_error, one.standard_error));
            CHECK(many.layer_evaluations == one.layer_evaluations);
        }
    };
    const auto network = random_network(random, 6, 7);
    const auto single = random_network<float>(random, 6, 7);
    // 800 columns are enough blocks for 2 threads to share these; below, they share the samples.
    for (const Index batch : {1, 7, 97, 800})
        for (const Index samples : {2, 15, 40}) {
            check(network, random_matrix<double>(random, 3, batch), samples);
            check(single, random_matrix<float>(random, 3, batch), samples);
        }
}

TEST_CASE("MonteCarloExpectation: a column has the same bits alone and in a batch",
          "[monte_carlo_expectation]") {
    Philox random{8};
    const auto check = [](const auto& network, const auto& x) {
        const MonteCarloExpectation sampled{{.samples = 41, .seed = 12}};
        const auto together = sampled(network, x);
        for (Index j = 0; j < x.cols(); ++j) {
            INFO("column " << j << " of " << x.cols());
            const auto alone = sampled(network, x.col(j));
            CHECK(same_bits(alone.mean, together.mean.col(j)));
            CHECK(same_bits(alone.variance, together.variance.col(j)));
            CHECK(same_bits(alone.standard_error, together.standard_error.col(j)));
        }
    };
    for (const Index batch : {2, 3, 29, 130}) {
        check(random_network(random, 5, 6), random_matrix<double>(random, 3, batch));
        check(random_network<float>(random, 5, 6), random_matrix<float>(random, 3, batch));
    }
    SECTION("with outputs of every height") {
        for (const std::size_t width : {1u, 3u, 8u, 11u}) {
            const auto network = plain::to_blocks<plain::OneLinear<double, ReLU<double>>>(
                plain::random_network(random, {4, width, 1, Activation::relu, false}));
            check(network, random_matrix<double>(random, static_cast<Index>(width), 13));
        }
    }
}

TEST_CASE("MonteCarloExpectation: a layer runs once for each prefix of masks that keeps it",
          "[monte_carlo_expectation]") {
    std::atomic<long> columns{0};
    std::vector<StochasticDepth<probe::Counted>> layers;
    for (const double p : {0.9, 0.5, 0.2, 1.0, 0.7, 0.5})
        layers.emplace_back(probe::Counted{&columns}, SurvivalProbability{p});
    const Stack network{layers};
    for (const Index batch : {1, 5, 100}) {
        columns = 0;
        const auto estimate = MonteCarloExpectation{{.samples = 50, .seed = 3, .threads = 2}}(
            network, Eigen::MatrixXd::Ones(2, batch));
        const SurvivalMasks masks = MaskSampler{network.survival_probabilities(), 3}.sample(0, 50);
        const double evaluations = distinct_kept_prefixes(masks);
        CHECK(estimate.layer_evaluations == evaluations);
        CHECK(static_cast<double>(columns) == evaluations * static_cast<double>(batch));
    }
}

TEST_CASE("MonteCarloExpectation: layers inside a skipped layer are not counted as evaluated",
          "[monte_carlo_expectation]") {
    std::atomic<long> columns{0};
    const auto counted = [&](double p) {
        return StochasticDepth{probe::Counted{&columns}, SurvivalProbability{p}};
    };
    // The outer layer does nothing by itself, so that every evaluation of an inner one is counted.
    const Sequential network{counted(0.5), StochasticDepth{Sequential{counted(0.7), counted(0.6)},
                                                           SurvivalProbability{0.4}}};
    const auto estimate =
        MonteCarloExpectation{{.samples = 200, .seed = 5}}(network, Eigen::MatrixXd::Ones(2, 1));
    // With 200 masks, the outer layer is kept after either beginning.
    CHECK(estimate.layer_evaluations == static_cast<double>(columns + 2));
    // 1; 2; 2 x (1 + 2).
    CHECK(estimate.layer_evaluations == 9);
}

TEST_CASE("MonteCarloExpectation: with p = 1 the exact, the sampled and the scaled answer are one",
          "[monte_carlo_expectation]") {
    Philox random{9};
    auto plain_network = plain::random_network(random, {9, 6, 1, Activation::relu, true});
    for (plain::Block& block : plain_network.blocks) block.p = 1;
    const auto check = [&](const auto& network, const auto& x) {
        const auto exact = ExactExpectation{}(network, x);
        const auto sampled = MonteCarloExpectation{{.samples = 21}}(network, x);
        CHECK(same_bits(exact.mean, network(x, SurvivalMask::all(9))));
        CHECK(same_bits(sampled.mean, exact.mean));
        CHECK(same_bits(WeightScaling{}(network, x).mean, exact.mean));
        CHECK((exact.variance.array() == 0).all());
        CHECK((sampled.variance.array() == 0).all());
        CHECK((sampled.standard_error.array() == 0).all());
        CHECK(exact.layer_evaluations == 9.0);
        CHECK(sampled.layer_evaluations == 9.0);
    };
    check(plain::to_library<plain::OneLinear<double, ReLU<double>>>(plain_network),
          random_matrix<double>(random, 3, 5));
    check(plain::to_library<plain::OneLinear<float, ReLU<float>>>(plain_network),
          random_matrix<float>(random, 3, 5));
}

TEST_CASE("MonteCarloExpectation: networks without layers to skip, and batches without samples",
          "[monte_carlo_expectation]") {
    Philox random{10};
    const auto network = random_network(random, 0, 4);
    const auto x = random_matrix<double>(random, 3, 5);
    const auto estimate = MonteCarloExpectation{{.samples = 8}}(network, x);
    CHECK(same_bits(estimate.mean, network(x, SurvivalMask{})));
    CHECK((estimate.variance.array() == 0).all());
    CHECK(estimate.layer_evaluations == 0.0);
    const auto empty = MonteCarloExpectation{}(random_network(random, 3, 4), Eigen::MatrixXd(3, 0));
    CHECK(empty.mean.rows() == 2);
    CHECK(empty.mean.cols() == 0);
    CHECK(empty.standard_error.cols() == 0);
}

TEST_CASE(
    "MonteCarloExpectation: an exception of a user's layer arrives from any thread, and does no harm",
    "[monte_carlo_expectation]") {
    std::atomic<long> calls_left{0};
    const std::vector<StochasticDepth<probe::Failing>> layers(
        6, {probe::Failing{&calls_left}, SurvivalProbability{0.7}});
    const Stack network{layers};
    const Eigen::MatrixXd x = Eigen::MatrixXd::Ones(3, 50);
    const auto expected = MonteCarloExpectation{{.samples = 64}}(network, x);
    for (const unsigned threads : {1u, 2u, 8u}) {
        const MonteCarloExpectation sampled{{.samples = 64, .threads = threads}};
        for (const long call : {1l, 3l, 6l}) {
            calls_left = call;
            CHECK(thrown<std::domain_error>([&] { (void)sampled(network, x); }) ==
                  "the user's layer failed");
        }
        calls_left = 0;
        CHECK(same_bits(sampled(network, x).mean, expected.mean));
    }
}

TEST_CASE("MonteCarloExpectation: a budget is used up to the last mask that fits, and no further",
          "[monte_carlo_expectation]") {
    Philox random{12};
    const auto network = random_network(random, 9, 4);
    const auto x = random_matrix<double>(random, 3, 2);
    const auto draw = [&](Index samples, double budget, bool in_rounds) {
        MonteCarloExpectationOptions options{.samples = samples, .max_layer_evaluations = budget};
        if (in_rounds) options.progress = [](double) { return true; };
        return MonteCarloExpectation{options}(network, x);
    };
    const double unlimited = std::numeric_limits<double>::infinity();
    std::vector<double> evaluations{0, 0};
    for (Index samples = 2; samples <= 60; ++samples)
        evaluations.push_back(draw(samples, unlimited, false).layer_evaluations);
    for (std::size_t most = 2; most + 1 < evaluations.size(); ++most)
        for (const double more : {0.0, 0.5}) {
            const double budget = evaluations[most] + more;
            CAPTURE(most, budget);
            // The search may leave a hundredth unused: nothing of so few.
            std::size_t fitting = most;
            while (fitting + 1 < evaluations.size() && evaluations[fitting + 1] <= budget)
                ++fitting;
            if (fitting + 1 == evaluations.size()) continue;
            const auto answer = draw(1000, budget, false);
            CHECK(answer.samples == static_cast<Index>(fitting));
            CHECK(answer.layer_evaluations == evaluations[fitting]);
        }
    for (double budget = 20; budget < 3000; budget *= 1.07) {
        CAPTURE(budget);
        const auto answer = draw(1000, budget, true);
        CHECK(answer.samples >= 2);
        CHECK(answer.layer_evaluations <= budget);
    }
}

}  // namespace
