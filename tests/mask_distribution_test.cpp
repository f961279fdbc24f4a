// SPDX-License-Identifier: MIT
#include <stochastic_depth/analysis/mask_distribution.hpp>

#include <cmath>
#include <cstddef>
#include <vector>

#include <stochastic_depth/expectation/mask_values.hpp>
#include <stochastic_depth/random/uniform.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using test::refuses;

TEST_CASE("MaskDistribution: sums over all masks, on the values of 200 random networks",
          "[mask_distribution]") {
    Philox random{61};
    for (std::size_t trial = 0; trial < 200; ++trial) {
        const plain::Network plain_network =
            plain::random_network(random, {trial % 7, 4, 1, plain::Activation::tanh, true});
        const auto network = plain::to_library<plain::OneLinear<double, Tanh<double>>>(
            plain_network);
        const Matrix<double> x = test::random_matrix<double>(random, 3, 1);
        const bool rounds = trial % 2 == 0;
        const Eigen::VectorXd values = mask_values(network, x, [&](const Matrix<double>& y) {
            return rounds ? std::round(4 * y(0, 0)) : y(0, 0);
        });
        const MaskDistribution distribution(values, network.survival_probabilities());
        const auto below = [&](double y) {
            long double sum = 0;
            for (Index mask = 0; mask < values.size(); ++mask)
                if (values(mask) <= y)
                    sum += plain_network.probability(static_cast<std::uint64_t>(mask));
            return static_cast<double>(sum);
        };
        const auto close = [&](double y) { return std::abs(distribution(y) - below(y)) < 1e-14; };
        for (const double value : distribution.values()) {
            CHECK((values.array() == value).any());
            CHECK(close(value));
            CHECK(close(std::nextafter(value, -1e9)));
            CHECK(distribution.quantile(distribution(value)) == value);
        }
        for (int k = 0; k < 10; ++k) {
            const double u = uniform<double>(random), value = distribution.quantile(u);
            CHECK(below(value) >= u - 1e-14);
            CHECK(below(std::nextafter(value, -1e9)) < u + 1e-14);
        }
        CHECK(distribution.quantile(1) == values.maxCoeff());
        CHECK(distribution.quantile(0) == values.minCoeff());
        CHECK(distribution(1e9) == 1);
        CHECK(distribution(-1e9) == 0);
    }
}

TEST_CASE("MaskDistribution: equal values are one, and masks without probability none",
          "[mask_distribution]") {
    const MaskDistribution distribution(Eigen::Vector4d{2, 2, -1, test::inf},
                                        Eigen::Vector2d{0.5, 0.25});
    CHECK(distribution.values() == std::vector<double>{-1, 2, test::inf});
    CHECK(distribution(-1) == 0.125);
    CHECK(distribution(2) == 0.875);
    CHECK(distribution.quantile(0.875) == 2);
    CHECK(distribution.quantile(0.876) == test::inf);

    const MaskDistribution kept(Eigen::Vector4d{test::nan, 2, test::nan, 5},
                                Eigen::Vector2d{1.0, 0.5});
    CHECK(kept.values() == std::vector<double>{2, 5});
    const MaskDistribution none(Eigen::VectorXd::Constant(1, 3.0), Eigen::VectorXd(0));
    CHECK(none.quantile(0.5) == 3);
    CHECK(none(2.9) == 0);
}

TEST_CASE("MaskDistribution: what it refuses", "[mask_distribution]") {
    const Eigen::VectorXd four = Eigen::VectorXd::Zero(4);
    const Eigen::VectorXd half = Eigen::Vector2d{0.5, 0.5};
    refuses([&] { MaskDistribution(Eigen::VectorXd::Zero(3), half); },
            {"MaskDistribution: values must have one row for each of 2^L masks, got 3"});
    refuses([&] { MaskDistribution(four, Eigen::VectorXd::Ones(1)); },
            {"MaskDistribution: p must have one entry for each of 2 layers, got 1"});
    refuses([&] { MaskDistribution(four, Eigen::Vector2d{0.5, -1}); },
            {"MaskDistribution: survival probability p(1)", "got -1"});
    refuses([&] { MaskDistribution(Eigen::Vector4d{0, test::nan, 0, 0}, half); },
            {"MaskDistribution: values must be numbers, got nan for mask 1"});
    const MaskDistribution distribution(four, half);
    refuses([&] { (void)distribution(test::nan); },
            {"MaskDistribution: y must be a number, got nan"});
    for (const double u : {-0.1, 1.1, test::nan})
        refuses([&] { (void)distribution.quantile(u); },
                {"MaskDistribution: u must lie in [0, 1], got "});
}

}  // namespace
