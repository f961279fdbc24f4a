// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/training/initialisation.hpp>

#include <cmath>
#include <string>
#include <utility>

#include <stochastic_depth/random/philox.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

struct Moments {
    double mean, variance, fourth, largest;
};

/// Of the weights over their expected standard deviation.
template <class Scalar>
Moments standardised(const Linear<Scalar>& layer, double deviation) {
    const Eigen::ArrayXd z = layer.weights().reshaped().template cast<double>().array() / deviation;
    return {z.mean(), z.square().mean(), z.square().square().mean(), z.abs().maxCoeff()};
}

/// n = 60000 weights. Mean: sigma = 1 / sqrt(n). E z^2 = 1 with sigma^2 = (E z^4 - 1) / n, and E z^4
/// with sigma^2 = (E z^8 - (E z^4)^2) / n: 3 and 105 for the normal distribution, 9/5 and 9 for the
/// uniform one. All within 6 sigma: false alarms 2e-9 each.
constexpr Index inputs = 300, outputs = 200;
constexpr double n = 300 * 200;

template <class Scalar>
void check_normal(const Linear<Scalar>& layer, double variance) {
    REQUIRE(layer.inputs() == inputs);
    REQUIRE(layer.outputs() == outputs);
    CHECK((layer.bias().array() == Scalar(0)).all());
    const Moments z = standardised(layer, std::sqrt(variance));
    CHECK(std::abs(z.mean) < 6 * std::sqrt(1 / n));
    CHECK(std::abs(z.variance - 1) < 6 * std::sqrt(2 / n));
    CHECK(std::abs(z.fourth - 3) < 6 * std::sqrt(96 / n));
}

template <class Scalar>
void check_uniform(const Linear<Scalar>& layer, double variance) {
    REQUIRE(layer.inputs() == inputs);
    REQUIRE(layer.outputs() == outputs);
    CHECK((layer.bias().array() == Scalar(0)).all());
    const Moments z = standardised(layer, std::sqrt(variance));
    CHECK(std::abs(z.mean) < 6 * std::sqrt(1 / n));
    CHECK(std::abs(z.variance - 1) < 6 * std::sqrt(0.8 / n));
    CHECK(std::abs(z.fourth - 1.8) < 6 * std::sqrt((9 - 3.24) / n));
    CHECK(z.largest <= std::sqrt(3.0) * (1 + 1e-6));
    // The chance that no weight comes within a thousandth of the limit is 0.999^n = 1e-26.
    CHECK(z.largest > std::sqrt(3.0) * 0.999);
}

TEMPLATE_TEST_CASE("initialisation: moments are those of the formulas", "[initialisation]", float,
                   double) {
    using Scalar = TestType;
    Philox random{5};
    check_normal(he_normal<Scalar>(inputs, outputs, random), 2 / 300.0);
    check_uniform(he_uniform<Scalar>(inputs, outputs, random), 2 / 300.0);
    check_normal(xavier_normal<Scalar>(inputs, outputs, random), 2 / 500.0);
    check_uniform(xavier_uniform<Scalar>(inputs, outputs, random), 2 / 500.0);
    // 16^(-1 / (2 * 3 - 2)) = 1 / 2.
    check_normal(
        fixup_normal<Scalar>(inputs, outputs, {.branches = 16, .layers_of_branch = 3}, random),
        2 / 300.0 / 4);
    const Linear<Scalar> zero = zero_linear<Scalar>(3, 5);
    CHECK(zero.inputs() == 3);
    CHECK(zero.outputs() == 5);
    CHECK((zero.weights().array() == Scalar(0)).all());
    CHECK((zero.bias().array() == Scalar(0)).all());
}

TEST_CASE("initialisation: weights are the generator's numbers, column by column",
          "[initialisation]") {
    Philox random{6}, numbers{6};
    const Linear<double> he = he_normal<double>(8, 3, random);
    const Linear<float> xavier = xavier_normal<float>(4, 2, random);
    for (Index k = 0; k < 24; ++k)
        CHECK(he.weights().reshaped()(k) == std::sqrt(2.0 / 8) * normal<double>(numbers));
    for (Index k = 0; k < 8; ++k)
        CHECK(xavier.weights().reshaped()(k) ==
              static_cast<float>(std::sqrt(2.0 / 6) * normal<double>(numbers)));
    CHECK(random == numbers);
    // Linear's own constructor.
    const Linear<float> uniform = he_uniform<float>(5, 7, random);
    CHECK(same_bits(uniform.weights(), Linear<float>(5, 7, numbers).weights()));
    // L = 1 is He's rule.
    CHECK(same_bits(fixup_normal<double>(5, 7, {}, random).weights(),
                    he_normal<double>(5, 7, numbers).weights()));
    CHECK(random == numbers);
}

TEST_CASE("fixup_scale: is L^(-1 / (2m - 2))", "[initialisation]") {
    CHECK(fixup_scale({.branches = 1, .layers_of_branch = 2}) == 1);
    CHECK(fixup_scale({.branches = 64, .layers_of_branch = 2}) == 0.125);
    CHECK(fixup_scale({.branches = 81, .layers_of_branch = 3}) == 1 / 3.0);
    for (const Index branches : {2, 3, 54, 1000, 123456789})
        for (const Index layers : {2, 3, 4, 7, 40}) {
            CAPTURE(branches, layers);
            const long double exact = std::pow(static_cast<long double>(branches),
                                               -1 / (2 * static_cast<long double>(layers) - 2));
            const double got = fixup_scale({branches, layers});
            CHECK(static_cast<double>(std::abs(got / exact - 1)) <= 4 * 0x1p-53);
        }
}

TEST_CASE("initialisation: refuses widths below 1 and shapes that are none, and draws nothing then",
          "[initialisation]") {
    Philox random{1};
    const auto two = [](const std::string& who) {
        return std::pair{who + ": inputs must be at least 1, got 0",
                         who + ": outputs must be at least 1, got -2"};
    };
    const auto check = [&](const std::string& who, const auto& make) {
        const auto [no_inputs, no_outputs] = two(who);
        CHECK(refusal([&] { (void)make(0, 3); }) == no_inputs);
        CHECK(refusal([&] { (void)make(3, -2); }) == no_outputs);
    };
    check("he_normal", [&](Index i, Index o) { return he_normal<double>(i, o, random); });
    check("he_uniform", [&](Index i, Index o) { return he_uniform<double>(i, o, random); });
    check("xavier_normal", [&](Index i, Index o) { return xavier_normal<double>(i, o, random); });
    check("xavier_uniform", [&](Index i, Index o) { return xavier_uniform<double>(i, o, random); });
    check("fixup_normal", [&](Index i, Index o) { return fixup_normal<double>(i, o, {}, random); });
    check("zero_linear", [&](Index i, Index o) { return zero_linear<double>(i, o); });
    CHECK(refusal([&] { (void)fixup_normal<double>(2, 2, {.branches = 0}, random); }) ==
          "fixup_scale: branches must be at least 1, got 0");
    CHECK(refusal([&] { (void)fixup_normal<double>(2, 2, {.layers_of_branch = 1}, random); }) ==
          "fixup_scale: layers_of_branch must be at least 2, got 1");
    CHECK(random == Philox{1});
}

}  // namespace
