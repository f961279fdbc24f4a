// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/time_schedules.hpp>

#include <cmath>
#include <limits>
#include <string>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using test::refusal;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

TEST_CASE("SurvivalWarmUp: falls from 1 to the target over its share, then stays, by hand",
          "[time_schedules]") {
    const SurvivalWarmUp warm_up{0.5};
    CHECK(warm_up(0.5, 0.0) == 1.0);
    CHECK(warm_up(0.5, 0.125) == 0.875);
    CHECK(warm_up(0.5, 0.25) == 0.75);
    CHECK(warm_up(0.5, 0.375) == 0.625);
    for (const double progress : {0.5, 0.75, 1.0}) CHECK(warm_up(0.5, progress) == 0.5);
}

TEST_CASE(
    "SurvivalWarmUp: without a share the target holds from the start, with all of it to the end",
    "[time_schedules]") {
    CHECK(SurvivalWarmUp{0.0}(0.3, 0.0) == 0.3);
    CHECK(SurvivalWarmUp{0.0}(0.3, 1.0) == 0.3);
    CHECK(SurvivalWarmUp{5e-324}(0.3, 0.0) == 1.0);
    CHECK(SurvivalWarmUp{5e-324}(0.3, 1e-9) == 0.3);
    CHECK(SurvivalWarmUp{1.0}(0.3, 1.0) == 0.3);
    CHECK(SurvivalWarmUp{1.0}(0.3, 0.999) > 0.3);
    CHECK(SurvivalWarmUp{1.0}(0.3, 0.999) < 0.301);
}

TEST_CASE("ProgressiveLayerDropping: agrees with its formula in long double", "[time_schedules]") {
    for (const double gamma : {1e-6, 0.001, 0.1, 3.0})
        for (const double target : {1e-9, 0.3, 0.5, 0.9, 1.0}) {
            const ProgressiveLayerDropping schedule{gamma};
            for (const Index step : {0, 1, 2, 10, 1000, 1000000}) {
                const long double exact = (1 - static_cast<long double>(target)) *
                                              std::exp(-static_cast<long double>(gamma) *
                                                       static_cast<long double>(step)) +
                                          static_cast<long double>(target);
                REQUIRE(std::abs(static_cast<double>(schedule(target, step) - exact)) <= 3e-16);
            }
        }
}

TEST_CASE("ProgressiveLayerDropping: starts at 1 and ends at the target, by hand",
          "[time_schedules]") {
    // exp(-t log 2) halves the rest of the way in each step.
    const ProgressiveLayerDropping schedule{std::log(2.0)};
    CHECK(schedule(0.5, 0) == 1.0);
    CHECK(std::abs(schedule(0.5, 1) - 0.75) <= 2e-16);
    CHECK(std::abs(schedule(0.5, 2) - 0.625) <= 2e-16);
    CHECK(std::abs(schedule(0.5, 3) - 0.5625) <= 2e-16);
    CHECK(schedule(0.5, 100) == 0.5);
    CHECK(schedule(0.5, std::numeric_limits<Index>::max()) == 0.5);
    CHECK(ProgressiveLayerDropping{1e300}(0.3, 1000000000) == 0.3);
}

TEST_CASE("time schedules: never rise, stay in [target, 1]", "[time_schedules]") {
    for (const double target : {5e-324, 0.1, 0.3, 0.7, std::nextafter(1.0, 0.0), 1.0}) {
        const SurvivalWarmUp warm_up{0.37};
        const ProgressiveLayerDropping dropping{0.013};
        double last_warm = 1, last_dropped = 1;
        for (Index step = 0; step <= 1000; ++step) {
            const double warm = warm_up(target, static_cast<double>(step) / 1000);
            const double dropped = dropping(target, step);
            REQUIRE(warm <= last_warm);
            REQUIRE(warm >= target);
            REQUIRE(dropped <= last_dropped);
            REQUIRE(dropped >= target);
            last_warm = warm;
            last_dropped = dropped;
        }
        CHECK(last_warm == target);
    }
}

TEST_CASE("time schedules: a vector of targets is each of them by itself", "[time_schedules]") {
    const Eigen::VectorXd targets = (Eigen::VectorXd(3) << 1.0, 0.7, 0.2).finished();
    const Eigen::VectorXd warm = SurvivalWarmUp{0.3}(targets, 0.1);
    const Eigen::VectorXd dropped = ProgressiveLayerDropping{0.1}(targets, 7);
    REQUIRE(warm.size() == 3);
    REQUIRE(dropped.size() == 3);
    for (Index l = 0; l < 3; ++l) {
        CHECK(warm(l) == SurvivalWarmUp{0.3}(targets(l), 0.1));
        CHECK(dropped(l) == ProgressiveLayerDropping{0.1}(targets(l), 7));
    }
    CHECK(SurvivalWarmUp{0.3}(Eigen::VectorXd(), 0.1).size() == 0);
    CHECK(ProgressiveLayerDropping{0.1}(Eigen::VectorXd(), 7).size() == 0);
}

TEST_CASE("time schedules: bad input is refused by name", "[time_schedules]") {
    for (const double share : {-0.1, 1.1, inf, nan})
        CHECK(refusal([&] {
                  (void)SurvivalWarmUp{share};
              }).find("SurvivalWarmUp: share must lie in [0, 1], got ") == 0);
    for (const double gamma : {0.0, -0.1, inf, nan})
        CHECK(refusal([&] {
                  (void)ProgressiveLayerDropping{gamma};
              }).find("ProgressiveLayerDropping: gamma must be finite and above 0, got ") == 0);
    const SurvivalWarmUp warm_up{0.5};
    const ProgressiveLayerDropping dropping{0.5};
    for (const double progress : {-0.1, 1.1, nan})
        CHECK(refusal([&] {
                  (void)warm_up(0.5, progress);
              }).find("SurvivalWarmUp: progress must lie in [0, 1], got ") == 0);
    CHECK(refusal([&] { (void)dropping(0.5, -1); }) ==
          "ProgressiveLayerDropping: step must be at least 0, got -1");
    for (const double target : {0.0, -0.5, 1.5, nan}) {
        const std::string expected = ": target survival probability must lie in (0, 1], got ";
        CHECK(refusal([&] { (void)warm_up(target, 1.0); }).find("SurvivalWarmUp" + expected) == 0);
        CHECK(refusal([&] {
                  (void)dropping(target, 3);
              }).find("ProgressiveLayerDropping" + expected) == 0);
        const Eigen::VectorXd targets = (Eigen::VectorXd(2) << 0.5, target).finished();
        const std::string of_vector = ": survival probability p(1) must lie in (0, 1], got ";
        CHECK(refusal([&] { (void)warm_up(targets, 0.1); }).find("SurvivalWarmUp" + of_vector) ==
              0);
        CHECK(refusal([&] {
                  (void)dropping(targets, 3);
              }).find("ProgressiveLayerDropping" + of_vector) == 0);
    }
}

TEST_CASE("Early and late stochastic depth: the targets in one part, 1 in the other, by hand",
          "[time_schedules]") {
    const Eigen::VectorXd targets = Eigen::Vector3d{0.9, 0.7, 0.5};
    const Eigen::VectorXd ones = Eigen::VectorXd::Ones(3);
    for (const double progress : {0.0, 0.1, 0.24}) {
        CHECK(EarlyStochasticDepth{0.25}(targets, progress) == targets);
        CHECK(LateStochasticDepth{0.25}(targets, progress) == ones);
        CHECK(EarlyStochasticDepth{0.25}(0.3, progress) == 0.3);
    }
    for (const double progress : {0.25, 0.5, 1.0}) {
        CHECK(EarlyStochasticDepth{0.25}(targets, progress) == ones);
        CHECK(LateStochasticDepth{0.25}(targets, progress) == targets);
        CHECK(LateStochasticDepth{0.25}(0.3, progress) == 0.3);
    }
    CHECK(EarlyStochasticDepth{0.5}(targets, TrainingTime{.step = 4, .steps = 10}) == targets);
    CHECK(EarlyStochasticDepth{0.5}(targets, TrainingTime{.step = 5, .steps = 10}) == ones);
    CHECK(LateStochasticDepth{0.5}(targets, TrainingTime{.step = 5, .steps = 10}) == targets);
    CHECK(EarlyStochasticDepth{0.0}(0.3, 0.0) == 1.0);
    CHECK(LateStochasticDepth{0.0}(0.3, 0.0) == 0.3);
}

TEST_CASE("Early and late stochastic depth: what lies outside the ranges is refused",
          "[time_schedules]") {
    for (const double bad : {-0.1, 1.1, nan, inf}) {
        CHECK(refusal([&] { (void)EarlyStochasticDepth{bad}; }).find("share must lie in [0, 1]") !=
              std::string::npos);
        CHECK(refusal([&] { (void)LateStochasticDepth{bad}; }).find("share must lie in [0, 1]") !=
              std::string::npos);
        CHECK(refusal([&] { (void)EarlyStochasticDepth{0.5}(0.5, bad); })
                  .find("progress must lie in [0, 1]") != std::string::npos);
        CHECK(refusal([&] { (void)LateStochasticDepth{0.5}(0.5, bad); })
                  .find("progress must lie in [0, 1]") != std::string::npos);
        CHECK(refusal([&] { (void)EarlyStochasticDepth{0.5}(bad, 0.2); }).find("target survival") !=
              std::string::npos);
    }
}

}  // namespace
