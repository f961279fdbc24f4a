// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/expectation.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <cmath>
#include <stdexcept>
#include <vector>

#include <stochastic_depth/expectation/weight_scaling.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/thrown.hpp"

namespace sd = stochastic_depth;
using sd::Index;
using sd::test::random_matrix;
using sd::test::same_bits;

namespace {

using Branch = sd::Sequential<sd::Linear<double>, sd::Tanh<double>>;
using Layer = sd::StochasticDepth<sd::Residual<Branch>>;

sd::Stack<Layer> network_of(Index depth, sd::Philox& random) {
    std::vector<Layer> layers;
    for (Index l = 0; l < depth; ++l)
        layers.emplace_back(sd::Residual{Branch{sd::Linear<double>{3, 3, random}, {}}},
                            sd::SurvivalProbability{0.5 + 0.4 / static_cast<double>(l + 1)});
    return sd::Stack{layers};
}

}  // namespace

TEST_CASE("Expectation: exact where the budget reaches, sampled one evaluation below",
          "[expectation]") {
    sd::Philox random{70};
    const auto network = network_of(10, random);
    const auto x = random_matrix<double>(random, 3, 4);
    const auto exact = sd::ExactExpectation{}(network, x);
    const auto fits = sd::Expectation{{.max_layer_evaluations = 1023}}(network, x);
    CHECK(fits.method == sd::ExpectationMethod::exact);
    CHECK(fits.layer_evaluations == 1023);
    CHECK(same_bits(fits.mean, exact.mean));
    CHECK(same_bits(fits.variance, exact.variance));

    const auto sampled = sd::Expectation{{.max_layer_evaluations = 1022}}(network, x);
    CHECK(sampled.method == sd::ExpectationMethod::sampled);
    CHECK(sampled.layer_evaluations <= 1022);
    CHECK(sampled.layer_evaluations > 500);
    CHECK(sampled.samples > 100);
    // 12 values, each within 6 standard errors: for normal errors this fails once in 10^7 times or
    // so.
    for (Index k = 0; k < exact.mean.size(); ++k)
        CHECK(std::abs(sampled.mean.data()[k] - exact.mean.data()[k]) <=
              6 * sampled.standard_error.data()[k]);
    CHECK(sd::WeightScaling{}(network, x).method == sd::ExpectationMethod::weight_scaling);
}

TEST_CASE(
    "Expectation: deep networks stay within the budget, with the same bits for any number of threads",
    "[expectation]") {
    sd::Philox random{71};
    const auto network = network_of(60, random);
    const auto x = random_matrix<double>(random, 3, 3);
    for (const std::uint64_t budget : {100u, 5000u}) {
        const auto one = sd::Expectation{{.max_layer_evaluations = budget, .seed = 5}}(network, x);
        CHECK(one.layer_evaluations <= static_cast<double>(budget));
        CHECK(one.layer_evaluations > 0);
        for (const unsigned threads : {2u, 3u, 8u}) {
            const auto many = sd::Expectation{
                {.max_layer_evaluations = budget, .seed = 5, .threads = threads}}(network, x);
            CHECK(same_bits(many.mean, one.mean));
            CHECK(same_bits(many.standard_error, one.standard_error));
        }
    }
}

TEST_CASE(
    "Expectation: stopped by its callback, a sampled answer is valid and an exact one is none",
    "[expectation]") {
    sd::Philox random{72};
    const auto network = network_of(16, random);
    const auto x = random_matrix<double>(random, 3, 4);
    int calls = 0;
    const sd::ProgressCallback stop = [&](double) { return ++calls < 2; };
    const auto sampled =
        sd::Expectation{{.max_layer_evaluations = 20000, .progress = stop}}(network, x);
    CHECK(calls == 2);
    CHECK(sampled.samples > 0);
    CHECK(sampled.layer_evaluations < 20000);
    CHECK(sampled.mean.allFinite());
    CHECK(sampled.standard_error.minCoeff() > 0);
    calls = 0;
    CHECK(thrown<sd::Cancelled>([&] {
              (void)sd::Expectation({.max_layer_evaluations = 70000, .progress = stop})(network, x);
          }) == "stopped by its progress callback");
}

TEST_CASE("Expectation: no layers, an empty batch, and bad input", "[expectation]") {
    sd::Philox random{73};
    const auto x = random_matrix<double>(random, 3, 2);
    const auto nothing = sd::Expectation{{.max_layer_evaluations = 1}}(network_of(0, random), x);
    CHECK(nothing.method == sd::ExpectationMethod::exact);
    CHECK(nothing.mean == x);
    CHECK(sd::Expectation{}(network_of(30, random), x.leftCols(0)).mean.cols() == 0);
    CHECK(thrown<std::invalid_argument>([] {
              (void)sd::Expectation{{.max_layer_evaluations = 0}};
          }) == "Expectation: max_layer_evaluations must be at least 1, got 0");
    CHECK(thrown<std::invalid_argument>([] { (void)sd::Expectation{{.threads = 0}}; }) ==
          "Expectation: threads must be at least 1, got 0");
}
