// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/schedules.hpp>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;

template <class Call>
std::string refusal(Call call) {
    try {
        call();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "accepted";
}

TEST_CASE("linear_decay: is the paper's rule, by hand", "[schedules]") {
    // 1 - l/4 (1 - 0.5), l = 1, ..., 4: exact in binary.
    const Eigen::VectorXd p = linear_decay(4, 0.5);
    REQUIRE(p.size() == 4);
    CHECK(p(0) == 0.875);
    CHECK(p(1) == 0.75);
    CHECK(p(2) == 0.625);
    CHECK(p(3) == 0.5);
    // 54 blocks, the paper's ResNet-110: E[number of survivors] = (3 L - 1) / 4.
    double survivors = 0;
    for (const double p_l : linear_decay(54, 0.5)) survivors += p_l;
    CHECK(std::abs(survivors - 40.25) < 1e-13);
}

TEST_CASE("linear_decay: agrees with the formula in long double", "[schedules]") {
    for (const Index depth : {2, 3, 7, 54, 1000})
        for (const double last : {5e-324, 1e-9, 0.1, 0.3, 0.5, 0.8, 1.0}) {
            const Eigen::VectorXd p = linear_decay(depth, last);
            for (Index l = 1; l <= depth; ++l) {
                const long double exact = 1.0L - static_cast<long double>(l) /
                                                     static_cast<long double>(depth) *
                                                     (1.0L - static_cast<long double>(last));
                REQUIRE(std::abs(static_cast<double>(p(l - 1) - exact)) <= 3e-16);
            }
        }
}

TEST_CASE("linear_decay: ends exactly at p_L and never rises", "[schedules]") {
    for (const Index depth : {1, 2, 3, 10, 49, 54, 1000})
        for (const double last : {5e-324, 1e-9, 0.1, 0.3, 0.7, std::nextafter(1.0, 0.0), 1.0}) {
            const Eigen::VectorXd p = linear_decay(depth, last);
            CHECK(p(depth - 1) == last);
            for (Index l = 0; l + 1 < depth; ++l) REQUIRE(p(l) >= p(l + 1));
            CHECK((p.array() > 0.0 && p.array() <= 1.0).all());
        }
}

TEST_CASE("linear_decay: p_L = 1 keeps every layer", "[schedules]") {
    CHECK((linear_decay(54, 1.0).array() == 1.0).all());
}

TEST_CASE("uniform_survival: is p everywhere", "[schedules]") {
    CHECK(uniform_survival(4, 0.7).size() == 4);
    CHECK((uniform_survival(4, 0.7).array() == 0.7).all());
}

TEST_CASE("schedules: no layers, no probabilities", "[schedules]") {
    CHECK(linear_decay(0, 0.5).size() == 0);
    CHECK(uniform_survival(0, 0.5).size() == 0);
}

TEST_CASE("schedules: bad input is refused by name", "[schedules]") {
    const struct {
        Index depth;
        double p;
        std::string got;
    } cases[] = {{-1, 0.5, "depth must be at least 0, got -1"},
                 {3, 0.0, "survival probability must lie in (0, 1], got 0"},
                 {0, 0.0, "survival probability must lie in (0, 1], got 0"},
                 {3, -0.5, "survival probability must lie in (0, 1], got -0.5"},
                 {3, 1.01, "survival probability must lie in (0, 1], got 1.01"},
                 {3, std::numeric_limits<double>::infinity(),
                  "survival probability must lie in (0, 1], got inf"},
                 {3, std::numeric_limits<double>::quiet_NaN(),
                  "survival probability must lie in (0, 1], got nan"}};
    for (const auto& bad : cases) {
        const std::string decay = refusal([&] { (void)linear_decay(bad.depth, bad.p); });
        CHECK(decay.find("linear_decay: ") == 0);
        CHECK(decay.find(bad.got) != std::string::npos);
        const std::string uniform = refusal([&] { (void)uniform_survival(bad.depth, bad.p); });
        CHECK(uniform.find("uniform_survival: ") == 0);
        CHECK(uniform.find(bad.got) != std::string::npos);
    }
}

}  // namespace
