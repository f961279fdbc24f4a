// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/mean_squared_error.hpp>

#include <cmath>
#include <limits>
#include <string>

#include "support/catch.hpp"
#include "support/loss_slopes.hpp"
#include "support/refusal.hpp"

namespace sd = stochastic_depth;
using Catch::Matchers::Equals;
using sd::Index;
using sd::test::refusal;

namespace {

}  // namespace

TEST_CASE("MeanSquaredError: mean over all entries, by hand", "[mean_squared_error]") {
    const sd::MeanSquaredError<double> loss;
    Eigen::MatrixXd y(2, 3), t(2, 3), gradient(2, 3), expected(2, 3);
    y << 1, 2, 3, 4, 5, 6;
    t << 1, 0, 0, 8, 5, 7;
    // Differences (0, 2, 3 / -4, 0, -1): squares sum to 30, six entries.
    CHECK(std::abs(loss.value(y, t) - 5.0) <= 1e-15);
    CHECK(loss.value_and_gradient(y, t, gradient) == loss.value(y, t));
    expected << 0, 2, 3, -4, 0, -1;
    CHECK((gradient - expected / 3.0).cwiseAbs().maxCoeff() <= 1e-15);
    CHECK(loss.value(y, y) == 0.0);
}

TEST_CASE("MeanSquaredError: the gradient is the derivative of the value", "[mean_squared_error]") {
    const sd::MeanSquaredError<double> loss;
    std::srand(4);
    const Eigen::MatrixXd y = Eigen::MatrixXd::Random(4, 5), t = Eigen::MatrixXd::Random(4, 5);
    CHECK(sd::test::loss_slope_error(loss, y, t) <= 1e-12);
}

TEST_CASE("MeanSquaredError: float entries are summed in double", "[mean_squared_error]") {
    // 1 + 10^7 terms of 1e-4^2 summed in float would lose the small ones beside the large one.
    Eigen::MatrixXf y = Eigen::MatrixXf::Constant(1000, 1000, 1e-4F);
    y(0, 0) = 100.0F;
    const Eigen::MatrixXf zero = Eigen::MatrixXf::Zero(1000, 1000);
    const double small = static_cast<double>(1e-4F);
    const double expected = (1e4 + 999999.0 * small * small) / 1e6;
    CHECK(std::abs(sd::MeanSquaredError<float>{}.value(y, zero) - expected) <= 1e-10 * expected);
    // Differences of the widest floats do not overflow.
    const float widest = std::numeric_limits<float>::max();
    const Eigen::MatrixXf top = Eigen::MatrixXf::Constant(1, 1, widest);
    CHECK(std::isfinite(sd::MeanSquaredError<float>{}.value(top, -top)));
}

TEST_CASE("MeanSquaredError: in place, column ranges, expressions and empty batches",
          "[mean_squared_error]") {
    const sd::MeanSquaredError<double> loss;
    const Eigen::MatrixXd y = Eigen::MatrixXd::Random(3, 8), t = Eigen::MatrixXd::Random(3, 8);
    Eigen::MatrixXd gradient(3, 8);
    const double value = loss.value_and_gradient(y, t, gradient);
    Eigen::MatrixXd in_place = y;
    CHECK(loss.value_and_gradient(in_place, t, in_place) == value);
    CHECK(in_place == gradient);
    CHECK(loss.value(y.middleCols(2, 4), t.middleCols(2, 4)) ==
          loss.value(Eigen::MatrixXd(y.middleCols(2, 4)), Eigen::MatrixXd(t.middleCols(2, 4))));
    CHECK(std::abs(loss.value(y + t, 2.0 * t) - value) <= 1e-15);
    CHECK(loss.value_and_gradient(y.leftCols(0), t.leftCols(0), gradient.leftCols(0)) == 0.0);
    CHECK(loss.value(Eigen::MatrixXd(0, 4), Eigen::MatrixXd(0, 4)) == 0.0);
    Eigen::MatrixXd broken = y;
    broken(1, 1) = std::numeric_limits<double>::quiet_NaN();
    CHECK(std::isnan(loss.value(broken, t)));
}

TEST_CASE("MeanSquaredError: every bad argument is refused by class, argument and value",
          "[mean_squared_error]") {
    const sd::MeanSquaredError<double> loss;
    const Eigen::MatrixXd y = Eigen::MatrixXd::Zero(2, 3);
    Eigen::MatrixXd gradient = Eigen::MatrixXd::Constant(2, 3, 7.0);
    for (const auto& [rows, cols] : {std::pair<Index, Index>{2, 4}, {3, 3}, {3, 2}, {0, 0}}) {
        const Eigen::MatrixXd other = Eigen::MatrixXd::Zero(rows, cols);
        const std::string got = std::to_string(rows) + " x " + std::to_string(cols);
        const std::string targets =
            "MeanSquaredError: targets must be 2 x 3 like the output, got " + got;
        CHECK_THAT(refusal([&] { (void)loss.value(y, other); }), Equals(targets));
        CHECK_THAT(refusal([&] { (void)loss.value_and_gradient(y, other, gradient); }),
                   Equals(targets));
        Eigen::MatrixXd wrong = other;
        CHECK_THAT(refusal([&] { (void)loss.value_and_gradient(y, y, wrong); }),
                   Equals("MeanSquaredError: gradient must be 2 x 3 like the output, got " + got));
    }
    CHECK((gradient.array() == 7.0).all());
}
