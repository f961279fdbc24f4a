// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/law_mask_source.hpp>

#include <cmath>
#include <cstddef>
#include <stdexcept>

#include <stochastic_depth/expectation/enumerate_masks.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>
#include <stochastic_depth/expectation/weight_scaling.hpp>

#include "support/catch.hpp"
#include "support/laws.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"
#include "support/structures.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;
using test::refusal;

TEST_CASE("MonteCarloExpectation: the masks of a law, each counting the same",
          "[law_mask_source]") {
    test::Structures make{4};
    const auto network = make.nested();
    const auto x = test::random_matrix<double>(make.random, 5, 3);
    const test::TwoBackLaw law{network.depth()};
    const auto sampled = MonteCarloExpectation{{.samples = 50, .seed = 8}}(network, x, law);
    const SurvivalMasks masks = LawMaskSampler{law, 8}.sample(0, 50);
    Eigen::MatrixXd mean = Eigen::MatrixXd::Zero(sampled.mean.rows(), 3), squares = mean;
    for (Index k = 0; k < 50; ++k) mean += network(x, masks.mask(k)) / 50;
    for (Index k = 0; k < 50; ++k) squares += (network(x, masks.mask(k)) - mean).cwiseAbs2() / 49;
    CHECK((sampled.mean - mean).cwiseAbs().maxCoeff() <= 1e-12);
    CHECK((sampled.variance - squares).cwiseAbs().maxCoeff() <= 1e-12);
    CHECK((sampled.standard_error - (squares / 50).cwiseSqrt()).cwiseAbs().maxCoeff() <= 1e-12);
    CHECK(sampled.samples == 50);
    CHECK(sampled.degrees_of_freedom == 49);
    // Stopping rules work as they do without a law.
    const auto stopped = MonteCarloExpectation{
        {.samples = 100000, .seed = 8, .target_standard_error = 0.05}}(network, x, law);
    CHECK(stopped.standard_error.maxCoeff() <= 0.05);
    CHECK(stopped.samples < 100000);
    CHECK(MonteCarloExpectation{{.samples = 100000, .max_layer_evaluations = 60}}(network, x, law)
              .layer_evaluations <= 60);
}

TEST_CASE("MonteCarloExpectation: under a law the errors are those that it tells",
          "[law_mask_source]") {
    test::Structures make{6};
    const auto network = make.residual_around();
    const auto x = test::random_matrix<double>(make.random, 6, 2);
    const auto law = LayerCountLaw::exactly(network.depth(), 3);
    const auto exact = ExactExpectation{}(network, x, law);
    const auto sampled = MonteCarloExpectation{{.samples = 4000, .seed = 3}}(network, x, law);
    const Eigen::MatrixXd error = (sampled.mean - exact.mean).cwiseAbs();
    for (Index k = 0; k < error.size(); ++k) {
        CHECK(error.data()[k] <= 5 * sampled.standard_error.data()[k]);  // 5e-6 for all 8
        const double variance = exact.variance.data()[k];
        CHECK(std::abs(sampled.variance.data()[k] / variance - 1) <= 0.3);
    }
}

TEST_CASE("MonteCarloExpectation: independent masks as a law are those of the call without",
          "[law_mask_source]") {
    test::Structures make{5};
    const auto network = make.nested();
    const auto x = test::random_matrix<double>(make.random, 5, 3);
    const IndependentLaw law{network.survival_probabilities()};
    const MonteCarloExpectation rule{{.samples = 40, .seed = 2, .design = MaskDesign::stratified}};
    CHECK(rule(network, x, law).mean == rule(network, x).mean);
    CHECK(WeightScaling{}(network, x, law).mean == WeightScaling{}(network, x).mean);
}

TEST_CASE("MonteCarloExpectation: what needs independent layers is refused under a law",
          "[law_mask_source]") {
    test::Structures make{5};
    const auto network = make.nested();
    const auto x = test::random_matrix<double>(make.random, 5, 1);
    const auto refused = [&](MonteCarloExpectationOptions options, Index depth) {
        return refusal(
            [&] { (void)MonteCarloExpectation{options}(network, x, test::TwoBackLaw{depth}); });
    };
    const Index depth = network.depth();
    CHECK(refused({}, depth + 1) == detail::message("MonteCarloExpectation: law must have ", depth,
                                                    " layers, got ", depth + 1));
    CHECK(holds(refused({.design = MaskDesign::antithetic}, depth),
                "MonteCarloExpectation: design must be MaskDesign::independent under a law"));
    CHECK(holds(refused({.enumerated_layers = 1}, depth), "enumerated_layers must be 0"));
    CHECK(holds(refused({.control_variates = ControlVariates::mask_bits}, depth),
                "control_variates must be ControlVariates::none"));
    CHECK(refused({}, depth) == "accepted");
}

TEST_CASE("WeightScaling: a law's survival probabilities are those where a layer is reached",
          "[law_mask_source]") {
    test::Structures make{7};
    const auto small = [&](double p) { return make.block(4, p); };
    const auto make_network = [&](auto outer, auto inner, auto next, auto& weights) {
        make.random = weights;
        return Sequential{StochasticDepth{Residual{Sequential{small(inner), make.linear(4, 4)}},
                                          SurvivalProbability{outer}},
                          small(next)};
    };
    const Philox weights{99};
    const MarkovLaw law{(Eigen::VectorXd(3) << 0.6, 0.3, 0.8).finished(),
                        (Eigen::VectorXd(3) << 0, 0.9, 0.1).finished()};
    // The inner layer is reached where the outer one is kept; the last one always.
    const double inner_kept = 0.6 * 0.3 + 0.4 * 0.9,
                 last = inner_kept * 0.8 + (1 - inner_kept) * 0.1;
    const auto network = make_network(0.5, 0.5, 0.5, weights);
    const auto as_law = make_network(0.6, 0.3, last, weights);
    const auto x = test::random_matrix<double>(make.random, 4, 5);
    CHECK((WeightScaling{}(network, x, law).mean - WeightScaling{}(as_law, x).mean)
              .cwiseAbs()
              .maxCoeff() <= 1e-14);
    // No mask of the law keeps the last layer.
    const MaskListLaw without({{1, 1, 0}, {0, 0, 0}}, Eigen::VectorXd::Ones(2));
    const auto first = Sequential{std::get<0>(network.layers())};
    CHECK(WeightScaling{}(network, x, without).mean ==
          WeightScaling{}(first, x, MaskListLaw({{1, 1}, {0, 0}}, Eigen::VectorXd::Ones(2))).mean);
    CHECK(refusal([&] { (void)WeightScaling{}(network, x, test::TwoBackLaw{2}); }) ==
          "WeightScaling: law must have 3 layers, got 2");
}

TEST_CASE("enumerate_masks: under a law, what it gives a probability", "[law_mask_source]") {
    test::Structures make{8};
    const auto network = make.nested();
    const auto x = test::random_matrix<double>(make.random, 5, 2);
    const auto law = LayerCountLaw::exactly(network.depth(), 2);
    const auto rows = enumerate_masks(network, x, law);
    const auto depth = static_cast<std::size_t>(network.depth());
    REQUIRE(rows.size() == depth * (depth - 1) / 2);
    Eigen::MatrixXd mean = Eigen::MatrixXd::Zero(3, 2);
    for (const auto& row : rows) {
        CHECK(row.mask.count() == 2);
        CHECK(row.output == network(x, row.mask));
        mean += row.probability * row.output;
    }
    CHECK((ExactExpectation{}(network, x, law).mean - mean).cwiseAbs().maxCoeff() <= 1e-12);
    CHECK(holds(thrown<std::length_error>([&] { (void)enumerate_masks(network, x, law, 3); }),
                "masks must be at most 3"));
    CHECK(holds(refusal([&] { (void)enumerate_masks(network, x, test::TwoBackLaw{1}); }),
                "enumerate_masks: law must have"));
}

}  // namespace
