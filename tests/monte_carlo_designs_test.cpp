// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/layers/function.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using Options = MonteCarloExpectationOptions;
using test::random_matrix;
using test::same_bits;

constexpr auto none = ControlVariates::none;
constexpr auto mask_bits = ControlVariates::mask_bits;

template <class Scalar = double>
auto network_with(const std::vector<double>& p, std::uint32_t seed) {
    Philox random{seed};
    auto network = plain::random_network(random, {p.size(), 4, 1, plain::Activation::tanh, true});
    for (std::size_t l = 0; l < p.size(); ++l) network.blocks[l].p = p[l];
    return plain::to_library<plain::OneLinear<Scalar, Tanh<Scalar>>>(network);
}

std::vector<Options> every_kind() {
    std::vector<Options> kinds;
    for (const auto design : {MaskDesign::independent, MaskDesign::antithetic,
                              MaskDesign::stratified, MaskDesign::lattice})
        for (const auto control : {none, mask_bits})
            for (const Index enumerated : {0, 2})
                for (const Index groups : {0, 4})
                    if (groups == 0 || design == MaskDesign::stratified ||
                        design == MaskDesign::lattice)
                        kinds.push_back({.samples = 48,
                                         .design = design,
                                         .groups = groups,
                                         .enumerated_layers = enumerated,
                                         .control_variates = control});
    return kinds;
}

std::string text(const Options& o) {
    return detail::message("design ", static_cast<int>(o.design), ", groups ", o.groups,
                           ", enumerated ", o.enumerated_layers, ", control ",
                           static_cast<int>(o.control_variates));
}

TEST_CASE(
    "MonteCarloExpectation: the mean of every kind is unbiased, and the standard error honest or careful",
    "[monte_carlo_designs]") {
    const auto network = network_with({0.9, 0.8, 0.6, 0.5, 0.4, 0.7}, 21);
    const Eigen::MatrixXd x{{0.3}, {-0.7}, {0.5}};
    const auto exact = ExactExpectation{}(network, x);
    constexpr int seeds = 3000;
    for (Options options : every_kind()) {
        const bool one_group = options.groups == 0 && options.design == MaskDesign::stratified;
        double sum[2] = {0, 0}, square[2] = {0, 0}, claimed[2] = {0, 0}, variance[2] = {0, 0};
        for (int seed = 0; seed < seeds; ++seed) {
            options.seed = static_cast<std::uint64_t>(seed);
            const auto estimate = MonteCarloExpectation{options}(network, x);
            for (Index i = 0; i < 2; ++i) {
                const double error = estimate.mean(i, 0) - exact.mean(i, 0);
                sum[i] += error / seeds;
                square[i] += error * error / seeds;
                claimed[i] += estimate.standard_error(i, 0) * estimate.standard_error(i, 0) / seeds;
                variance[i] += estimate.variance(i, 0) / seeds;
            }
        }
        for (Index i = 0; i < 2; ++i) {
            INFO(text(options) << ", output " << i << ": bias " << sum[i] << ", deviation "
                               << std::sqrt(square[i]) << ", claimed " << std::sqrt(claimed[i]));
            // 48 beyond 5 sigma: once in 3e4 choices of seeds.
            CHECK(std::abs(sum[i]) <= 5 * std::sqrt(square[i] / seeds));
            // The ratio's sigma: that of a mean of 3000 squares of kurtosis 4, and of 3000 claims
            // of 3 degrees of freedom at least. A regression's claim is right to its order: K / n.
            const double ratio = claimed[i] / square[i];
            CHECK(ratio >= (options.control_variates == none && !one_group ? 0.8 : 0.75));
            CHECK(ratio <= (one_group ? 4 : options.control_variates == none ? 1.25 : 1.4));
            // Means of squares less squares of means, 3 x 48 x 3000 masks.
            CHECK(std::abs(variance[i] / exact.variance(i, 0) - 1) <= 0.03);
        }
    }
}

/// x + c_l (1, 2) for each kept layer: an output that is a sum over the layers.
auto additive_network(const std::vector<double>& p) {
    const auto layer = [](double c) {
        return Residual{function<double>([c](const auto& x) {
            return (x * 0 + c * Eigen::VectorXd{{1.0, 2.0}}.replicate(1, x.cols())).eval();
        })};
    };
    std::vector<StochasticDepth<decltype(layer(0.0))>> layers;
    for (std::size_t l = 0; l < p.size(); ++l)
        layers.emplace_back(layer(0.3 + static_cast<double>(l)), SurvivalProbability{p[l]});
    return Stack{layers};
}

TEST_CASE(
    "MonteCarloExpectation: where every layer adds its own, no error is left to those who see it",
    "[monte_carlo_designs]") {
    const std::vector<double> p{0.9, 0.5, 0.75, 0.3, 1.0, 0.45};
    const auto network = additive_network(p);
    const Eigen::MatrixXd x{{0.5, 1.0}, {-1.0, 0.0}};
    const auto exact = ExactExpectation{}(network, x);
    const auto check = [&](const Options& options) {
        const auto estimate = MonteCarloExpectation{options}(network, x);
        INFO(text(options));
        CHECK(test::largest_difference(estimate.mean, exact.mean) <= 1e-12);
        CHECK(estimate.standard_error.maxCoeff() <= 1e-7);
    };
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
        check({.samples = 200, .seed = seed, .control_variates = mask_bits});
        check({.samples = 200,
               .seed = seed,
               .design = MaskDesign::antithetic,
               .control_variates = mask_bits});
        // 100 p_l are whole numbers.
        check({.samples = 100, .seed = seed, .design = MaskDesign::stratified});
        check({.samples = 100, .seed = seed, .design = MaskDesign::lattice, .groups = 1});
        check({.samples = 500, .seed = seed, .design = MaskDesign::lattice});
        check({.samples = 130,
               .seed = seed,
               .design = MaskDesign::stratified,
               .control_variates = mask_bits});
        check({.samples = 303,
               .seed = seed,
               .design = MaskDesign::lattice,
               .groups = 3,
               .control_variates = mask_bits});
    }
}

TEST_CASE("MonteCarloExpectation: with every layer enumerated the answer is exact",
          "[monte_carlo_designs]") {
    const auto network = network_with({0.9, 0.8, 1.0, 0.6, 0.2}, 22);
    Philox random{23};
    const auto x = random_matrix<double>(random, 3, 4);
    const auto exact = ExactExpectation{}(network, x);
    for (const auto design :
         {MaskDesign::independent, MaskDesign::stratified, MaskDesign::lattice}) {
        const auto estimate = MonteCarloExpectation{
            {.samples = 5, .design = design, .enumerated_layers = 5}}(network, x);
        CHECK(test::largest_difference(estimate.mean, exact.mean) <= 1e-14);
        CHECK(test::largest_difference(estimate.variance, exact.variance) <= 1e-13);
        CHECK(estimate.standard_error.maxCoeff() <= 1e-14);
        CHECK(estimate.layer_evaluations == exact.layer_evaluations);
    }
}

TEST_CASE("MonteCarloExpectation: enumerated layers take part with their conditional expectations",
          "[monte_carlo_designs]") {
    const std::vector<double> p{0.9, 0.55, 0.8, 0.3, 0.6};
    const auto network = network_with(p, 24);
    const Eigen::MatrixXd x{{0.3}, {-0.7}, {0.5}};
    constexpr Index samples = 30;
    // The largest p (1 - p): layers 1 and 4.
    const auto estimate =
        MonteCarloExpectation{{.samples = samples, .seed = 4, .enumerated_layers = 2}}(network, x);
    const auto masks = MaskSampler{network.survival_probabilities(), 4}.sample(0, samples);
    std::vector<Eigen::VectorXd> means;
    Eigen::VectorXd mean = Eigen::VectorXd::Zero(2), squares = mean;
    for (Index k = 0; k < samples; ++k) {
        means.emplace_back(Eigen::VectorXd::Zero(2));
        for (const int first : {0, 1})
            for (const int last : {0, 1}) {
                SurvivalMask mask = masks.mask(k);
                first ? mask.keep(1) : mask.skip(1);
                last ? mask.keep(4) : mask.skip(4);
                const double weight = (first ? p[1] : 1 - p[1]) * (last ? p[4] : 1 - p[4]);
                const Eigen::VectorXd y = network(x, mask);
                means.back() += weight * y;
                squares += weight * y.cwiseAbs2() / samples;
            }
        mean += means.back() / samples;
    }
    for (Index i = 0; i < 2; ++i) {
        double between = 0;
        for (const auto& m : means) between += (m(i) - mean(i)) * (m(i) - mean(i)) / (samples - 1);
        // Mean conditional variance and variance of the conditional means.
        double within = squares(i);
        for (const auto& m : means) within -= m(i) * m(i) / samples;
        CHECK(std::abs(estimate.mean(i, 0) - mean(i)) <= 1e-13);
        CHECK(std::abs(estimate.standard_error(i, 0) - std::sqrt(between / samples)) <= 1e-13);
        CHECK(std::abs(estimate.variance(i, 0) - (between + within)) <= 1e-13);
    }
    CHECK(estimate.degrees_of_freedom == samples - 1);
}

TEST_CASE(
    "MonteCarloExpectation: every kind has the same bits for any number of threads, and in any batch",
    "[monte_carlo_designs]") {
    const auto network = network_with<float>({0.9, 0.8, 0.6, 0.5, 0.4, 0.7}, 25);
    Philox random{26};
    const auto x = random_matrix<float>(random, 3, 210);
    const auto same = [](const auto& a, const auto& b) {
        return same_bits(a.mean, b.mean) && same_bits(a.variance, b.variance) &&
               same_bits(a.standard_error, b.standard_error);
    };
    for (Options options : every_kind()) {
        INFO(text(options));
        const auto together = MonteCarloExpectation{options}(network, x);
        for (const Index j : {0, 95, 96, 209}) {
            const auto alone = MonteCarloExpectation{options}(network, x.col(j));
            CHECK(same_bits(alone.mean, together.mean.col(j)));
            CHECK(same_bits(alone.variance, together.variance.col(j)));
            CHECK(same_bits(alone.standard_error, together.standard_error.col(j)));
        }
        const auto first = MonteCarloExpectation{options}(network, x.leftCols(1));
        for (const unsigned threads : {2u, 5u}) {
            options.threads = threads;
            CHECK(same(MonteCarloExpectation{options}(network, x), together));
            CHECK(same(MonteCarloExpectation{options}(network, x.leftCols(1)), first));
        }
    }
}

TEST_CASE("MonteCarloExpectation: it stops at a limit of layer evaluations",
          "[monte_carlo_designs]") {
    const auto network = network_with({0.9, 0.8, 0.6, 0.5, 0.4, 0.7, 0.8}, 27);
    const Eigen::MatrixXd x{{0.3}, {-0.7}, {0.5}};
    for (Options options : every_kind()) {
        if (options.enumerated_layers > 0) continue;
        options.samples = 5000;
        for (const double limit : {30.0, 70.0, 110.0}) {
            options.max_layer_evaluations = limit;
            const auto estimate = MonteCarloExpectation{options}(network, x);
            INFO(text(options) << ", limit " << limit << ", samples " << estimate.samples);
            CHECK(estimate.layer_evaluations <= limit);
            CHECK(estimate.layer_evaluations >= 0.6 * limit);
            CHECK(estimate.samples < 5000);
            CHECK(estimate.standard_error.allFinite());
            // As if so many had been asked for.
            options.samples = estimate.samples;
            options.max_layer_evaluations = std::numeric_limits<double>::infinity();
            CHECK(same_bits(MonteCarloExpectation{options}(network, x).mean, estimate.mean));
            options.samples = 5000;
        }
        options.max_layer_evaluations = 1;
        const auto fewest = MonteCarloExpectation{options}(network, x);
        CHECK(fewest.standard_error.allFinite());
        CHECK(fewest.samples <= 5);
    }
}

TEST_CASE("MonteCarloExpectation: it stops at a target, and not before", "[monte_carlo_designs]") {
    const auto network = network_with({0.9, 0.8, 0.6, 0.5, 0.4, 0.7, 0.8}, 28);
    Philox random{29};
    const auto x = random_matrix<double>(random, 3, 5);
    for (Options options : every_kind()) {
        options.samples = 1 << 14;
        options.target_standard_error = 0.01;
        const auto estimate = MonteCarloExpectation{options}(network, x);
        INFO(text(options) << ", samples " << estimate.samples);
        CHECK(estimate.standard_error.maxCoeff() <= 0.01);
        CHECK(estimate.samples < options.samples);
        CHECK(estimate.degrees_of_freedom >= 3);
        options.target_standard_error = 1e-9;
        options.samples = 500;
        const auto all = MonteCarloExpectation{options}(network, x);
        CHECK(all.samples >= 480);
        CHECK(all.samples <= 500);
    }
}

TEST_CASE("MonteCarloExpectation: rounds of one design are one sample of it",
          "[monte_carlo_designs]") {
    const auto network = network_with({0.9, 0.8, 0.6, 0.5}, 30);
    const Eigen::MatrixXd x{{0.3}, {-0.7}, {0.5}};
    const auto at_once = MonteCarloExpectation{{.samples = 1000, .seed = 8}}(network, x);
    const auto rounds = MonteCarloExpectation{
        {.samples = 1000, .seed = 8, .target_standard_error = 1e-9}}(network, x);
    CHECK(rounds.samples == 1000);
    CHECK(test::largest_difference(rounds.mean, at_once.mean) <= 1e-13);
    CHECK(test::largest_difference(rounds.standard_error, at_once.standard_error) <=
          0.02 * at_once.standard_error.maxCoeff());
    CHECK(rounds.degrees_of_freedom < 999);
    CHECK(rounds.degrees_of_freedom > 980);
}

TEST_CASE(
    "MonteCarloExpectation: its callback sees the progress and can stop it, with a valid answer",
    "[monte_carlo_designs]") {
    const auto network = network_with({0.9, 0.8, 0.6, 0.5, 0.4}, 31);
    Philox random{32};
    const auto x = random_matrix<double>(random, 3, 1000);
    std::vector<double> seen;
    Options options{.samples = 600, .seed = 5, .threads = 2};
    options.progress = [&](double done) {
        seen.push_back(done);
        return true;
    };
    const auto all = MonteCarloExpectation{options}(network, x);
    REQUIRE(seen.size() >= 4);
    CHECK(std::is_sorted(seen.begin(), seen.end()));
    CHECK(seen.front() > 0);
    CHECK(seen.back() == 1);
    CHECK(all.samples == 600);

    for (const std::size_t calls : {1u, 3u, 5u}) {
        std::size_t left = calls;
        options.progress = [&](double) { return --left > 0; };
        const auto part = MonteCarloExpectation{options}(network, x);
        INFO("stopped by call " << calls << " after " << part.samples << " samples");
        CHECK(part.samples >= 64);
        CHECK(part.samples < 600);
        CHECK(left == 0);
        CHECK(part.standard_error.allFinite());
        const auto same = MonteCarloExpectation{{.samples = part.samples, .seed = 5}}(network, x);
        CHECK(test::largest_difference(part.mean, same.mean) <= 1e-13);
    }
}

TEST_CASE("MonteCarloExpectation: options out of range are refused", "[monte_carlo_designs]") {
    const auto refused = [](const Options& options) {
        return test::refusal([&] { (void)MonteCarloExpectation{options}; });
    };
    CHECK(refused({.samples = 1, .design = MaskDesign::antithetic}) ==
          "MonteCarloExpectation: samples of antithetic masks must be at least 2, got 1");
    CHECK(refused({.groups = -1}) == "MonteCarloExpectation: groups must be at least 0, got -1");
    CHECK(refused({.samples = 4, .design = MaskDesign::lattice}) ==
          "MonteCarloExpectation: samples must be at least the number of groups, got 4");
    CHECK(refused({.enumerated_layers = -1}) ==
          "MonteCarloExpectation: enumerated_layers must lie in [0, 20], got -1");
    CHECK(refused({.enumerated_layers = 21}) ==
          "MonteCarloExpectation: enumerated_layers must lie in [0, 20], got 21");
    const double nan = std::numeric_limits<double>::quiet_NaN();
    CHECK(refused({.target_standard_error = -0.5}) ==
          "MonteCarloExpectation: target_standard_error must be at least 0, got -0.5");
    CHECK(refused({.target_standard_error = nan}) ==
          "MonteCarloExpectation: target_standard_error must be at least 0, got nan");
    CHECK(refused({.max_layer_evaluations = 0}) ==
          "MonteCarloExpectation: max_layer_evaluations must be above 0, got 0");
    CHECK(refused({.max_layer_evaluations = nan}) ==
          "MonteCarloExpectation: max_layer_evaluations must be above 0, got nan");
}

}  // namespace
