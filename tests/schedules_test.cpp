// SPDX-License-Identifier: MIT
#include <stochastic_depth/survival/schedules.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using test::refusal;

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

using Schedule = Eigen::VectorXd (*)(Index depth, double last);

struct Named {
    const char* name;
    Schedule schedule;
};

Eigen::VectorXd gentle_sigmoid(Index depth, double last) { return sigmoid_decay(depth, last, 4); }
Eigen::VectorXd sigmoid(Index depth, double last) { return sigmoid_decay(depth, last); }
Eigen::VectorXd steep_sigmoid(Index depth, double last) { return sigmoid_decay(depth, last, 1000); }
Eigen::VectorXd three_steps(Index depth, double last) { return step_decay(depth, last, 3); }

/// Every schedule that falls from about 1 to p_L.
const Named falling[] = {{"linear_decay", linear_decay},
                         {"linear_decay_with_endpoints", linear_decay_with_endpoints},
                         {"sigmoid_decay", sigmoid},
                         {"sigmoid_decay", gentle_sigmoid},
                         {"sigmoid_decay", steep_sigmoid},
                         {"cosine_decay", cosine_decay},
                         {"logarithmic_decay", logarithmic_decay},
                         {"exponential_decay", exponential_decay},
                         {"step_decay", three_steps}};

void check_values(const Eigen::VectorXd& p, const std::vector<double>& expected) {
    REQUIRE(p.size() == static_cast<Index>(expected.size()));
    for (Index l = 0; l < p.size(); ++l) {
        INFO("layer " << l + 1);
        CHECK(std::abs(p(l) - expected[static_cast<std::size_t>(l)]) <= 2e-16);
    }
}

TEST_CASE("schedules: short ones by hand", "[schedules]") {
    check_values(linear_decay_with_endpoints(5, 0.5), {1, 0.875, 0.75, 0.625, 0.5});
    check_values(linear_decay_with_endpoints(2, 0.3), {1, 0.3});
    // (1 - cos(pi l/4)) / 2 = (1 - 1/sqrt 2) / 2, 1/2, (1 + 1/sqrt 2) / 2, 1.
    check_values(cosine_decay(4, 0.5),
                 {1 - 0.25 * (1 - std::sqrt(0.5)), 0.75, 1 - 0.25 * (1 + std::sqrt(0.5)), 0.5});
    // log 2 / log 8, log 4 / log 8 = 1/3, 2/3; the other layers lie between.
    const Eigen::VectorXd logarithmic = logarithmic_decay(7, 0.4);
    CHECK(std::abs(logarithmic(0) - 0.8) <= 2e-16);
    CHECK(std::abs(logarithmic(2) - 0.6) <= 2e-16);
    CHECK(std::abs(logarithmic(6) - 0.4) <= 2e-16);
    check_values(exponential_decay(3, 0.125), {0.5, 0.25, 0.125});
    check_values(exponential_decay(4, 0.0625), {0.5, 0.25, 0.125, 0.0625});
    // k = ceil(2 l / 4) = 1, 1, 2, 2; ceil(2 l / 5) = 1, 1, 2, 2, 2; ceil(3 l / 4) = 1, 2, 3, 3.
    check_values(step_decay(4, 0.5, 2), {0.75, 0.75, 0.5, 0.5});
    check_values(step_decay(5, 0.5, 2), {0.75, 0.75, 0.5, 0.5, 0.5});
    check_values(step_decay(4, 0.25, 3), {0.75, 0.5, 0.25, 0.25});
    // With k = 2 log 9 the logistic function is 1/10 at 0 and 9/10 at 1, and 1/4 at 1/4:
    // 1 / (1 + exp(k/4)) = 1 / (1 + 3). g = (1/4 - 1/10) / (8/10) = 3/16, 1/2, 13/16, 1.
    const Eigen::VectorXd p = sigmoid_decay(4, 0.2, 2 * std::log(9.0));
    CHECK(std::abs(p(0) - 0.85) <= 1e-15);
    CHECK(std::abs(p(1) - 0.6) <= 1e-15);
    CHECK(std::abs(p(2) - 0.35) <= 1e-15);
    CHECK(p(3) == 0.2);
}

TEST_CASE("schedules: agree with their formulas in long double", "[schedules]") {
    const long double pi = std::acos(-1.0L);
    for (const Index depth : {2, 3, 7, 54, 1000})
        for (const double last : {1e-9, 0.1, 0.3, 0.5, 0.8, 1.0}) {
            const long double layers = static_cast<long double>(depth), p_l = last, fall = 1 - p_l;
            const auto logistic = [](long double z) { return 1 / (1 + std::exp(-z)); };
            const auto all = {linear_decay_with_endpoints(depth, last),
                              sigmoid_decay(depth, last, 7),
                              cosine_decay(depth, last),
                              logarithmic_decay(depth, last),
                              exponential_decay(depth, last),
                              step_decay(depth, last, 5)};
            for (Index index = 1; index <= depth; ++index) {
                const long double l = static_cast<long double>(index);
                const long double stages = std::min(5.0L, layers);
                const long double expected[] = {
                    1 - (l - 1) / (layers - 1) * fall,
                    1 - (logistic(7 * (l / layers - 0.5L)) - logistic(-3.5L)) /
                            (logistic(3.5L) - logistic(-3.5L)) * fall,
                    1 - (1 - std::cos(pi * l / layers)) / 2 * fall,
                    1 - std::log(1 + l) / std::log(1 + layers) * fall,
                    std::pow(p_l, l / layers),
                    1 - std::ceil(stages * l / layers) / stages * fall};
                const long double* next = expected;
                for (const Eigen::VectorXd& p : all) {
                    INFO("schedule " << next - expected << ", layer " << index << " of " << depth);
                    // A few roundings of numbers of at most 1; the power's exponent is rounded too,
                    // and log p_L = -21 multiplies that.
                    REQUIRE(std::abs(static_cast<double>(p(index - 1) - *next++)) <= 1e-15);
                }
            }
        }
}

TEST_CASE("schedules: end exactly at p_L and never rise, one layer has p_L", "[schedules]") {
    for (const auto& [name, schedule] : falling)
        for (const Index depth : {1, 2, 3, 10, 49, 54, 1000})
            for (const double last : {5e-324, 1e-9, 0.1, 0.3, 0.7, std::nextafter(1.0, 0.0), 1.0}) {
                INFO(name << ", L = " << depth << ", p_L = " << last);
                const Eigen::VectorXd p = schedule(depth, last);
                REQUIRE(p.size() == depth);
                CHECK(p(depth - 1) == last);
                for (Index l = 0; l + 1 < depth; ++l) REQUIRE(p(l) >= p(l + 1));
                CHECK((p.array() > 0.0 && p.array() <= 1.0).all());
            }
}

TEST_CASE("schedules: p_L = 1 keeps every layer, no layers have no probabilities", "[schedules]") {
    for (const auto& [name, schedule] : falling) {
        INFO(name);
        CHECK((schedule(54, 1.0).array() == 1.0).all());
        CHECK(schedule(0, 0.5).size() == 0);
    }
}

TEST_CASE("step_decay: one stage is uniform, as many as layers or more are linear_decay",
          "[schedules]") {
    CHECK((step_decay(6, 0.3, 1).array() == 0.3).all());
    for (const Index stages : {Index(7), Index(8), std::numeric_limits<Index>::max()})
        check_values(step_decay(7, 0.3, stages), [] {
            const Eigen::VectorXd p = linear_decay(7, 0.3);
            return std::vector<double>(p.begin(), p.end());
        }());
}

TEST_CASE("sigmoid_decay: falls from linear to a step as it steepens", "[schedules]") {
    const Eigen::VectorXd gentle = sigmoid_decay(10, 0.5, 1e-3), linear = linear_decay(10, 0.5);
    // tanh(z)/z = 1 - z^2/3, z = 2.5e-4.
    CHECK((gentle - linear).cwiseAbs().maxCoeff() <= 1e-8);
    const Eigen::VectorXd step = steep_sigmoid(10, 0.5);
    CHECK((step.head(4).array() == 1.0).all());
    CHECK(step(4) == 0.75);
    CHECK((step.tail(5).array() == 0.5).all());
}

TEST_CASE("custom_survival: hands on any survival probabilities", "[schedules]") {
    const Eigen::VectorXd p = (Eigen::VectorXd(3) << 0.2, 1.0, 5e-324).finished();
    CHECK((custom_survival(p).array() == p.array()).all());
    CHECK(custom_survival(Eigen::VectorXd()).size() == 0);
    for (const double bad : {0.0, -0.1, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
        Eigen::VectorXd q = p;
        q(1) = bad;
        const std::string message = refusal([&] { (void)custom_survival(q); });
        INFO(message);
        CHECK(message.find("custom_survival: survival probability p(1) must lie in (0, 1], got ") ==
              0);
    }
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
        for (const auto& [name, schedule] : falling) {
            const std::string message =
                refusal([&, run = schedule] { (void)run(bad.depth, bad.p); });
            INFO(message);
            CHECK(message.find(name + std::string(": ")) == 0);
            CHECK(message.find(bad.got) != std::string::npos);
        }
        const std::string uniform = refusal([&] { (void)uniform_survival(bad.depth, bad.p); });
        CHECK(uniform.find("uniform_survival: ") == 0);
        CHECK(uniform.find(bad.got) != std::string::npos);
    }
}

TEST_CASE("schedules: bad shapes are refused by name", "[schedules]") {
    for (const double steepness : {0.0, -1.0, 9e-4, 1001.0, std::numeric_limits<double>::infinity(),
                                   std::numeric_limits<double>::quiet_NaN()}) {
        const std::string message = refusal([&] { (void)sigmoid_decay(3, 0.5, steepness); });
        INFO(message);
        CHECK(message.find("sigmoid_decay: steepness must lie in [0.001, 1000], got ") == 0);
    }
    for (const Index stages : {0, -3}) {
        const std::string message = refusal([&] { (void)step_decay(3, 0.5, stages); });
        INFO(message);
        CHECK(message == "step_decay: stages must be at least 1, got " + std::to_string(stages));
    }
}

}  // namespace
