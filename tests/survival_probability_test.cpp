// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/drop_probability.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <type_traits>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using test::refusal;

// p and 1 - p must never be taken for one another: nothing converts by itself.
static_assert(!std::is_convertible_v<double, SurvivalProbability>);
static_assert(!std::is_convertible_v<double, DropProbability>);
static_assert(!std::is_convertible_v<DropProbability, SurvivalProbability>);
static_assert(!std::is_constructible_v<DropProbability, SurvivalProbability>);
static_assert(!std::is_default_constructible_v<SurvivalProbability>);
static_assert(!std::is_convertible_v<SurvivalProbability, double>);
static_assert(SurvivalProbability{0.5}.value() == 0.5);
static_assert(SurvivalProbability{DropProbability{0.25}} == SurvivalProbability{0.75});

TEST_CASE("SurvivalProbability: takes every double in (0, 1]", "[survival_probability]") {
    const double smallest = std::numeric_limits<double>::denorm_min();
    for (const double p : {smallest, 0x1p-1022, 0x1p-60, 0.3, std::nextafter(1.0, 0.0), 1.0})
        CHECK(SurvivalProbability{p}.value() == p);
}

TEST_CASE("SurvivalProbability: refuses the rest by name", "[survival_probability]") {
    const struct {
        double value;
        std::string got;
    } cases[] = {{0.0, "0"},
                 {-0.0, "-0"},
                 {-0.1, "-0.1"},
                 {-5e-324, "-5e-324"},
                 {std::nextafter(1.0, 2.0), "1.0000000000000002"},
                 {1.2, "1.2"},
                 {std::numeric_limits<double>::infinity(), "inf"},
                 {-std::numeric_limits<double>::infinity(), "-inf"},
                 {std::numeric_limits<double>::quiet_NaN(), "nan"}};
    for (const auto& bad : cases)
        CHECK(refusal([&] { (void)SurvivalProbability{bad.value}; }) ==
              "SurvivalProbability: value must lie in (0, 1], got " + bad.got);
}

TEST_CASE("DropProbability: takes every double in [0, 1)", "[survival_probability]") {
    for (const double q : {0.0, 5e-324, 0.3, std::nextafter(1.0, 0.0)})
        CHECK(DropProbability{q}.value() == q);
}

TEST_CASE("DropProbability: refuses the rest by name", "[survival_probability]") {
    const struct {
        double value;
        std::string got;
    } cases[] = {{1.0, "1"},
                 {-0.1, "-0.1"},
                 {1.5, "1.5"},
                 {std::numeric_limits<double>::infinity(), "inf"},
                 {std::numeric_limits<double>::quiet_NaN(), "nan"}};
    for (const auto& bad : cases)
        CHECK(refusal([&] { (void)DropProbability{bad.value}; }) ==
              "DropProbability: value must lie in [0, 1), got " + bad.got);
}

TEST_CASE("SurvivalProbability: 1 - q of any DropProbability is valid", "[survival_probability]") {
    CHECK(SurvivalProbability{DropProbability{0.0}}.value() == 1.0);
    CHECK(SurvivalProbability{DropProbability{5e-324}}.value() == 1.0);
    CHECK(SurvivalProbability{DropProbability{std::nextafter(1.0, 0.0)}}.value() == 0x1p-53);
}

}  // namespace
