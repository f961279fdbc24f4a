// SPDX-License-Identifier: MIT
#include <stochastic_depth/analysis/sampled_gradient_variance.hpp>

#include <cmath>
#include <cstdint>

#include <stochastic_depth/analysis/gradient_variance.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>

#include "support/catch.hpp"
#include "support/gradient_networks.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using Eigen::VectorXi;

using Loss = SoftmaxCrossEntropy<double>;
using Options = SampledGradientVarianceOptions;

const MaskScope scopes[] = {MaskScope::batch, MaskScope::sample, MaskScope::subset};

/// A network, a batch, and the true variances.
struct Problem {
    Philox random{1};
    test::Network network = test::network(random, VectorXd{{0.9, 0.7, 0.5, 0.35}});
    MatrixXd x = test::random_matrix<double>(random, 3, 6);
    VectorXi labels = test::random_labels(random, 6, 2);
    GradientVariances exact = gradient_variance(network, x, labels, Loss{});

    [[nodiscard]] double variance(MaskScope scope) const {
        if (scope == MaskScope::batch) return exact.batch.variance;
        return scope == MaskScope::sample ? exact.sample.variance : exact.subset.variance;
    }
    [[nodiscard]] SampledGradientVariance sampled(const Options& options) const {
        return sampled_gradient_variance(network, x, labels, Loss{}, options);
    }
};

TEST_CASE(
    "sampled_gradient_variance: under every scope, the estimates are as far from the truth as their "
    "standard errors say",
    "[sampled_gradient_variance]") {
    const Problem problem;
    constexpr int seeds = 50;
    for (const MaskScope scope : scopes) {
        double squares = 0, norm_squares = 0, mean = 0, mean_error = 0;
        for (std::uint64_t seed = 0; seed < seeds; ++seed) {
            const auto sampled = problem.sampled({.mask_scope = scope, .seed = seed, .pairs = 200});
            REQUIRE(sampled.steps == 400);
            REQUIRE(sampled.variance.standard_error > 0);
            const auto deviation = [](const SampledNumber& number, double truth) {
                return (number.value - truth) / number.standard_error;
            };
            const double z = deviation(sampled.variance, problem.variance(scope));
            const double z_norm = deviation(sampled.squared_norm, problem.exact.squared_norm);
            squares += z * z;
            norm_squares += z_norm * z_norm;
            mean += sampled.variance.value / seeds;
            mean_error += sampled.variance.standard_error / seeds;
        }
        INFO("scope " << static_cast<int>(scope) << ": " << squares << ", " << norm_squares);
        // Chi-squared of 50 degrees of freedom and a little heavier tails: beyond 110 once in 5e5
        // choices of the seeds, below 18 once in 4e5.
        CHECK(squares <= 110);
        CHECK(squares >= 18);
        CHECK(norm_squares <= 110);
        CHECK(norm_squares >= 18);
        // 5 sigma of the mean over all seeds.
        CHECK(std::abs(mean - problem.variance(scope)) <= 5 * mean_error / std::sqrt(seeds));
    }
}

TEST_CASE("sampled_gradient_variance: a pure function of the seed, whatever the threads",
          "[sampled_gradient_variance]") {
    const Problem problem;
    for (const MaskScope scope : scopes) {
        const auto once = problem.sampled({.mask_scope = scope, .seed = 3, .pairs = 10});
        const auto again =
            problem.sampled({.mask_scope = scope, .seed = 3, .pairs = 10, .threads = 3});
        CHECK(once.variance.value == again.variance.value);
        CHECK(once.variance.standard_error == again.variance.standard_error);
        CHECK(once.squared_norm.value == again.squared_norm.value);
        CHECK(once.variance.value !=
              problem.sampled({.mask_scope = scope, .seed = 4, .pairs = 10}).variance.value);
    }
}

TEST_CASE("sampled_gradient_variance: without layers to skip, there is no variance",
          "[sampled_gradient_variance]") {
    Problem problem;
    problem.network = test::network(problem.random, VectorXd::Ones(40));
    const auto sampled = problem.sampled({.pairs = 3});
    CHECK(sampled.variance.value == 0);
    CHECK(sampled.variance.standard_error == 0);
    CHECK(sampled.squared_norm.value > 0);
    CHECK(sampled.squared_norm.standard_error == 0);
}

TEST_CASE("sampled_gradient_variance: bad input is refused", "[sampled_gradient_variance]") {
    const Problem problem;
    const auto refused = [&](const Options& options) {
        return test::refusal([&] { (void)problem.sampled(options); });
    };
    CHECK(refused({.pairs = 1}) == "sampled_gradient_variance: pairs must be at least 2, got 1");
    CHECK(refused({.pairs = -7}) == "sampled_gradient_variance: pairs must be at least 2, got -7");
    CHECK(refused({.threads = 0}) ==
          "sampled_gradient_variance: threads must be at least 1, got 0");
    CHECK(test::refusal([&] {
              (void)sampled_gradient_variance(problem.network, MatrixXd(3, 0), VectorXi(0), Loss{});
          }) == "sampled_gradient_variance: x must have at least 1 column, got 0");
}

}  // namespace
