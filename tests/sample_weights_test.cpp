// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/sample_weights.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include <Eigen/LU>

#include "support/catch.hpp"
#include "support/matrices.hpp"

namespace {

using namespace stochastic_depth;
using detail::MaskBasis;

Eigen::MatrixXd bits(std::uint32_t seed, Index items, Index layers) {
    Philox random{seed};
    return Eigen::MatrixXd::NullaryExpr(items, layers, [&](Index, Index l) {
        const double p = 0.3 + 0.1 * static_cast<double>(l % 6);
        return (uniform<double>(random) < p ? 1 : 0) - p;
    });
}

TEST_CASE("MaskBasis: orthonormal on the items that count, and it spans their columns",
          "[sample_weights]") {
    const Eigen::MatrixXd columns = bits(1, 60, 7);
    for (const auto& [first, last] :
         {std::pair<Index, Index>{0, 0}, {0, 20}, {25, 40}, {50, 60}, {0, 60}}) {
        const MaskBasis basis(columns, first, last, std::vector<double>(7));
        REQUIRE(basis.size() == 8);
        const bool none_left_out = last - first == 60;
        Eigen::MatrixXd q(60, 8), kept = columns;
        for (Index i = 0; i < 60; ++i)
            for (Index f = 0; f < 8; ++f) {
                const bool left_out = !none_left_out && i >= first && i < last;
                q(i, f) = left_out ? 0 : basis(i, f);
                if (left_out) kept.row(i).setZero();
            }
        CHECK(test::largest_difference((q.transpose() * q).eval(),
                                       Eigen::MatrixXd::Identity(8, 8)) <= 1e-14);
        CHECK(test::largest_difference((q * (q.transpose() * kept)).eval(), kept) <= 1e-14);
    }
}

TEST_CASE("MaskBasis: columns that don't vary or repeat each other are dropped",
          "[sample_weights]") {
    Eigen::MatrixXd columns = bits(2, 40, 6);
    columns.col(1).setConstant(0.25);
    columns.col(4) = columns.col(0);
    columns.col(5) = columns.col(0) - 2 * columns.col(2);
    const MaskBasis basis(columns, 0, 0, std::vector<double>(6));
    CHECK(basis.size() == 4);
    // Fewer items than columns: as many functions as items.
    CHECK(MaskBasis(bits(3, 4, 9), 0, 0, std::vector<double>(9)).size() <= 4);
    CHECK(MaskBasis(bits(3, 1, 2), 0, 0, std::vector<double>(2)).size() == 1);
    CHECK(MaskBasis(Eigen::MatrixXd(5, 0), 0, 0, std::vector<double>()).size() == 1);
}

TEST_CASE(
    "corrected_means: a sum over the layers is estimated without error, in one fold and in many",
    "[sample_weights]") {
    const Eigen::MatrixXd columns = bits(4, 60, 5);
    const Eigen::VectorXd slopes{{3.0, -1.0, 0.5, 2.0, 7.0}};
    const Eigen::VectorXd y = (columns * slopes).array() + 11;
    for (const Index fold : {1, 6, 7, 20, 30, 60}) {
        const auto means = detail::corrected_means(columns, fold);
        CHECK(static_cast<Index>(means.size()) == (60 + fold - 1) / fold);
        for (const auto& weights : means) {
            double sum = 0, estimate = 0;
            for (std::size_t i = 0; i < weights.size(); ++i) {
                sum += weights[i];
                estimate += weights[i] * y(static_cast<Index>(i));
            }
            CHECK(std::abs(sum - 1) <= 1e-13);
            CHECK(std::abs(estimate - 11) <= 1e-12);
        }
        double sum = 0;
        for (const double w : detail::pooled(means, fold)) sum += w;
        CHECK(std::abs(sum - 1) <= 1e-13);
    }
}

TEST_CASE("corrected_means: a fold's correction does not look at the fold's own outputs",
          "[sample_weights]") {
    const Eigen::MatrixXd columns = bits(5, 30, 4);
    const auto means = detail::corrected_means(columns, 10);
    for (std::size_t f = 0; f < 3; ++f)
        for (std::size_t i = 10 * f; i < 10 * f + 10; ++i) CHECK(means[f][i] == 0.1);
}

TEST_CASE("corrected_means: the slopes are those of least squares", "[sample_weights]") {
    const Eigen::MatrixXd columns = bits(6, 50, 3);
    Philox random{7};
    const Eigen::VectorXd y = test::random_matrix<double>(random, 50, 1);
    // Normal equations over items 10, ..., 49.
    Eigen::MatrixXd a(40, 4);
    a << Eigen::VectorXd::Ones(40), columns.bottomRows(40);
    const Eigen::VectorXd fit = (a.transpose() * a).inverse() * (a.transpose() * y.tail(40));
    const double expected =
        y.head(10).mean() - columns.topRows(10).colwise().mean().dot(fit.tail(3).transpose());
    const auto weights = detail::corrected_means(columns, 10).front();
    double estimate = 0;
    for (std::size_t i = 0; i < weights.size(); ++i)
        estimate += weights[i] * y(static_cast<Index>(i));
    CHECK(std::abs(estimate - expected) <= 1e-13);
}

}  // namespace
