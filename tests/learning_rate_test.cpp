// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/learning_rate.hpp>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using test::refusal;
/// What the trainer's options hold.
using Schedule = std::function<double(double)>;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double just_before_the_end = 0x1.fffffffffffffp-1;

TEST_CASE("ConstantLearningRate: is the rate throughout", "[learning_rate]") {
    const Schedule rate = ConstantLearningRate{0.3};
    for (const double t : {0.0, 0.5, just_before_the_end, 1.0}) CHECK(rate(t) == 0.3);
}

TEST_CASE("StepLearningRate: steps at each milestone, by hand", "[learning_rate]") {
    const Schedule paper = StepLearningRate{{}};
    CHECK(paper(0) == 0.1);
    CHECK(paper(0.4999) == 0.1);
    CHECK(paper(0.5) == 0.1 * 0.1);
    CHECK(paper(0.7499) == 0.1 * 0.1);
    CHECK(paper(0.75) == 0.1 * 0.1 * 0.1);
    CHECK(paper(1) == 0.1 * 0.1 * 0.1);

    const Schedule halving{
        StepLearningRate{{.initial = 8, .factor = 0.5, .milestones = {0, 0.25, 0.25, 1}}}};
    CHECK(halving(0) == 4);
    CHECK(halving(0.25) == 1);
    CHECK(halving(just_before_the_end) == 1);
    CHECK(halving(1) == 0.5);

    const Schedule never{StepLearningRate{{.initial = 2, .milestones = {}}}};
    CHECK(never(0) == 2);
    CHECK(never(1) == 2);
    const Schedule rising{StepLearningRate{{.initial = 2, .factor = 3, .milestones = {0.5}}}};
    CHECK(rising(0.6) == 6);
}

TEST_CASE("CosineLearningRate: agrees with its formula, ends exact", "[learning_rate]") {
    const double pi = std::acos(-1.0);
    for (const double initial : {1e-3, 0.1, 5.0})
        for (const double share : {0.0, 0.01, 0.5, 1.0}) {
            const double last = share * initial;
            const Schedule rate = CosineLearningRate{{.initial = initial, .last = last}};
            for (int k = 0; k <= 100; ++k) {
                const double t = k / 100.0;
                const double expected = last + (initial - last) * (1 + std::cos(pi * t)) / 2;
                REQUIRE(std::abs(rate(t) - expected) <= 5e-16 * initial);
            }
            CHECK(rate(0) == initial);
            CHECK(rate(1) == last);
        }
    CHECK(CosineLearningRate{{.initial = 0.5}}(1) == 0);
}

TEST_CASE("CosineLearningRate: falls all the way, and is above 0 before the end",
          "[learning_rate]") {
    const CosineLearningRate rate{{.initial = 0.1}};
    double before = inf;
    for (int k = 0; k < 100000; ++k) {
        const double now = rate(k / 100000.0);
        REQUIRE(now > 0);
        REQUIRE(now < before);
        before = now;
    }
    // 1 + cos(pi t) is 0 here in double.
    for (const double rest : {1e-8, 1e-9, 1e-12, 0x1p-53}) CHECK(rate(1 - rest) > 0);
}

TEST_CASE("LinearWarmUp: rises to the schedule that follows it, by hand", "[learning_rate]") {
    const Schedule rate =
        LinearWarmUp{{.share = 0.25, .start = 0.5}, CosineLearningRate{{.initial = 2}}};
    CHECK(rate(0) == 1);
    CHECK(rate(0.125) == 1.5);
    CHECK(rate(0.25) == 2);
    // A third and two thirds of the cosine.
    CHECK(std::abs(rate(0.5) - 1.5) <= 1e-15);
    CHECK(std::abs(rate(0.75) - 0.5) <= 1e-15);
    CHECK(rate(just_before_the_end) > 0);
    CHECK(rate(1) == 0);

    const Schedule steps = LinearWarmUp{{.share = 0.5}, StepLearningRate{{}}};
    CHECK(std::abs(steps(0) - 0.001) <= 1e-18);
    CHECK(steps(0.5) == 0.1);
    CHECK(steps(0.75) == 0.1 * 0.1);
}

TEST_CASE("LinearWarmUp: without a share, the other schedule alone", "[learning_rate]") {
    const CosineLearningRate cosine{{.initial = 0.3, .last = 0.01}};
    const LinearWarmUp rate{{.share = 0}, cosine};
    for (const double t : {0.0, 0.1, 0.5, 0.99, 1.0}) CHECK(rate(t) == cosine(t));
}

TEST_CASE("LinearWarmUp: takes any function, which sees [0, 1]", "[learning_rate]") {
    std::vector<double> seen;
    const LinearWarmUp rate{{.share = 0.3}, [&](double t) {
                                seen.push_back(t);
                                return 2.0;
                            }};
    for (const double t : {0.0, 0.2, 0.3, 0.5, just_before_the_end, 1.0}) (void)rate(t);
    REQUIRE(seen.size() == 6);
    CHECK(seen[0] == 0);
    CHECK(seen[1] == 0);
    CHECK(seen[2] == 0);
    CHECK(std::abs(seen[3] - 2.0 / 7) <= 1e-16);
    CHECK(seen[4] <= 1);
    CHECK(seen[5] == 1);
    // Warm-ups nest: to 0.1 in the first quarter, then on to 1 in the next.
    const LinearWarmUp twice{
        {.share = 0.25, .start = 0.5},
        LinearWarmUp{{.share = 1.0 / 3, .start = 0.1}, ConstantLearningRate{1}}};
    CHECK(std::abs(twice(0) - 0.05) <= 1e-16);
    CHECK(std::abs(twice(0.25) - 0.1) <= 1e-16);
    CHECK(std::abs(twice(0.375) - 0.55) <= 1e-15);
    CHECK(twice(0.75) == 1);
}

TEST_CASE("learning rates: progress outside [0, 1] is refused by name", "[learning_rate]") {
    const std::vector<std::pair<std::string, Schedule>> all{
        {"ConstantLearningRate", ConstantLearningRate{1}},
        {"StepLearningRate", StepLearningRate{{}}},
        {"CosineLearningRate", CosineLearningRate{{}}},
        {"LinearWarmUp", LinearWarmUp{{}, ConstantLearningRate{1}}}};
    for (const auto& [name, schedule] : all)
        for (const double progress : {-0.1, 1.1, inf, nan})
            CHECK(refusal([&, run = schedule] {
                      (void)run(progress);
                  }).find(name + ": progress must lie in [0, 1], got ") == 0);
}

TEST_CASE("learning rates: bad options are refused by name", "[learning_rate]") {
    for (const double bad : {0.0, -0.1, inf, nan}) {
        CHECK(refusal([&] {
                  (void)ConstantLearningRate{bad};
              }).find("ConstantLearningRate: rate must be finite and above 0, got ") == 0);
        CHECK(refusal([&] {
                  (void)StepLearningRate{{.initial = bad}};
              }).find("StepLearningRate: initial must be finite and above 0, got ") == 0);
        CHECK(refusal([&] {
                  (void)StepLearningRate{{.factor = bad}};
              }).find("StepLearningRate: factor must be finite and above 0, got ") == 0);
        CHECK(refusal([&] {
                  (void)CosineLearningRate{{.initial = bad}};
              }).find("CosineLearningRate: initial must be finite and above 0, got ") == 0);
    }
    for (const double bad : {-0.1, 1.1, nan})
        CHECK(refusal([&] {
                  (void)StepLearningRate{{.milestones = {0, bad}}};
              }).find("StepLearningRate: milestones must ascend in [0, 1], got ") == 0);
    CHECK(refusal([] {
              (void)StepLearningRate{{.milestones = {0.5, 0.25}}};
          }) == "StepLearningRate: milestones must ascend in [0, 1], got 0.25 after 0.5");
    CHECK(refusal([] { (void)StepLearningRate{{.initial = 1e-300, .factor = 1e-300}}; }) ==
          "StepLearningRate: the rate after each milestone must be finite and above 0, got 0");
    for (const double bad : {-0.1, 0.2, inf, nan})
        CHECK(refusal([&] {
                  (void)CosineLearningRate{{.initial = 0.1, .last = bad}};
              }).find("CosineLearningRate: last must lie in [0, 0.1], got ") == 0);
    for (const double bad : {-0.1, 1.0, inf, nan})
        CHECK(refusal([&] {
                  (void)LinearWarmUp{{.share = bad}, ConstantLearningRate{1}};
              }).find("LinearWarmUp: share must lie in [0, 1), got ") == 0);
    for (const double bad : {-0.1, 0.0, 1.1, nan})
        CHECK(refusal([&] {
                  (void)LinearWarmUp{{.start = bad}, ConstantLearningRate{1}};
              }).find("LinearWarmUp: start must lie in (0, 1], got ") == 0);
}

}  // namespace
