// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/sampled_layer_values.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/schedules.hpp>

#include <cmath>
#include <stdexcept>
#include <vector>

#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/thrown.hpp"

namespace sd = stochastic_depth;
using sd::Index;
using sd::test::random_matrix;

namespace {

using Branch = sd::Sequential<sd::Linear<double>, sd::Tanh<double>>;
using Layer = sd::StochasticDepth<sd::Residual<Branch>>;

sd::Stack<Layer> network_of(Index depth, sd::Philox& random) {
    std::vector<Layer> layers;
    for (Index l = 0; l < depth; ++l)
        layers.emplace_back(sd::Residual{Branch{sd::Linear<double>{3, 3, random}, {}}},
                            sd::SurvivalProbability{0.9});
    return sd::Stack{layers};
}

/// How many of the values lie within 3 standard errors of the exact ones, and how many within 1.
struct Hits {
    int within_one = 0, within_three = 0, all = 0;
};

Hits compare(const sd::LayerValues<double>& sampled, const sd::LayerValues<double>& exact) {
    Hits hits;
    for (Index k = 0; k < exact.value.values().size(); ++k) {
        const double error =
            std::abs(sampled.value.values().data()[k] - exact.value.values().data()[k]);
        const double unit = sampled.standard_error.values().data()[k];
        REQUIRE(unit > 0);
        hits.within_one += error <= unit;
        hits.within_three += error <= 3 * unit;
        ++hits.all;
    }
    return hits;
}

}  // namespace

TEST_CASE("Sampled layer values: the exact ones lie within their standard errors",
          "[sampled_layer_values]") {
    sd::Philox random{60};
    const auto network = network_of(6, random);
    const auto x = random_matrix<double>(random, 3, 5);
    // 40 seeds, 90 correlated values each. A value lies within 3 standard errors with probability
    // 0.997 and within one with 0.68, for normal means; the bounds are some 10 standard deviations
    // of the count away even if all the values of a seed were one.
    Hits shapley, banzhaf, sensitivities;
    const auto exact_shapley = sd::shapley_values(network, x),
               exact_banzhaf = sd::banzhaf_values(network, x);
    const sd::IndependentLaw law{sd::linear_decay(6, 0.4)};
    const sd::LayerValues<double> exact_sensitivities{
        sd::ExactSensitivity{}(network, x, law).by_layer, {}};
    const auto add = [](Hits& sum, const Hits& hits) {
        sum.within_one += hits.within_one;
        sum.within_three += hits.within_three;
        sum.all += hits.all;
    };
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
        add(shapley, compare(sd::sampled_shapley_values(network, x, {.pairs = 60, .seed = seed}),
                             exact_shapley));
        add(banzhaf, compare(sd::sampled_banzhaf_values(network, x, {.pairs = 60, .seed = seed}),
                             exact_banzhaf));
        // Masks of unequal bits are further from normal.
        add(sensitivities,
            compare(sd::sampled_sensitivities(network, x, law, {.pairs = 200, .seed = seed}),
                    exact_sensitivities));
    }
    for (const Hits& hits : {shapley, banzhaf, sensitivities}) {
        INFO(hits.within_one << " and " << hits.within_three << " of " << hits.all);
        CHECK(hits.within_three >= hits.all * 98 / 100);
        CHECK(hits.within_one >= hits.all * 60 / 100);
        CHECK(hits.within_one <= hits.all * 76 / 100);
    }
}

TEST_CASE("sampled_shapley_values: the values of a sample sum to what all layers add",
          "[sampled_layer_values]") {
    sd::Philox random{61};
    const auto network = network_of(30, random);
    const auto x = random_matrix<double>(random, 3, 2);
    const auto values = sd::sampled_shapley_values(network, x, {.pairs = 3});
    sd::Matrix<double> sum = sd::Matrix<double>::Zero(3, 2);
    for (Index l = 0; l < 30; ++l) sum += values.value.of(l);
    CHECK((sum - (network(x, sd::SurvivalMask::all(30)) - x)).cwiseAbs().maxCoeff() <= 1e-12);
    // An order and its reverse keep 0, 1, ..., 30 layers.
    CHECK(values.layer_evaluations == 3 * 2 * 30 * 31 / 2);
}

TEST_CASE("Sampled layer values: same bits for any number of threads and in any batch",
          "[sampled_layer_values]") {
    sd::Philox random{62};
    const auto network = network_of(5, random);
    const auto x = random_matrix<double>(random, 3, 230);
    const auto shapley = sd::sampled_shapley_values(network, x, {.pairs = 4});
    const auto banzhaf = sd::sampled_banzhaf_values(network, x, {.pairs = 4});
    for (const unsigned threads : {2u, 3u, 8u}) {
        CHECK(sd::sampled_shapley_values(network, x, {.pairs = 4, .threads = threads})
                  .value.values() == shapley.value.values());
        CHECK(sd::sampled_banzhaf_values(network, x, {.pairs = 4, .threads = threads})
                  .standard_error.values() == banzhaf.standard_error.values());
    }
    CHECK(sd::sampled_sensitivities(network, x, {.pairs = 4, .threads = 3}).value.values() ==
          sd::sampled_sensitivities(network, x, {.pairs = 4}).value.values());
    for (const Index j : {0, 95, 96, 229}) {
        const auto alone = sd::sampled_shapley_values(network, x.col(j), {.pairs = 4});
        for (Index l = 0; l < 5; ++l) CHECK(alone.value.of(l).col(0) == shapley.value.of(l).col(j));
    }
}

TEST_CASE("Sampled layer values: one layer and none, an empty batch", "[sampled_layer_values]") {
    sd::Philox random{63};
    const auto x = random_matrix<double>(random, 3, 2);
    const auto one = network_of(1, random);
    for (const auto& values :
         {sd::sampled_shapley_values(one, x), sd::sampled_banzhaf_values(one, x),
          sd::sampled_sensitivities(one, x)}) {
        CHECK((values.value.of(0) - (one(x, sd::SurvivalMask::all(1)) - x)).cwiseAbs().maxCoeff() <=
              1e-15);
        CHECK(values.standard_error.of(0).maxCoeff() <= 1e-16);
    }
    CHECK(sd::sampled_shapley_values(network_of(0, random), x).value.layers() == 0);
    CHECK(sd::sampled_banzhaf_values(one, x.leftCols(0)).value.of(0).cols() == 0);
}

TEST_CASE("Sampled layer values: bad input names what is wrong", "[sampled_layer_values]") {
    sd::Philox random{64};
    const auto network = network_of(2, random);
    const auto x = random_matrix<double>(random, 3, 1), wide = random_matrix<double>(random, 4, 1);
    CHECK(thrown<std::invalid_argument>([&] {
              (void)sd::sampled_shapley_values(network, x, {.pairs = 1});
          }) == "sampled_shapley_values: pairs must be at least 2, got 1");
    CHECK(thrown<std::invalid_argument>([&] {
              (void)sd::sampled_banzhaf_values(network, x, {.threads = 0});
          }) == "sampled_banzhaf_values: threads must be at least 1, got 0");
    CHECK(holds(thrown<std::invalid_argument>([&] {
                    (void)sd::sampled_sensitivities(network, x,
                                                    sd::IndependentLaw{sd::linear_decay(3, 0.5)});
                }),
                "sampled_sensitivities: law must have"));
    CHECK(holds(
        thrown<std::invalid_argument>([&] { (void)sd::sampled_banzhaf_values(network, wide); }),
        "Linear: input must have 3 rows, got 4"));
}
