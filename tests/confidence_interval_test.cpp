// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/confidence_interval.hpp>

#include <cmath>
#include <limits>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

ExpectationResult<double> result(double degrees) {
    ExpectationResult<double> answer;
    answer.mean = Eigen::MatrixXd{{1.0, -2.0}, {0.5, 3.0}};
    answer.standard_error = Eigen::MatrixXd{{0.1, 0.0}, {nan, 2.0}};
    answer.degrees_of_freedom = degrees;
    return answer;
}

TEST_CASE("confidence_interval: mean -+ t standard errors", "[confidence_interval]") {
    const auto interval = confidence_interval(result(9), 0.95);
    const double t = 2.262157162798205;
    CHECK(std::abs(interval.lower(0, 0) - (1 - 0.1 * t)) <= 1e-13);
    CHECK(std::abs(interval.upper(0, 0) - (1 + 0.1 * t)) <= 1e-13);
    CHECK(std::abs(interval.lower(1, 1) - (3 - 2 * t)) <= 1e-12);
    CHECK(std::abs(interval.upper(1, 1) - (3 + 2 * t)) <= 1e-12);
    const auto wider = confidence_interval(result(9), 0.99);
    CHECK(wider.lower(0, 0) < interval.lower(0, 0));
    CHECK(wider.upper(0, 0) > interval.upper(0, 0));
}

TEST_CASE("confidence_interval: a known mean is its own interval, an unknown error has none",
          "[confidence_interval]") {
    for (const double degrees : {9.0, nan, 0.0}) {
        const auto interval = confidence_interval(result(degrees));
        CHECK(interval.lower(0, 1) == -2);
        CHECK(interval.upper(0, 1) == -2);
        CHECK(std::isnan(interval.lower(1, 0)));
        CHECK(std::isnan(interval.upper(1, 0)));
    }
    CHECK(std::isnan(confidence_interval(result(nan)).lower(0, 0)));
    CHECK(std::isnan(confidence_interval(result(0)).upper(1, 1)));
}

TEST_CASE("confidence_interval: a level outside (0, 1) is refused", "[confidence_interval]") {
    for (const double level : {0.0, 1.0, -0.5, 95.0, nan}) {
        const auto refusal = test::refusal([&] { (void)confidence_interval(result(9), level); });
        CHECK(refusal.find("confidence_interval: level must lie in (0, 1), got ") == 0);
    }
    CHECK(test::refusal([&] { (void)confidence_interval(result(9), 95.0); }).find("got 95") !=
          std::string::npos);
}

}  // namespace
