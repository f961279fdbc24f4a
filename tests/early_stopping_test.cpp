// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/early_stopping.hpp>

#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/normalisation/batch_norm.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using Network = Sequential<Linear<double>, BatchNorm<double>>;
using test::refusal;

constexpr double nan_ = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

/// Every parameter and statistic is `value`, of `width` features.
Network filled(double value, Index width = 3) {
    const Eigen::VectorXd all = Eigen::VectorXd::Constant(width, value);
    return Network{Linear<double>{Eigen::MatrixXd::Constant(width, 2, value), all},
                   BatchNorm<double>{all, all, all, all}};
}

/// The calls after which it stops, of these losses; 0: never.
int stops_after(EarlyStoppingOptions options, const std::vector<double>& losses) {
    EarlyStopping stopping{options};
    const Network network = filled(1);
    int calls = 0;
    for (const double loss : losses) {
        ++calls;
        if (!stopping.goes_on(network, loss)) return calls;
    }
    return 0;
}

TEST_CASE("EarlyStopping: it stops after so many epochs in a row without an improvement",
          "[early_stopping]") {
    CHECK(stops_after({.patience = 1}, {3, 2, 1, 1}) == 4);
    CHECK(stops_after({.patience = 2}, {3, 4, 2, 2.5, 1, 1, 1}) == 7);
    CHECK(stops_after({.patience = 3}, {3, 4, 2, 2.5, 1, 1, 1}) == 0);
    CHECK(stops_after({.patience = 2, .min_delta = 0.5}, {3, 2.6, 2.5, 1}) == 3);
    CHECK(stops_after({.patience = 2, .min_delta = 0.5}, {3, 2.6, 2.4, 2, 1.9}) == 5);
    // Slow but steady: the sum of small steps counts, since they are measured from the best.
    CHECK(stops_after({.patience = 2, .min_delta = 0.5}, {3, 2.7, 2.4, 2.1, 1.8}) == 0);
    CHECK(stops_after({.patience = 2}, {nan_, 1, nan_, inf}) == 4);
    CHECK(stops_after({.patience = 2}, {nan_, nan_}) == 2);
    CHECK(stops_after({.patience = 2}, {inf, inf}) == 2);
    CHECK(stops_after({}, std::vector<double>(11, 1.0)) == 11);
}

TEST_CASE("EarlyStopping: the best network comes back bit for bit, its statistics too",
          "[early_stopping]") {
    EarlyStopping stopping;
    Network network = filled(5);
    stopping.restore(network);  // nothing kept: nothing changed
    CHECK(test::same_bits(test::parameters(network), test::parameters(filled(5))));
    CHECK(stopping.best() == inf);
    for (const double loss : {3.0, 0.7, 1.0}) CHECK(stopping.goes_on(filled(loss), loss));
    CHECK(stopping.goes_on(filled(9), nan_));
    CHECK(stopping.best() == 0.7);
    stopping.restore(network);
    CHECK(test::same_bits(test::parameters(network), test::parameters(filled(0.7))));
    const BatchNorm<double>& norm = std::get<1>(network.layers());
    CHECK((norm.running_mean().array() == 0.7).all());
    CHECK((norm.running_variance().array() == 0.7).all());
}

TEST_CASE("EarlyStopping: bad options and another network are refused", "[early_stopping]") {
    for (const Index patience : {0, -1})
        CHECK(refusal([&] { (void)EarlyStopping{{.patience = patience}}; }) ==
              "EarlyStopping: patience must be at least 1, got " + std::to_string(patience));
    for (const double min_delta : {-0.1, nan_, inf})
        CHECK(refusal([&] {
                  (void)EarlyStopping{{.min_delta = min_delta}};
              }).starts_with("EarlyStopping: min_delta must be finite and at least 0, got "));
    EarlyStopping stopping;
    REQUIRE(stopping.goes_on(filled(1), 0.5));
    Network other = filled(2, 4);
    CHECK(refusal([&] { stopping.restore(other); }) ==
          "EarlyStopping: network must have 168 bytes of parameters, as the one that was kept, got "
          "224");
    CHECK(test::same_bits(test::parameters(other), test::parameters(filled(2, 4))));
}

}  // namespace
