// SPDX-License-Identifier: MIT

// A composite of the user's own under masks, and in every sum over masks that the library has: its
// networks against the same networks in plain matrix products.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/own_networks.hpp"

namespace {

using namespace own;

/// Depth, probabilities, masked passes under every mask, and the exact moments.
template <class Network>
void check_masks(const Network& network, const std::vector<double>& probabilities) {
    static_assert(MaskedNetwork<Network> && DifferentiableLayer<Network>);
    const Index depth = static_cast<Index>(probabilities.size());
    const Numbers x = inputs(5);
    const AllMasks all(network, x);
    REQUIRE(network.depth() == depth);
    REQUIRE(network.survival_probabilities() ==
            Eigen::Map<const Eigen::VectorXd>(probabilities.data(), depth));
    REQUIRE(all.p == network.survival_probabilities());

    Numbers each = inputs(static_cast<Index>(all.y.size())), y(all.y[0].rows(), each.cols());
    SurvivalMasks masks(depth, each.cols());
    double largest = 0;
    for (std::size_t k = 0; k < all.y.size(); ++k) {
        const SurvivalMask mask = numbered(k, depth);
        masks.set_mask(static_cast<Index>(k), mask);
        largest = std::max(largest, largest_difference(network(x, mask), all.y[k]));
    }
    CHECK(largest <= exact);
    CHECK(largest_difference(network(x), all.y.back()) <= exact);
    masked_forward(network, each, masks, y);
    CHECK(largest_difference(y, plain_outputs(network, each, masks)) <= exact);
    network.forward(x, y.leftCols(5));
    CHECK(largest_difference(y.leftCols(5), all.y.back()) <= exact);

    const auto moments = ExactExpectation{}(network, x);
    CHECK(largest_difference(moments.mean, all.mean()) <= exact);
    CHECK(largest_difference(moments.variance, all.variance()) <= exact);
    // The same through blocks of columns.
    const Numbers many = inputs(400);
    const auto of_many = ExactExpectation{}(network, many);
    const AllMasks all_of_many(network, many);
    CHECK(largest_difference(of_many.mean, all_of_many.mean()) <= exact);
    CHECK(largest_difference(of_many.variance, all_of_many.variance()) <= exact);

    const Numbers scaled = Plain(nullptr, Rule::mean)(network, x);
    CHECK(largest_difference(WeightScaling{}(network, x).mean, scaled) <= exact);
    CHECK(largest_difference(scaled, all.mean()) > 1e-4);
}

TEST_CASE("own composite: every mask, and exact mean and variance", "[own_composite]") {
    check_masks(residual_network(1), {0.7, 0.4, 0.9, 0.5, 0.8, 0.6, 0.3});
    check_masks(mixed_network(2), {0.55, 0.6, 0.35, 0.8, 0.45, 0.75});
}

TEST_CASE("own composite: sensitivities, Banzhaf and Shapley values", "[own_composite]") {
    const auto network = residual_network(3);
    const Numbers x = inputs(4);
    const AllMasks all(network, x);
    const Index depth = all.p.size();
    const auto first = ExactSensitivity{}(network, x);
    const auto both = ExactSensitivity{{.order = SensitivityOrder::pairs}}(network, x);
    const auto banzhaf = banzhaf_values(network, x), shapley = shapley_values(network, x);
    CHECK(largest_difference(first.expectation.mean, all.mean()) <= exact);
    CHECK(largest_difference(both.expectation.variance, all.variance()) <= exact);
    Numbers sum = Numbers::Zero(2, 4);
    for (Index l = 0; l < depth; ++l) {
        CAPTURE(l);
        const Numbers slope = all.sum([&](std::size_t k) { return all.weight(k, {l}); });
        CHECK(largest_difference(first.by_layer.of(l), slope) <= exact);
        CHECK(largest_difference(both.by_layer.of(l), slope) <= exact);
        for (Index m = 0; m < l; ++m)
            CHECK(largest_difference(both.by_pair.of(l, m), all.sum([&](std::size_t k) {
                      return all.weight(k, {l, m});
                  })) <= exact);
        const double layers = static_cast<double>(depth);
        CHECK(largest_difference(banzhaf.value.of(l), all.contributions(l, [&](int) {
                  return std::pow(0.5, layers - 1);
              })) <= exact);
        // |S|! (L - |S| - 1)! / L!
        CHECK(largest_difference(shapley.value.of(l), all.contributions(l, [&](int others) {
                  return std::tgamma(others + 1) * std::tgamma(layers - others) /
                         std::tgamma(layers + 1);
              })) <= exact);
        sum += shapley.value.of(l);
    }
    CHECK(largest_difference(sum, all.y.back() - all.y.front()) <= exact);
}

TEST_CASE("own composite: inverted scaling becomes part of the network and leaves it again",
          "[own_composite]") {
    const auto network = residual_network(8);
    const auto scaled = without_inverted_scaling(network);
    const auto back = with_inverted_scaling(scaled);
    const Numbers x = inputs(5);
    REQUIRE(scaled.survival_probabilities() == network.survival_probabilities());
    double largest = 0, largest_back = 0;
    for (std::size_t k = 0; k < 128; ++k) {
        const SurvivalMask mask = numbered(k, 7);
        const Numbers inverted = Plain(&mask, Rule::inverted)(network, x);
        largest = std::max({largest, largest_difference(scaled(x, mask), inverted),
                            largest_difference(Plain(&mask)(scaled, x), inverted)});
        largest_back = std::max(largest_back, largest_difference(back(x, mask), network(x, mask)));
    }
    CHECK(largest <= exact);
    CHECK(largest_back <= exact);
    Numbers in_use(2, 5);
    network.forward(x, in_use);
    CHECK(largest_difference(WeightScaling{}(scaled, x).mean, in_use) <= exact);
}

TEST_CASE("own composite: Monte Carlo", "[own_composite]") {
    const auto check = [](const auto& network) {
        const Numbers x = inputs(3);
        const AllMasks all(network, x);
        const Index samples = 60;
        const MonteCarloExpectation sampled{{.samples = samples, .seed = 9}};
        const auto answer = sampled(network, x);
        // Mask k is that of sample k of step 0.
        const SurvivalMasks masks = MaskSampler{all.p, 9}.sample(0, samples);
        Numbers mean = Numbers::Zero(answer.mean.rows(), 3), squares = mean;
        for (Index k = 0; k < samples; ++k) {
            const SurvivalMask mask = masks.mask(k);
            mean += Plain(&mask)(network, x) / static_cast<double>(samples);
        }
        for (Index k = 0; k < samples; ++k) {
            const SurvivalMask mask = masks.mask(k);
            squares += (Plain(&mask)(network, x) - mean).cwiseAbs2();
        }
        CHECK(largest_difference(answer.mean, mean) <= exact);
        CHECK(largest_difference(answer.variance, squares / static_cast<double>(samples - 1)) <=
              exact);
        const auto enumerated =
            MonteCarloExpectation{{.samples = 1, .enumerated_layers = all.p.size()}}(network, x);
        CHECK(largest_difference(enumerated.mean, all.mean()) <= exact);
        const auto estimate =
            MonteCarloExpectation{{.samples = 1000,
                                   .design = MaskDesign::stratified,
                                   .enumerated_layers = 2,
                                   .control_variates = ControlVariates::mask_bits}}(network, x);
        CHECK(((estimate.mean - all.mean()).array().abs() <= 5 * estimate.standard_error.array())
                  .all());
    };
    check(residual_network(10));
    check(mixed_network(11));
}

TEST_CASE("own composite: certified intervals hold the exact mean", "[own_composite]") {
    const auto network = residual_network(12);
    const Numbers x = inputs(6);
    const Numbers mean = AllMasks(network, x).mean();
    for (const double uncovered : {0.3, 0.01, 0.0}) {
        CAPTURE(uncovered);
        const auto bounds =
            CertifiedInterval{{.lowest = -1, .highest = 1, .uncovered = uncovered}}(network, x);
        CHECK((bounds.lower.array() <= mean.array() + 1e-14).all());
        CHECK((bounds.upper.array() >= mean.array() - 1e-14).all());
        CHECK((bounds.upper - bounds.lower).maxCoeff() <= 2 * uncovered + exact);
        CHECK((bounds.masks == 128) == (uncovered == 0));
    }
}

TEST_CASE("own composite: three threads give the bits of one", "[own_composite]") {
    const auto network = residual_network(15);
    const Numbers x = inputs(500);
    const auto answers = [&](unsigned threads) {
        std::vector<Numbers> all;
        const auto moments = ExactExpectation{{.threads = threads}}(network, x);
        all.push_back(moments.mean);
        all.push_back(moments.variance);
        // Few columns: threads share masks.
        const auto few = ExactExpectation{{.threads = threads}}(network, x.leftCols(2));
        all.push_back(few.mean);
        all.push_back(ExactSensitivity{{.threads = threads}}(network, x).by_layer.values());
        all.push_back(shapley_values(network, x, {.threads = threads}).value.values());
        const MonteCarloExpectation sampled{{.samples = 40, .threads = threads}};
        all.push_back(sampled(network, x).mean);
        all.push_back(sampled(network, x.leftCols(2)).mean);
        const CertifiedInterval interval{
            {.lowest = -1, .highest = 1, .uncovered = 0.2, .threads = threads}};
        all.push_back(interval(network, x).lower);
        return all;
    };
    const auto one = answers(1), three = answers(3);
    for (std::size_t k = 0; k < one.size(); ++k) {
        CAPTURE(k);
        CHECK(same_bits(one[k], three[k]));
    }
}

}  // namespace
