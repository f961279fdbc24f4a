// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/expected_value.hpp>

#include <cmath>
#include <limits>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/exact_sensitivity.hpp>
#include <stochastic_depth/expectation/mask_values.hpp>
#include <stochastic_depth/survival/independent_law.hpp>

#include "support/catch.hpp"
#include "support/laws.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"
#include "support/structures.hpp"

namespace {

using namespace stochastic_depth;
using test::refusal;

TEST_CASE("expected_value: the sum over all masks, and its derivatives", "[expected_value]") {
    Philox random{1};
    for (Index depth = 0; depth <= 8; ++depth) {
        const Eigen::VectorXd v = test::random_matrix<double>(random, Index{1} << depth, 1);
        Eigen::VectorXd p = test::random_probabilities(random, depth);
        if (depth > 2) p(depth / 2) = 1;
        const auto sum = [&](const Eigen::VectorXd& q, Index layer, bool kept) {
            double total = 0;
            for (Index bits = 0; bits < v.size(); ++bits) {
                double product = layer < 0 || ((bits >> layer & 1) == 1) == kept ? 1 : 0;
                for (Index l = 0; l < depth; ++l)
                    if (l != layer) product *= (bits >> l & 1) == 1 ? q(l) : 1 - q(l);
                total += product * v(bits);
            }
            return total;
        };
        const ExpectedValue expected = expected_value(v, p);
        CHECK(std::abs(expected.value - sum(p, -1, true)) <= 1e-14);
        REQUIRE(expected.by_survival_probability.size() == depth);
        for (Index l = 0; l < depth; ++l)
            CHECK(std::abs(expected.by_survival_probability(l) -
                           (sum(p, l, true) - sum(p, l, false))) <= 1e-14);
    }
}

TEST_CASE("expected_value: of a network's outputs it is f_SD and its sensitivities, for any p",
          "[expected_value]") {
    test::Structures make{2};
    const auto network = make.nested();
    const auto x = test::random_matrix<double>(make.random, 5, 1);
    const Eigen::VectorXd values = mask_values(
        network, x, [](const ConstMatrixRef<double>& y) { return 2 * y(0, 0) - y(2, 0); });
    const Eigen::VectorXd p = test::random_probabilities(make.random, network.depth());
    const Eigen::VectorXd slopes = Eigen::Vector3d(2, 0, -1);
    const auto exact = ExactSensitivity{}(network, x, IndependentLaw{p});
    const ExpectedValue expected = expected_value(values, p);
    CHECK(std::abs(expected.value - slopes.dot(exact.expectation.mean.col(0))) <= 1e-13);
    CHECK((expected.by_survival_probability - exact.by_layer.contract(slopes))
              .cwiseAbs()
              .maxCoeff() <= 1e-13);
    CHECK((exact.expectation.mean - ExactExpectation{}(network, x, IndependentLaw{p}).mean)
              .cwiseAbs()
              .maxCoeff() <= 1e-14);
    CHECK(refusal([&] { (void)ExactSensitivity{}(network, x, IndependentLaw{p.head(2)}); }) ==
          detail::message("ExactSensitivity: law must have ", p.size(), " layers, got 2"));
}

TEST_CASE("expected_value: what has no probability has no part", "[expected_value]") {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    // v(s_1, s_2) with s_1 = 0 nowhere to be reached.
    const Eigen::VectorXd v = (Eigen::VectorXd(4) << nan, 3, nan, 5).finished();
    const ExpectedValue expected = expected_value(v, Eigen::Vector2d(1, 0.5));
    CHECK(expected.value == 4);
    CHECK(expected.by_survival_probability(1) == 2);
    CHECK(std::isnan(expected.by_survival_probability(0)));
}

TEST_CASE("expected_value: wrong sizes and probabilities are refused", "[expected_value]") {
    CHECK(refusal([] {
              (void)expected_value(Eigen::VectorXd::Zero(5), Eigen::VectorXd::Constant(2, 0.5));
          }) == "expected_value: mask_values must be 2^2, got 5");
    CHECK(refusal([] {
              (void)expected_value(Eigen::VectorXd::Zero(2), Eigen::VectorXd::Constant(1, 0.0));
          }) == "expected_value: survival probability p(0) must lie in (0, 1], got 0");
    CHECK(refusal([] {
              (void)expected_value(Eigen::VectorXd::Zero(1), Eigen::VectorXd::Constant(64, 0.5));
          }) == "expected_value: mask_values must be 2^64, got 1");
    CHECK(expected_value(Eigen::VectorXd::Constant(1, 7), Eigen::VectorXd()).value == 7);
}

}  // namespace
