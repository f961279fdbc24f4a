// SPDX-License-Identifier: MIT
#include <stochastic_depth/analysis/sobol_indices.hpp>

#include <cmath>
#include <cstddef>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/mask_values.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using test::largest_difference;
using test::refuses;

/// P(S) by the definition, for the layers in `among` alone.
long double probability_of(Index mask, const Eigen::VectorXd& p, Index among) {
    long double product = 1;
    for (Index l = 0; l < p.size(); ++l)
        if ((among >> l) & 1) product *= (mask >> l) & 1 ? p(l) : 1 - p(l);
    return product;
}

/// Var[E[v(S) | the bits of the layers in `known`]].
long double explained(const Eigen::VectorXd& values, const Eigen::VectorXd& p, Index known) {
    const Index all = values.size() - 1;
    long double mean = 0, variance = 0;
    for (Index mask = 0; mask <= all; ++mask)
        mean += probability_of(mask, p, all) * static_cast<long double>(values(mask));
    for (Index bits = 0; bits <= all; ++bits) {
        if ((bits & ~known) != 0) continue;
        long double given = 0;
        for (Index mask = 0; mask <= all; ++mask)
            if ((mask & known) == bits)
                given += probability_of(mask, p, all & ~known) *
                         static_cast<long double>(values(mask));
        variance += probability_of(bits, p, known) * (given - mean) * (given - mean);
    }
    return variance;
}

TEST_CASE("sobol_indices: their definitions, on the values of 200 random networks",
          "[sobol_indices]") {
    Philox random{51};
    for (std::size_t trial = 0; trial < 200; ++trial) {
        const auto network = plain::to_library<plain::OneLinear<double, Tanh<double>>>(
            plain::random_network(random, {trial % 7, 4, 1, plain::Activation::tanh, true}));
        const Matrix<double> x = test::random_matrix<double>(random, 3, 1);
        const Matrix<double> outputs = mask_outputs(network, x);
        const Eigen::VectorXd p = network.survival_probabilities();
        const SobolIndices found = sobol_indices(outputs, p);
        const auto exact = ExactExpectation{}(network, x);
        CHECK(largest_difference(found.mean, exact.mean) < 1e-12 * outputs.cwiseAbs().maxCoeff());
        REQUIRE(found.first_order.rows() == p.size());
        const Index all = outputs.rows() - 1;
        for (Index j = 0; j < 2; ++j) {
            const Eigen::VectorXd values = outputs.col(j);
            const auto variance = static_cast<double>(explained(values, p, all));
            CHECK(std::abs(found.variance(j) - variance) <= 1e-12 * variance);
            for (Index l = 0; l < p.size(); ++l) {
                const Index one = Index{1} << l;
                const auto alone = static_cast<double>(explained(values, p, one)) / variance;
                const auto rest = static_cast<double>(explained(values, p, all & ~one)) / variance;
                CHECK(std::abs(found.first_order(l, j) - alone) < 1e-12);
                CHECK(std::abs(found.total(l, j) - (1 - rest)) < 1e-12);
            }
        }
        const Matrix<double> covariance = covariance_over_masks(outputs, p);
        Matrix<double> expected = Matrix<double>::Zero(2, 2);
        for (Index mask = 0; mask <= all; ++mask) {
            const Eigen::VectorXd deviation = outputs.row(mask).transpose() - exact.mean;
            expected += static_cast<double>(probability_of(mask, p, all)) * deviation *
                        deviation.transpose();
        }
        CHECK(largest_difference(covariance, expected) <=
              1e-12 * expected.diagonal().cwiseAbs().maxCoeff());
    }
}

TEST_CASE("sobol_indices: sums and products by hand", "[sobol_indices]") {
    // s_0 + 2 s_1 at p = 1/2: variances 1/4 and 1; and 4 s_0 s_1, whose mean is 1.
    Matrix<double> values(4, 3);
    values << 0, 0, 7, 1, 0, 7, 2, 0, 7, 3, 4, 7;
    const SobolIndices found = sobol_indices(values, Eigen::Vector2d{0.5, 0.5});
    CHECK(test::same_bits(found.mean, Eigen::VectorXd{{1.5, 1, 7}}));
    CHECK(largest_difference(found.variance, Eigen::VectorXd{{1.25, 3, 0}}) < 1e-15);
    Matrix<double> first(2, 3), total(2, 3);
    first << 0.2, 1 / 3.0, 0, 0.8, 1 / 3.0, 0;
    total << 0.2, 2 / 3.0, 0, 0.8, 2 / 3.0, 0;
    CHECK(largest_difference(found.first_order, first) < 1e-15);
    CHECK(largest_difference(found.total, total) < 1e-15);
    // 4 s_0 s_1 and s_0 + 2 s_1: E[XY] = 3, E[X] E[Y] = 1.5.
    CHECK(std::abs(covariance_over_masks(values, Eigen::Vector2d{0.5, 0.5})(0, 1) - 1.5) < 1e-15);
}

TEST_CASE("sobol_indices: a layer that is always kept explains nothing, and what has no "
          "probability may be no number",
          "[sobol_indices]") {
    const Eigen::VectorXd values{{test::nan, 2, test::nan, 5}};
    const SobolIndices found = sobol_indices(values, Eigen::Vector2d{1.0, 0.5});
    CHECK(found.mean(0) == 3.5);
    CHECK(std::abs(found.variance(0) - 2.25) < 1e-15);
    CHECK(found.first_order(0, 0) == 0);
    CHECK(found.total(0, 0) == 0);
    CHECK(found.first_order(1, 0) == 1);
    CHECK(sobol_indices(Eigen::VectorXd::Constant(1, 3.0), Eigen::VectorXd(0)).variance(0) == 0);
    CHECK(covariance_over_masks(Matrix<double>(8, 0), Eigen::Vector3d::Ones()).size() == 0);
}

TEST_CASE("sobol_indices: what they refuse", "[sobol_indices]") {
    const Eigen::VectorXd eight = Eigen::VectorXd::Zero(8);
    refuses([&] { (void)sobol_indices(Eigen::VectorXd::Zero(6), Eigen::Vector3d::Ones()); },
            {"sobol_indices: values must have one row for each of 2^L masks, got 6"});
    refuses([&] { (void)sobol_indices(eight, Eigen::Vector2d::Ones()); },
            {"sobol_indices: p must have one entry for each of 3 layers, got 2"});
    refuses([&] { (void)sobol_indices(eight, Eigen::Vector3d{1, 1.5, 1}); },
            {"sobol_indices: survival probability p(1)", "got 1.5"});
    refuses([&] { (void)covariance_over_masks(eight, Eigen::Vector3d{1, 1, test::nan}); },
            {"covariance_over_masks: survival probability p(2)", "got nan"});
}

}  // namespace
