// SPDX-License-Identifier: MIT
#include <stochastic_depth/analysis/roc.hpp>

#include <cmath>
#include <limits>

#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/uniform.hpp>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;

TEST_CASE("area_under_roc: by hand", "[roc]") {
    const Eigen::VectorXd scores{{0.1, 0.4, 0.35, 0.8}};
    CHECK(area_under_roc(scores, Eigen::VectorXi{{0, 0, 1, 1}}) == 0.75);
    CHECK(area_under_roc(scores, Eigen::VectorXi{{0, 1, 0, 1}}) == 1);
    CHECK(area_under_roc(scores, Eigen::VectorXi{{1, 0, 1, 0}}) == 0);
    CHECK(area_under_roc(Eigen::VectorXd::Zero(4), Eigen::VectorXi{{1, 0, 1, 1}}) == 0.5);
    CHECK(area_under_roc(-scores, Eigen::VectorXi{{0, 0, 1, 1}}) == 0.25);
    // One tie among the four pairs.
    CHECK(area_under_roc(Eigen::VectorXd{{1, 2, 2, 3}}, Eigen::VectorXi{{0, 0, 1, 1}}) == 0.875);
    const double infinity = std::numeric_limits<double>::infinity();
    CHECK(area_under_roc(Eigen::VectorXd{{-infinity, 0, infinity, infinity}},
                         Eigen::VectorXi{{0, 1, 0, 1}}) == 0.625);
}

TEST_CASE("area_under_roc: NaN where one class is empty", "[roc]") {
    const Eigen::VectorXd scores{{0.1, 0.4}};
    CHECK(std::isnan(area_under_roc(scores, Eigen::VectorXi{{0, 0}})));
    CHECK(std::isnan(area_under_roc(scores, Eigen::VectorXi{{1, 1}})));
    CHECK(std::isnan(area_under_roc(Eigen::VectorXd(0), Eigen::VectorXi(0))));
}

TEST_CASE("area_under_roc: the definition, pair by pair, on random scores with and without ties",
          "[roc]") {
    Philox random{3};
    for (int trial = 0; trial < 300; ++trial) {
        const Index n = 2 + trial % 60;
        const double levels = trial % 3 == 0 ? 3 : trial % 3 == 1 ? 20 : 1e12;
        Eigen::VectorXf scores(n);
        Eigen::Array<bool, Eigen::Dynamic, 1> positives(n);
        for (Index i = 0; i < n; ++i) {
            scores(i) = static_cast<float>(std::floor(levels * uniform<double>(random)));
            positives(i) = uniform<double>(random) < 0.3;
        }
        positives(0) = true;
        positives(1) = false;
        double right = 0, pairs = 0;
        for (Index i = 0; i < n; ++i)
            for (Index j = 0; j < n; ++j) {
                if (!positives(i) || positives(j)) continue;
                right += scores(i) > scores(j) ? 1 : scores(i) == scores(j) ? 0.5 : 0;
                pairs += 1;
            }
        CHECK(area_under_roc(scores, positives) == right / pairs);
        // Rows, expressions and the other scalar do as well.
        CHECK(area_under_roc(scores.cast<double>().transpose(), positives.cast<int>()) ==
              right / pairs);
    }
}

}  // namespace
