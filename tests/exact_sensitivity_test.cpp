// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/exact_sensitivity.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/layer_values.hpp>
#include <stochastic_depth/layers/elementwise/elementwise.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/function.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/thrown.hpp"

namespace sd = stochastic_depth;
using sd::Index;

namespace {

using Table = std::vector<std::vector<long double>>;

/// The outputs of a plain network under every mask.
Table outputs_of(const plain::Network& network, const std::vector<long double>& x) {
    Table outputs;
    for (std::uint64_t mask = 0; mask < std::uint64_t{1} << network.blocks.size(); ++mask)
        outputs.push_back(network(x, mask));
    return outputs;
}

/// A difference, and the size of what was subtracted: rounding is relative to that.
struct Difference {
    long double value = 0, size = 0;
};

/// sum over the masks of weight(mask without the given layers) times the difference by these
/// layers.
template <class Weight>
Difference difference(const Table& outputs, std::uint64_t layers, std::size_t i,
                      const Weight& weight) {
    Difference sum;
    for (std::uint64_t mask = 0; mask < outputs.size(); ++mask) {
        const bool odd = std::popcount(layers & ~mask) % 2 != 0;
        const long double term = weight(mask) * outputs[mask][i];
        sum.value += odd ? -term : term;
        sum.size += std::abs(term);
    }
    return sum;
}

void check_close(double value, const Difference& expected) {
    INFO("value " << value << ", expected " << static_cast<double>(expected.value));
    REQUIRE(std::abs(static_cast<long double>(value) - expected.value) <= 1e-12L * expected.size);
}

/// Probability of a mask's bits at all layers but the given ones.
auto probability_without(const plain::Network& network, std::uint64_t layers) {
    return [&network, layers](std::uint64_t mask) {
        long double product = 1;
        for (std::size_t l = 0; l < network.blocks.size(); ++l) {
            const long double p = network.blocks[l].p;
            if ((layers >> l & 1u) == 0) product *= (mask >> l & 1u) != 0 ? p : 1 - p;
        }
        return product;
    };
}

std::uint64_t bit(Index l) { return std::uint64_t{1} << l; }

/// 1 / (L choose k) / L, what Shapley's value gives to each mask with k of the L - 1 others.
long double shapley_weight(int depth, int k) {
    long double choose = 1;
    for (int i = 0; i < k; ++i) choose = choose * (depth - 1 - i) / (i + 1);
    return 1 / (choose * depth);
}

template <class Branch>
void check_network(const plain::Network& plain_network, sd::Philox& random) {
    const auto network = plain::to_library<Branch>(plain_network);
    const Index depth = network.depth();
    const sd::Matrix<double> x = sd::test::random_matrix<double>(random, 3, 2);
    const auto answer = sd::ExactSensitivity{{.order = sd::SensitivityOrder::pairs}}(network, x);
    const auto banzhaf = sd::banzhaf_values(network, x);
    const auto shapley = sd::shapley_values(network, x);
    for (Index j = 0; j < x.cols(); ++j) {
        const Table outputs = outputs_of(plain_network, plain::column(x, j));
        for (Index i = 0; i < 2; ++i) {
            const auto row = static_cast<std::size_t>(i);
            for (Index l = 0; l < depth; ++l) {
                check_close(
                    answer.by_layer.of(l)(i, j),
                    difference(outputs, bit(l), row, probability_without(plain_network, bit(l))));
                check_close(banzhaf.value.of(l)(i, j),
                            difference(outputs, bit(l), row, [&](std::uint64_t) {
                                return std::ldexp(1.0L, 1 - static_cast<int>(depth));
                            }));
                check_close(shapley.value.of(l)(i, j),
                            difference(outputs, bit(l), row, [&](std::uint64_t mask) {
                                return shapley_weight(static_cast<int>(depth),
                                                      std::popcount(mask & ~bit(l)));
                            }));
                for (Index m = 0; m < l; ++m)
                    check_close(answer.by_pair.of(l, m)(i, j),
                                difference(outputs, bit(l) | bit(m), row,
                                           probability_without(plain_network, bit(l) | bit(m))));
            }
        }
    }
}

/// x + tanh(W x + b), skippable, and the same with another such layer inside its branch.
using Branch = plain::OneLinear<double, sd::Tanh<double>>;
using Skippable = sd::StochasticDepth<sd::Residual<Branch>>;

Skippable skippable(sd::Philox& random, double p) {
    return {sd::Residual{Branch{sd::Linear<double>{3, 3, random}, {}}}, sd::SurvivalProbability{p}};
}

}  // namespace

TEST_CASE(
    "ExactSensitivity: slopes, pairs, Banzhaf and Shapley values of 240 random networks against brute "
    "force",
    "[exact_sensitivity]") {
    sd::Philox random{20};
    for (int trial = 0; trial < 240; ++trial) {
        plain::Shape shape{
            .depth = static_cast<std::size_t>(1 + trial % 7),
            .width = static_cast<std::size_t>(1 + trial % 5),
            .linears = 1 + trial % 2,
            .activation = trial % 4 < 2 ? plain::Activation::tanh : plain::Activation::relu,
            .ends = true};
        const plain::Network network = plain::random_network(random, shape);
        INFO("trial " << trial);
        if (shape.linears == 1 && shape.activation == plain::Activation::tanh)
            check_network<plain::OneLinear<double, sd::Tanh<double>>>(network, random);
        else if (shape.linears == 1)
            check_network<plain::OneLinear<double, sd::ReLU<double>>>(network, random);
        else if (shape.activation == plain::Activation::tanh)
            check_network<plain::TwoLinears<double, sd::Tanh<double>>>(network, random);
        else
            check_network<plain::TwoLinears<double, sd::ReLU<double>>>(network, random);
    }
}

TEST_CASE("ExactSensitivity: mean and variance are those of ExactExpectation, bit for bit",
          "[exact_sensitivity]") {
    sd::Philox random{21};
    std::vector<Skippable> layers;
    for (const double p : {0.9, 0.5, 0.2, 0.7, 0.35}) layers.push_back(skippable(random, p));
    const sd::Stack network{layers};
    const sd::Matrix<double> x = sd::test::random_matrix<double>(random, 3, 7);
    const auto exact = sd::ExactExpectation{}(network, x);
    for (const auto order : {sd::SensitivityOrder::layers, sd::SensitivityOrder::pairs}) {
        const auto answer = sd::ExactSensitivity{{.order = order}}(network, x);
        CHECK(answer.expectation.mean == exact.mean);
        CHECK(answer.expectation.variance == exact.variance);
        CHECK(answer.expectation.layer_evaluations == 31);
    }
}

TEST_CASE("ExactSensitivity: a layer inside a skippable one matters where the outer one is kept",
          "[exact_sensitivity]") {
    sd::Philox random{22};
    const double outer_p = 0.6, inner_p = 0.3, last_p = 0.8;
    const Skippable inner = skippable(random, inner_p);
    const sd::Sequential branch{sd::Linear<double>{3, 3, random}, inner, sd::Tanh<double>{}};
    const sd::StochasticDepth outer{sd::Residual{branch}, sd::SurvivalProbability{outer_p}};
    const Skippable last = skippable(random, last_p);
    const sd::Sequential network{outer, last};
    const sd::Matrix<double> x = sd::test::random_matrix<double>(random, 3, 4);
    const auto answer = sd::ExactSensitivity{{.order = sd::SensitivityOrder::pairs}}(network, x);
    const auto at = [&](int a, int b, int c) {
        sd::SurvivalMask mask = sd::SurvivalMask::none(3);
        if (a) mask.keep(0);
        if (b) mask.keep(1);
        if (c) mask.keep(2);
        return network(x, mask);
    };
    const auto over_last = [&](int a, int b) -> sd::Matrix<double> {
        return last_p * at(a, b, 1) + (1 - last_p) * at(a, b, 0);
    };
    const auto over_first = [&](int c) -> sd::Matrix<double> {
        return outer_p * (inner_p * at(1, 1, c) + (1 - inner_p) * at(1, 0, c)) +
               (1 - outer_p) * at(0, 0, c);
    };
    const sd::Matrix<double> by_outer =
        inner_p * over_last(1, 1) + (1 - inner_p) * over_last(1, 0) - over_last(0, 0);
    const sd::Matrix<double> by_inner = outer_p * (over_last(1, 1) - over_last(1, 0));
    const sd::Matrix<double> by_last = over_first(1) - over_first(0);
    const sd::Matrix<double> by_outer_and_inner = over_last(1, 1) - over_last(1, 0);
    const sd::Matrix<double> by_inner_and_last =
        outer_p * (at(1, 1, 1) - at(1, 1, 0) - at(1, 0, 1) + at(1, 0, 0));
    const auto close = [](const sd::Matrix<double>& a, const sd::Matrix<double>& b) {
        return (a - b).cwiseAbs().maxCoeff() <= 1e-14;
    };
    CHECK(close(answer.by_layer.of(0), by_outer));
    CHECK(close(answer.by_layer.of(1), by_inner));
    CHECK(close(answer.by_layer.of(2), by_last));
    CHECK(close(answer.by_pair.of(0, 1), by_outer_and_inner));
    CHECK(close(answer.by_pair.of(2, 1), by_inner_and_last));
}

TEST_CASE(
    "ExactSensitivity: a layer that is always kept has a slope, and changes neither mean nor variance",
    "[exact_sensitivity]") {
    sd::Philox random{23};
    const Skippable first = skippable(random, 0.5), always = skippable(random, 1.0),
                    last = skippable(random, 0.25);
    const sd::Sequential network{first, always, last};
    const sd::Matrix<double> x = sd::test::random_matrix<double>(random, 3, 2);
    const auto answer = sd::ExactSensitivity{}(network, x);
    CHECK(answer.expectation.mean == sd::ExactExpectation{}(network, x).mean);
    CHECK(answer.expectation.variance == sd::ExactExpectation{}(network, x).variance);
    CHECK(answer.expectation.layer_evaluations == 7);
    const sd::Sequential without{first, last};
    const sd::Matrix<double> slope =
        answer.expectation.mean - sd::ExactExpectation{}(without, x).mean;
    CHECK((answer.by_layer.of(1) - slope).cwiseAbs().maxCoeff() <= 1e-14);
}

TEST_CASE(
    "ExactSensitivity: what is not a number where an always kept layer is skipped stays out of the mean",
    "[exact_sensitivity]") {
    const auto nan_below = sd::elementwise<double>(
        [](double z) { return z < 1 ? std::numeric_limits<double>::quiet_NaN() : z; });
    const auto plus_one = sd::function<double>(
        [](const sd::ConstMatrixRef<double>& x) -> sd::Matrix<double> { return x.array() + 1.0; });
    const sd::Sequential network{sd::StochasticDepth{plus_one, sd::SurvivalProbability{1.0}},
                                 nan_below,
                                 sd::StochasticDepth{plus_one, sd::SurvivalProbability{0.5}}};
    const auto answer = sd::ExactSensitivity{}(network, sd::Matrix<double>::Zero(1, 1));
    CHECK(answer.expectation.mean(0, 0) == 1.5);
    CHECK(answer.by_layer.of(1)(0, 0) == 1.0);
    CHECK(std::isnan(answer.by_layer.of(0)(0, 0)));
}

TEST_CASE("ExactSensitivity: same bits for any number of threads and in any batch",
          "[exact_sensitivity]") {
    sd::Philox random{24};
    std::vector<Skippable> layers;
    for (int l = 0; l < 13; ++l) layers.push_back(skippable(random, 0.3 + 0.05 * l));
    const sd::Stack network{layers};
    const sd::Matrix<double> x = sd::test::random_matrix<double>(random, 3, 5);
    const auto expected = sd::ExactSensitivity{{.order = sd::SensitivityOrder::pairs}}(network, x);
    for (const unsigned threads : {2u, 3u, 8u}) {
        const auto answer = sd::ExactSensitivity{
            {.order = sd::SensitivityOrder::pairs, .threads = threads}}(network, x);
        CHECK(answer.by_layer.values() == expected.by_layer.values());
        for (Index l = 1; l < 13; ++l)
            for (Index m = 0; m < l; ++m)
                CHECK(answer.by_pair.of(l, m) == expected.by_pair.of(l, m));
    }
    for (Index j = 0; j < x.cols(); ++j) {
        const auto alone = sd::ExactSensitivity{}(network, x.col(j));
        for (Index l = 0; l < 13; ++l)
            CHECK(alone.by_layer.of(l).col(0) == expected.by_layer.of(l).col(j));
    }
}

TEST_CASE("ExactSensitivity: the slope of a scalar of the mean is that of finite differences",
          "[exact_sensitivity]") {
    sd::Philox random{25};
    const Skippable a = skippable(random, 0.5), b = skippable(random, 0.7);
    const sd::Matrix<double> x = sd::test::random_matrix<double>(random, 3, 2),
                             slopes = sd::test::random_matrix<double>(random, 3, 2);
    const auto scalar = [&](double p) {
        const sd::Sequential network{sd::StochasticDepth{a.layer(), sd::SurvivalProbability{p}}, b};
        return sd::ExactExpectation{}(network, x).mean.cwiseProduct(slopes).sum();
    };
    const sd::Sequential network{a, b};
    const Eigen::VectorXd slope = sd::ExactSensitivity{}(network, x).by_layer.contract(slopes);
    REQUIRE(slope.size() == 2);
    CHECK(std::abs(slope(0) - (scalar(0.75) - scalar(0.25)) / 0.5) <= 1e-13);
}

TEST_CASE("Sensitivities, Banzhaf and Shapley values: edge cases", "[exact_sensitivity]") {
    sd::Philox random{26};
    const sd::Stack<Skippable> none{std::vector<Skippable>{}};
    const sd::Matrix<double> x = sd::test::random_matrix<double>(random, 3, 2);
    CHECK(sd::ExactSensitivity{}(none, x).by_layer.layers() == 0);
    CHECK(sd::ExactSensitivity{}(none, x).expectation.mean == x);
    CHECK(sd::shapley_values(none, x).value.layers() == 0);
    const sd::Stack<Skippable> one{{skippable(random, 0.3)}};
    const sd::Matrix<double> added = one(x, sd::SurvivalMask::all(1)) - x;
    for (const auto& value : {sd::ExactSensitivity{}(one, x).by_layer,
                              sd::banzhaf_values(one, x).value, sd::shapley_values(one, x).value})
        CHECK((value.of(0) - added).cwiseAbs().maxCoeff() <= 1e-15);
    const auto empty =
        sd::ExactSensitivity{{.order = sd::SensitivityOrder::pairs}}(one, x.leftCols(0));
    CHECK(empty.by_layer.of(0).cols() == 0);
}

TEST_CASE("Shapley values sum to what all layers together add", "[exact_sensitivity]") {
    sd::Philox random{27};
    std::vector<Skippable> layers;
    for (int l = 0; l < 6; ++l) layers.push_back(skippable(random, 0.5));
    const sd::Stack network{layers};
    const sd::Matrix<double> x = sd::test::random_matrix<double>(random, 3, 3);
    const auto values = sd::shapley_values(network, x);
    sd::Matrix<double> sum = sd::Matrix<double>::Zero(3, 3);
    for (Index l = 0; l < 6; ++l) sum += values.value.of(l);
    const sd::Matrix<double> all = network(x, sd::SurvivalMask::all(6)) - x;
    CHECK((sum - all).cwiseAbs().maxCoeff() <= 1e-13);
    CHECK(values.layer_evaluations == 3 * 63);
}

TEST_CASE("Sensitivities, Banzhaf and Shapley values: bad input names what is wrong",
          "[exact_sensitivity]") {
    sd::Philox random{28};
    std::vector<Skippable> layers(40, skippable(random, 0.5));
    const sd::Stack deep{layers};
    const sd::Stack<Skippable> one{{layers.front()}};
    const sd::Matrix<double> x = sd::test::random_matrix<double>(random, 3, 1);
    CHECK(thrown<std::length_error>([&] { (void)sd::ExactSensitivity{}(deep, x); }) ==
          "ExactSensitivity: depth 40 takes 1099511627775 layer evaluations for each column, and "
          "max_layer_evaluations is 268435456; raise it, or sample with MonteCarloExpectation");
    CHECK(thrown<std::length_error>([&] {
              (void)sd::shapley_values(deep, x);
          }).find("shapley_values: depth 40") == 0);
    CHECK(thrown<std::invalid_argument>([] { (void)sd::ExactSensitivity{{.threads = 0}}; }) ==
          "ExactSensitivity: threads must be at least 1, got 0");
    CHECK(thrown<std::invalid_argument>([&] {
              (void)sd::banzhaf_values(one, x, {.threads = 0});
          }) == "banzhaf_values: threads must be at least 1, got 0");
    const auto answer = sd::ExactSensitivity{{.order = sd::SensitivityOrder::pairs}}(one, x);
    CHECK(thrown<std::invalid_argument>([&] { (void)answer.by_layer.of(1); }) ==
          "ByLayer: layer must lie in [0, 1), got 1");
    CHECK(thrown<std::invalid_argument>([&] { (void)answer.by_pair.of(0, 0); }) ==
          "ByPair: the layers of a pair must differ, got 0 twice");
    CHECK(thrown<std::invalid_argument>([&] { (void)answer.by_layer.contract(x.topRows(2)); }) ==
          "ByLayer: slopes must be [3 x 1], got [2 x 1]");
}

TEST_CASE("ExactExpectation and ExactSensitivity: progress rises to 1, and can stop the work",
          "[exact_sensitivity]") {
    sd::Philox random{29};
    std::vector<Skippable> layers(12, skippable(random, 0.5));
    const sd::Stack network{layers};
    const sd::Matrix<double> x = sd::test::random_matrix<double>(random, 3, 40);
    for (const unsigned threads : {1u, 3u}) {
        std::vector<double> done;
        const sd::ProgressCallback note = [&](double fraction) {
            done.push_back(fraction);
            return true;
        };
        const auto answer =
            sd::ExactExpectation{{.threads = threads, .progress = note}}(network, x);
        CHECK(answer.mean == sd::ExactExpectation{}(network, x).mean);
        REQUIRE(done.size() >= 50);
        CHECK(std::is_sorted(done.begin(), done.end()));
        CHECK(done.front() >= 0);
        CHECK(done.back() > 0.98);
        CHECK(done.back() <= 1);
        int calls = 0;
        const sd::ProgressCallback stop = [&](double) { return ++calls < 5; };
        CHECK(thrown<sd::Cancelled>([&] {
                  (void)sd::ExactSensitivity({.threads = threads, .progress = stop})(network, x);
              }) == "stopped by its progress callback");
        CHECK(calls == 5);
        calls = 0;
        CHECK(thrown<sd::Cancelled>([&] {
                  (void)sd::shapley_values(network, x, {.threads = threads, .progress = stop});
              }) == "stopped by its progress callback");
        CHECK(calls == 5);
    }
}

TEMPLATE_TEST_CASE("ExactSensitivity: mean and variance are ExactExpectation's where p = 1",
                   "[exact_sensitivity]", float, double) {
    using Scalar = TestType;
    using Inner = sd::Sequential<sd::Linear<Scalar>, sd::Tanh<Scalar>>;
    using Layer = sd::StochasticDepth<Inner>;
    const Scalar infinity = std::numeric_limits<Scalar>::infinity();
    const auto layer = [](double weight, double p) {
        return Layer{Inner{sd::Linear<Scalar>(
                                sd::Matrix<Scalar>::Constant(1, 1, static_cast<Scalar>(weight)),
                                sd::Vector<Scalar>::Zero(1)),
                            sd::Tanh<Scalar>{}},
                     sd::SurvivalProbability{p}};
    };
    const auto check = [](const auto& network, const auto& x) {
        const auto expected = sd::ExactExpectation{}(network, x);
        for (const auto order : {sd::SensitivityOrder::layers, sd::SensitivityOrder::pairs}) {
            const auto answer = sd::ExactSensitivity{{.order = order}}(network, x).expectation;
            CHECK(sd::test::same_bits(answer.mean, expected.mean));
            CHECK(sd::test::same_bits(answer.variance, expected.variance));
        }
    };
    for (const double weight : {1.0, 0.5e-2, 0.5e-8, 0.5e-17}) {
        sd::Matrix<Scalar> x(1, 5);
        x << static_cast<Scalar>(1 / weight), Scalar(1), Scalar(-3), infinity, -infinity;
        CAPTURE(weight);
        // Nothing is skipped with a probability: the last layer, one before, an identity shortcut.
        check(sd::Stack<Layer>{{layer(weight, 1)}}, x);
        check(sd::Stack<Layer>{{layer(weight, 1), layer(0.7, 1)}}, x);
        check(sd::Sequential{layer(weight, 1), sd::Tanh<Scalar>{}}, x);
        // What comes after may be skipped.
        check(sd::Stack<Layer>{{layer(weight, 1), layer(0.7, 0.5)}}, x);
    }
    sd::Matrix<Scalar> x(1, 3);
    x << Scalar(1e8), Scalar(0.3), infinity;
    const sd::Linear<Scalar> half(sd::Matrix<Scalar>::Constant(1, 1, Scalar(0.5)),
                                  sd::Vector<Scalar>::Zero(1));
    check(sd::Sequential{sd::StochasticDepth{sd::Residual{half}, sd::SurvivalProbability{1.0}}}, x);
    // Not 1, though the nearest float is.
    const double almost = 1 - 1e-8;
    check(sd::Stack<Layer>{{layer(0.5, almost), layer(2.0, almost)}}, x.leftCols(2));
}

TEST_CASE("ExactSensitivity: an empty batch has its layers and pairs", "[exact_sensitivity]") {
    sd::Philox random{30};
    const sd::Stack network{std::vector<Skippable>(3, skippable(random, 0.5))};
    const auto answer = sd::ExactSensitivity{{.order = sd::SensitivityOrder::pairs}}(
        network, sd::Matrix<double>(3, 0));
    CHECK(answer.by_layer.layers() == 3);
    CHECK(answer.by_pair.layers() == 3);
    CHECK(answer.by_pair.of(0, 2).rows() == 3);
    CHECK(answer.by_pair.of(0, 2).cols() == 0);
}
