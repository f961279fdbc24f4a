// SPDX-License-Identifier: MIT
#include <stochastic_depth/analysis/interactions.hpp>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include <stochastic_depth/expectation/exact_sensitivity.hpp>
#include <stochastic_depth/expectation/layer_values.hpp>
#include <stochastic_depth/expectation/mask_values.hpp>
#include <stochastic_depth/random/uniform.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using test::largest_difference;
using test::refuses;

int size_of(Index set) { return std::popcount(static_cast<std::uint64_t>(set)); }

double binomial(int n, int k) {
    double value = 1;
    for (int i = 1; i <= k; ++i) value = value * (n - k + i) / i;
    return value;
}

/// sum over the masks S of the layers outside T of weight(S, T) times the difference that T makes.
Eigen::VectorXd by_definition(const Eigen::VectorXd& values,
                              const std::function<double(Index, Index)>& weight) {
    Eigen::VectorXd result(values.size());
    for (Index set = 0; set < values.size(); ++set) {
        long double sum = 0;
        for (Index mask = 0; mask < values.size(); ++mask) {
            const long double term = static_cast<long double>(weight(mask & ~set, set)) *
                                     static_cast<long double>(values(mask));
            sum += (size_of(set) - size_of(mask & set)) % 2 == 0 ? term : -term;
        }
        result(set) = static_cast<double>(sum);
    }
    return result;
}

TEST_CASE("interactions: their definitions, on the values of 200 random networks",
          "[interactions]") {
    Philox random{41};
    for (std::size_t trial = 0; trial < 200; ++trial) {
        const int n = static_cast<int>(trial % 7);
        const auto network = plain::to_library<plain::OneLinear<double, Tanh<double>>>(
            plain::random_network(random, {trial % 7, 4, 1, plain::Activation::tanh, true}));
        const Matrix<double> x = test::random_matrix<double>(random, 3, 1);
        const Eigen::VectorXd values =
            mask_values(network, x, [](const Matrix<double>& y) { return y(0, 0); });
        const double tolerance = 1e-12 * values.cwiseAbs().maxCoeff();
        const auto check = [&](const Eigen::VectorXd& found,
                               const std::function<double(Index, Index)>& weight) {
            CHECK(largest_difference(found, by_definition(values, weight)) < tolerance);
        };
        const auto empty = [](Index rest, Index) { return rest == 0 ? 1.0 : 0.0; };
        check(harsanyi_dividends(values), empty);
        check(banzhaf_interactions(values),
              [&](Index, Index set) { return std::ldexp(1.0, size_of(set) - n); });
        check(shapley_interactions(values), [&](Index rest, Index set) {
            const int others = n - size_of(set);
            return 1 / ((others + 1) * binomial(others, size_of(rest)));
        });
        const Eigen::VectorXd p = network.survival_probabilities();
        check(ensemble_interactions(values, p), [&](Index rest, Index set) {
            double product = 1;
            for (Index l = 0; l < n; ++l)
                if (!((set >> l) & 1)) product *= (rest >> l) & 1 ? p(l) : 1 - p(l);
            return product;
        });
        for (int order = 1; order < n + 2; ++order) {
            const Eigen::VectorXd found = shapley_taylor_interactions(values, order);
            check(found, [&](Index rest, Index set) {
                if (size_of(set) < order) return empty(rest, set);
                if (size_of(set) > order) return 0.0;
                return order / (n * binomial(n - 1, size_of(rest)));
            });
            CHECK(std::abs(found.sum() - values(values.size() - 1)) < tolerance);
        }
    }
}

TEST_CASE("interactions: of single layers and pairs, what sweeps of other trees give",
          "[interactions]") {
    Philox random{42};
    const auto network = plain::to_library<plain::OneLinear<double, Tanh<double>>>(
        plain::random_network(random, {6, 4, 1, plain::Activation::tanh, true}));
    const Matrix<double> x = test::random_matrix<double>(random, 3, 2);
    const Matrix<double> outputs = mask_outputs(network, x);
    const Matrix<double> shapley = shapley_interactions(outputs);
    const Matrix<double> banzhaf = banzhaf_interactions(outputs);
    const Matrix<double> taylor = shapley_taylor_interactions(outputs, 1);
    const Matrix<double> ensemble =
        ensemble_interactions(outputs, network.survival_probabilities());
    const auto by_layer = shapley_values(network, x);
    const auto fair = banzhaf_values(network, x);
    const auto slopes = ExactSensitivity{{.order = SensitivityOrder::pairs}}(network, x);
    const auto row = [](const Matrix<double>& table, Index set) {
        return Matrix<double>(table.row(set).reshaped(2, 2));
    };
    CHECK(largest_difference(row(ensemble, 0), slopes.expectation.mean) < 1e-13);
    for (Index l = 0; l < 6; ++l) {
        const Index one = Index{1} << l;
        CHECK(largest_difference(row(shapley, one), by_layer.value.of(l)) < 1e-13);
        CHECK(largest_difference(row(taylor, one), by_layer.value.of(l)) < 1e-13);
        CHECK(largest_difference(row(banzhaf, one), fair.value.of(l)) < 1e-13);
        CHECK(largest_difference(row(ensemble, one), slopes.by_layer.of(l)) < 1e-13);
        for (Index m = 0; m < l; ++m)
            CHECK(largest_difference(row(ensemble, one | Index{1} << m),
                                     slopes.by_pair.of(l, m)) < 1e-13);
    }
}

TEST_CASE("interactions: tables larger than what is transformed in the cache", "[interactions]") {
    constexpr Index layers = 15, masks = Index{1} << layers;
    // Dividends that are whole numbers: all sums are exact.
    Eigen::VectorXd dividends(masks);
    for (Index set = 0; set < masks; ++set)
        dividends(set) = static_cast<double>(set * 2654435761 % 17) - 8;
    Eigen::VectorXd values = dividends;
    for (Index l = 0; l < layers; ++l)
        for (Index mask = 0; mask < masks; ++mask)
            if ((mask >> l) & 1) values(mask) += values(mask ^ (Index{1} << l));
    CHECK(test::same_bits(harsanyi_dividends(values), dividends));

    Eigen::VectorXd expected = dividends;  // the sum over larger sets U of m(U) 2^-(|U| - |T|)
    for (Index l = 0; l < layers; ++l)
        for (Index set = 0; set < masks; ++set)
            if (!((set >> l) & 1)) expected(set) += expected(set ^ (Index{1} << l)) / 2;
    CHECK(largest_difference(banzhaf_interactions(values), expected) < 1e-9);
}

TEST_CASE("interactions: what has no probability may be no number", "[interactions]") {
    const Eigen::VectorXd values{{test::nan, 2, test::nan, 5}};
    const Eigen::VectorXd found = ensemble_interactions(values, Eigen::VectorXd{{1.0, 0.5}});
    CHECK(found(0) == 3.5);
    CHECK(found(2) == 3);
    CHECK(std::isnan(found(1)));
    const Eigen::VectorXd dividends = harsanyi_dividends(Eigen::VectorXd{{1, 3, test::inf, 0}});
    CHECK(dividends(1) == 2);
    CHECK(dividends(2) == test::inf);
}

TEST_CASE("largest_interactions: in order of size, with names", "[interactions]") {
    const Eigen::VectorXd table{{9, -5, 3, 1, -8, 1, -1, 2}};
    const auto found = largest_interactions(table, 3);
    REQUIRE(found.size() == 3);
    CHECK(found[0].layers == std::vector<Index>{0, 1, 2});
    CHECK(found[0].value == 2);
    CHECK(found[1].layers == std::vector<Index>{0, 1});
    CHECK(found[2].layers == std::vector<Index>{0, 2});
    const auto single = largest_interactions(table, 10, {.least_layers = 1, .most_layers = 1});
    REQUIRE(single.size() == 3);
    CHECK(single[0].value == -8);
    CHECK(single[2].layers == std::vector<Index>{1});
    CHECK(largest_interactions(table, 1, {.least_layers = 0})[0].layers.empty());
    CHECK(largest_interactions(table, 0).empty());
    CHECK(largest_interactions(Eigen::VectorXd::Ones(1), 5).empty());
}

TEST_CASE("interactions: what they refuse", "[interactions]") {
    const Eigen::VectorXd seven = Eigen::VectorXd::Zero(7), eight = Eigen::VectorXd::Zero(8);
    const auto all = "values must have one row for each of 2^L masks, got ";
    refuses([&] { (void)harsanyi_dividends(seven); }, {"harsanyi_dividends: ", all, "got 7"});
    refuses([&] { (void)banzhaf_interactions(Eigen::VectorXd(0)); },
            {"banzhaf_interactions: ", all, "got 0"});
    refuses([&] { (void)shapley_interactions(seven); }, {"shapley_interactions: ", all});
    refuses([&] { (void)shapley_taylor_interactions(seven, 2); },
            {"shapley_taylor_interactions: ", all});
    refuses([&] { (void)shapley_taylor_interactions(eight, 0); },
            {"shapley_taylor_interactions: order must be at least 1, got 0"});
    refuses([&] { (void)ensemble_interactions(eight, Eigen::VectorXd::Ones(2)); },
            {"ensemble_interactions: p must have one entry for each of 3 layers, got 2"});
    refuses([&] { (void)ensemble_interactions(eight, Eigen::VectorXd::Zero(3)); },
            {"ensemble_interactions: survival probability p(0)", "got 0"});
    refuses([&] { (void)largest_interactions(seven, 1); }, {"largest_interactions: ", all});
    refuses([&] { (void)largest_interactions(eight, -1); },
            {"largest_interactions: count must be at least 0, got -1"});
    refuses([&] { (void)largest_interactions(Eigen::VectorXd::Constant(8, test::nan), 1); },
            {"largest_interactions: interactions must be numbers, got nan for set 3"});
}

}  // namespace
