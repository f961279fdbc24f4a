// SPDX-License-Identifier: MIT
#include <stochastic_depth/numerics/column_sums.hpp>

#include <cmath>
#include <vector>

#include <stochastic_depth/random/philox.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// The order that the doc comment names, written down once more.
template <class Scalar>
Scalar sum_in_order(const Vector<Scalar>& x) {
    double sums[8] = {};
    const Index whole = x.size() / 8 * 8;
    for (Index i = 0; i < x.size(); ++i) sums[i < whole ? i % 8 : 0] += static_cast<double>(x(i));
    return static_cast<Scalar>(((sums[0] + sums[1]) + (sums[2] + sums[3])) +
                               ((sums[4] + sums[5]) + (sums[6] + sums[7])));
}

}  // namespace

TEMPLATE_TEST_CASE("column_sums: a column has the same bits at each address, in any company",
                   "[column_sums]", float, double) {
    using Scalar = TestType;
    Philox random{1};
    for (const Index rows : {0, 1, 2, 6, 7, 8, 9, 15, 16, 17, 40, 67}) {
        const Matrix<Scalar> x = random_matrix<Scalar>(random, rows, 9);
        const Eigen::Matrix<Scalar, 1, Eigen::Dynamic> together = column_sums(x);
        REQUIRE(together.cols() == 9);
        for (Index j = 0; j < 9; ++j) {
            CAPTURE(rows, j);
            const Vector<Scalar> column = x.col(j);
            CHECK(together(j) == sum_in_order<Scalar>(column));
            CHECK(column_sums(column)(0) == together(j));
            CHECK(column_sums(x.leftCols(j + 1))(j) == together(j));
            for (std::size_t offset = 0; offset < 16; ++offset) {
                std::vector<Scalar> memory(static_cast<std::size_t>(rows) + offset + 1);
                Eigen::Map<Vector<Scalar>> there(memory.data() + offset, rows);
                there = column;
                CHECK(column_sums(there)(0) == together(j));
            }
        }
    }
}

TEST_CASE("column_sums: no rows, no columns, one number", "[column_sums]") {
    CHECK(column_sums(Eigen::MatrixXf(0, 3)) == Eigen::RowVector3f::Zero());
    CHECK(column_sums(Eigen::MatrixXf(3, 0)).cols() == 0);
    CHECK(column_sums(Eigen::MatrixXd(0, 0)).cols() == 0);
    CHECK(column_sums(Eigen::MatrixXd::Constant(1, 1, 2.5))(0) == 2.5);
}

TEST_CASE("column_sums: small numbers are not lost beside large ones of opposite sign",
          "[column_sums]") {
    const Eigen::Vector3f x{1e8F, 1.0F, -1e8F};
    CHECK(column_sums(x)(0) == 1.0F);
}

TEST_CASE("column_sums: takes expressions, rows and strides; NaN and infinity go through",
          "[column_sums]") {
    Eigen::MatrixXd x(2, 3);
    x << 1, 2, 3, 10, 20, 30;
    CHECK(column_sums(x) == Eigen::RowVector3d(11, 22, 33));
    CHECK(column_sums(2 * x) == Eigen::RowVector3d(22, 44, 66));
    CHECK(column_sums(x.transpose()) == Eigen::RowVector2d(6, 60));
    CHECK(column_sums(x.row(1)) == x.row(1));
    CHECK(column_sums(x.bottomRows(1)) == x.row(1));
    x(0, 0) = std::nan("");
    x(1, 1) = HUGE_VAL;
    CHECK(std::isnan(column_sums(x)(0)));
    CHECK(column_sums(x)(1) == HUGE_VAL);
}

TEST_CASE("column_sums: an expression of the sums may leave the function that made it",
          "[column_sums]") {
    const auto centred = [](const auto& x) {
        return x.rowwise() - column_sums(x) / static_cast<double>(x.rows());
    };
    Eigen::MatrixXd x(2, 60);
    x.row(0).setLinSpaced(0.0, 59.0);
    x.row(1) = x.row(0).array() + 4.0;
    const auto expression = centred(x);
    const Eigen::MatrixXd y = expression;
    CHECK((y.row(0).array() == -2.0).all());
    CHECK((y.row(1).array() == 2.0).all());
}
