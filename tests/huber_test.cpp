// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/huber.hpp>

#include <cmath>
#include <limits>

#include "support/catch.hpp"
#include "support/loss_slopes.hpp"
#include "support/refusal.hpp"

namespace sd = stochastic_depth;
using sd::test::refusal;

TEST_CASE("Huber: a parabola, straight beyond delta, by hand", "[huber]") {
    const sd::Huber<double> loss{{.delta = 2.0}};
    Eigen::MatrixXd y(2, 3), t(2, 3), gradient(2, 3), expected(2, 3);
    y << 1, 2, 3, 4, 5, -6;
    t << 0, 0, 8, 4, 2, 4;
    // Differences (1, 2, -5 / 0, 3, -10): 0.5, 2, 2 (5 - 1), 0, 2 (3 - 1), 2 (10 - 1).
    CHECK(std::abs(loss.value(y, t) - 32.5 / 6.0) <= 1e-15);
    CHECK(loss.value_and_gradient(y, t, gradient) == loss.value(y, t));
    expected << 1, 2, -2, 0, 2, -2;
    CHECK((gradient - expected / 6.0).cwiseAbs().maxCoeff() <= 1e-16);
    CHECK(loss.value(y, y) == 0.0);
    CHECK(sd::Huber<double>{}.value(y, t) == sd::Huber<double>{{.delta = 1.0}}.value(y, t));
}

TEST_CASE("Huber: the gradient is the derivative of the value, and never exceeds delta",
          "[huber]") {
    std::srand(4);
    const Eigen::MatrixXd y = 3.0 * Eigen::MatrixXd::Random(4, 5);
    const Eigen::MatrixXd t = 3.0 * Eigen::MatrixXd::Random(4, 5);
    for (const double delta : {0.3, 1.0, 10.0}) {
        // No difference is so near to delta that the stencil meets the end of the parabola.
        REQUIRE((((y - t).cwiseAbs().array() - delta).abs() > 2e-3).all());
        CHECK(sd::test::loss_slope_error(sd::Huber<double>{{.delta = delta}}, y, t) <= 1e-11);
    }
    Eigen::MatrixXd far = y, gradient(4, 5);
    far(0, 0) = 1e300;
    CHECK(std::isfinite(sd::Huber<double>{}.value_and_gradient(far, t, gradient)));
    CHECK(gradient.cwiseAbs().maxCoeff() <= 1.0 / 20.0);
    far(0, 0) = std::numeric_limits<double>::quiet_NaN();
    CHECK(std::isnan(sd::Huber<double>{}.value_and_gradient(far, t, gradient)));
    CHECK(std::isnan(gradient(0, 0)));
}

TEST_CASE("Huber: bad arguments are refused", "[huber]") {
    for (const double delta : {0.0, -1.0, std::numeric_limits<double>::infinity(),
                               std::numeric_limits<double>::quiet_NaN()})
        CHECK(refusal([&] {
                  (void)sd::Huber<float>{{.delta = delta}};
              }).starts_with("Huber: delta must be finite and above 0, got "));
    const Eigen::MatrixXd y = Eigen::MatrixXd::Zero(2, 3);
    CHECK(refusal([&] { (void)sd::Huber<double>{}.value(y, y.topRows(1)); }) ==
          "Huber: targets must be 2 x 3 like the output, got 1 x 3");
    CHECK(refusal([&] { sd::Huber<double>{}.check_targets(3, y); }) ==
          "Huber: targets must be 3 x 3 like the output, got 2 x 3");
    CHECK(sd::Huber<double>{}.value(Eigen::MatrixXd(2, 0), Eigen::MatrixXd(2, 0)) == 0.0);
}
