// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/normalisation/layer_norm.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/random/philox.hpp>

#include "support/layer_contract.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

template <class Scalar>
LayerNorm<Scalar> layer_norm(Philox& random, Index features, double epsilon = 1e-5) {
    const Vector<Scalar> gain = random_matrix<Scalar>(random, features, 1);
    const Vector<Scalar> bias = random_matrix<Scalar>(random, features, 1);
    return {gain, bias, epsilon};
}

struct Moments {
    long double mean = 0, inverse_deviation = 0;
};

/// By the definition, in long double.
template <class Scalar>
Moments moments(const Matrix<Scalar>& x, Index j, double epsilon) {
    Moments result;
    const auto count = static_cast<long double>(x.rows());
    for (Index k = 0; k < x.rows(); ++k) result.mean += static_cast<long double>(x(k, j)) / count;
    long double variance = 0;
    for (Index k = 0; k < x.rows(); ++k) {
        const long double deviation = static_cast<long double>(x(k, j)) - result.mean;
        variance += deviation * deviation / count;
    }
    result.inverse_deviation = 1 / std::sqrt(variance + static_cast<long double>(epsilon));
    return result;
}

TEST_CASE("LayerNorm keeps the layer contract", "[layer_norm]") {
    Philox random{1};
    // With one or two features z is a constant or close to a sign: a larger epsilon makes the
    // derivatives large enough for finite differences.
    check_layer_contract("LayerNorm", layer_norm<double>(random, 1), 1);
    check_layer_contract("LayerNorm", layer_norm<double>(random, 2, 0.5), 2);
    check_layer_contract("LayerNorm", layer_norm<double>(random, 7, 0.1), 7);
    check_layer_contract("LayerNorm", layer_norm<double>(random, 37), 37);
    check_layer_contract("LayerNorm", layer_norm<float>(random, 19), 19);
    check_refuses_other_inputs(layer_norm<double>(random, 7), 7, "LayerNorm");
}

TEMPLATE_TEST_CASE("LayerNorm: equals the definition, whatever the columns' offset and size",
                   "[layer_norm]", float, double) {
    using Scalar = TestType;
    Philox random{2};
    const double epsilon = std::numeric_limits<Scalar>::epsilon();
    for (const Index features : {2, 8, 61})
        for (const double offset : {0.0, 1.0, 1000.0})
            for (const double size : {1e-2, 1.0, 1e4}) {
                const auto layer = layer_norm<Scalar>(random, features);
                const Matrix<Scalar> x =
                    (static_cast<Scalar>(size) * random_matrix<Scalar>(random, features, 5))
                        .array() +
                    static_cast<Scalar>(offset);
                const Matrix<Scalar> y = run(layer, x);
                for (Index j = 0; j < x.cols(); ++j) {
                    const Moments exact = moments(x, j, layer.epsilon());
                    // The mean's rounding, in units of the deviation.
                    const double off = static_cast<double>(x.col(j).cwiseAbs().maxCoeff()) *
                                       static_cast<double>(exact.inverse_deviation);
                    for (Index i = 0; i < features; ++i) {
                        CAPTURE(features, offset, size, i, j);
                        const auto gain = static_cast<long double>(layer.gain()(i));
                        const auto bias = static_cast<long double>(layer.bias()(i));
                        const long double z = (static_cast<long double>(x(i, j)) - exact.mean) *
                                              exact.inverse_deviation;
                        const long double expected = gain * z + bias;
                        // The mean is known to twice the digits; the deviation from it, z and the
                        // result are rounded.
                        const double tolerance =
                            epsilon *
                                static_cast<double>(std::abs(expected) + 2 * std::abs(gain * z)) +
                            0x1p-52 * (8 + 4 * off) *
                                static_cast<double>(std::abs(gain) * (1 + std::abs(z)) +
                                                    std::abs(bias));
                        CHECK(static_cast<double>(std::abs(y(i, j) - expected)) <= tolerance);
                    }
                }
            }
}

TEMPLATE_TEST_CASE("LayerNorm: the way back is that of the definition, for long batches too",
                   "[layer_norm]", float, double) {
    using Scalar = TestType;
    Philox random{4};
    const auto wide = [](Scalar number) { return static_cast<long double>(number); };
    for (const Index features : {1, 3, 8, 61})
        for (const Index columns : {1, 7, 75}) {
            const auto layer = layer_norm<Scalar>(random, features);
            const Matrix<Scalar> x =
                random_matrix<Scalar>(random, features, columns).array() + Scalar(3);
            const Matrix<Scalar> dy = random_matrix<Scalar>(random, features, columns);
            Matrix<Scalar> y(features, columns), dx(features, columns);
            typename LayerNorm<Scalar>::Cache cache;
            auto gradient = layer.zero_gradient();
            layer.forward(x, y, cache);
            layer.backward(x, dy, cache, gradient, dx);

            Matrix<long double> z(features, columns);
            Vector<long double> by_gain = Vector<long double>::Zero(features), by_bias = by_gain;
            double worst = 0;
            for (Index j = 0; j < columns; ++j) {
                const Moments m = moments(x, j, layer.epsilon());
                long double of_g = 0, of_gz = 0;
                const auto g = [&](Index i) { return wide(layer.gain()(i)) * wide(dy(i, j)); };
                for (Index i = 0; i < features; ++i) {
                    z(i, j) = (wide(x(i, j)) - m.mean) * m.inverse_deviation;
                    of_g += g(i) / static_cast<long double>(features);
                    of_gz += g(i) * z(i, j) / static_cast<long double>(features);
                    by_gain(i) += wide(dy(i, j)) * z(i, j);
                    by_bias(i) += wide(dy(i, j));
                }
                for (Index i = 0; i < features; ++i) {
                    const long double exact = (g(i) - of_g - z(i, j) * of_gz) * m.inverse_deviation;
                    worst = std::max(worst, static_cast<double>(std::abs(wide(dx(i, j)) - exact) /
                                                                m.inverse_deviation));
                }
            }
            const double epsilon = std::numeric_limits<Scalar>::epsilon();
            CAPTURE(features, columns);
            CHECK(worst <= 16 * epsilon);
            // Blocks of 32 columns are summed in Scalar.
            CHECK(largest_difference(gradient.gain, by_gain) <= 64 * epsilon);
            CHECK(largest_difference(gradient.bias, by_bias) <= 32 * epsilon);
        }
}

TEST_CASE("LayerNorm: fresh, it gives mean 0 and variance 1 whatever scale and shift went before",
          "[layer_norm]") {
    Philox random{3};
    const LayerNorm<double> layer{24, 1e-12};
    CHECK(layer.features() == 24);
    CHECK(layer.epsilon() == 1e-12);
    const Matrix<double> x = random_matrix<double>(random, 24, 6);
    const Matrix<double> y = run(layer, x);
    for (Index j = 0; j < 6; ++j) {
        CHECK(std::abs(y.col(j).mean()) <= 1e-15);
        CHECK(std::abs(y.col(j).squaredNorm() / 24 - 1) <= 1e-10);
    }
    const Matrix<double> moved = (8 * x).array() + 3;
    CHECK(largest_difference(run(layer, moved), y) <= 1e-10);
    // In place.
    Matrix<double> in_place = x;
    layer.forward(in_place, in_place);
    CHECK(same_bits(in_place, y));
}

TEMPLATE_TEST_CASE("LayerNorm: what follows it runs in the same pass, the same bits",
                   "[layer_norm]", float, double) {
    using Scalar = TestType;
    Philox random{5};
    for (const Index features : {1, 2, 7, 16, 21, 64}) {
        const auto layer = layer_norm<Scalar>(random, features);
        const Matrix<Scalar> x = random_matrix<Scalar>(random, features, 19);
        const Matrix<Scalar> y = run(layer, x);
        CAPTURE(features);
        CHECK(same_bits(run(Sequential{layer, ReLU<Scalar>{}}, x), run(ReLU<Scalar>{}, y)));
        const Matrix<Scalar> sum = x + y;
        CHECK(same_bits(run(Residual{layer}, x), sum));
        Matrix<Scalar> in_place = x;
        Residual{layer}.forward(in_place, in_place);
        CHECK(same_bits(in_place, sum));
    }
}

TEST_CASE("LayerNorm: columns of equal entries, NaN and infinities", "[layer_norm]") {
    const LayerNorm<double> layer{Vector<double>{{2, 3, 4}}, Vector<double>{{5, 6, 7}}};
    const Matrix<double> x{{8, 1, 1, 0}, {8, nan, infinity, 1}, {8, 2, 2, 2}};
    const Matrix<double> y = run(layer, x);
    CHECK(same_bits(y.col(0), layer.bias()));
    for (Index i = 0; i < 3; ++i) {
        CHECK(std::isnan(y(i, 1)));
        CHECK(std::isnan(y(i, 2)));
        CHECK(std::isfinite(y(i, 3)));
    }
}

TEST_CASE("LayerNorm: refuses what is no layer, no cache and no gradient", "[layer_norm]") {
    CHECK(refusal([] { LayerNorm<double>{0}; }) == "LayerNorm: features must be at least 1, got 0");
    CHECK(refusal([] { LayerNorm<float>{-3}; }) ==
          "LayerNorm: features must be at least 1, got -3");
    CHECK(refusal([] {
              LayerNorm<double>{2, 0.0};
          }) == "LayerNorm: epsilon must be finite and above 0, got 0");
    CHECK(refusal([] {
              LayerNorm<double>{2, -1e-5};
          }) == "LayerNorm: epsilon must be finite and above 0, got -1e-05");
    CHECK(refusal([] {
              LayerNorm<double>{2, nan};
          }) == "LayerNorm: epsilon must be finite and above 0, got nan");
    CHECK(refusal([] {
              LayerNorm<double>{2, infinity};
          }) == "LayerNorm: epsilon must be finite and above 0, got inf");
    const Vector<double> two = Vector<double>::Ones(2), three = Vector<double>::Ones(3);
    CHECK(refusal([&] {
              LayerNorm<double>{two, three};
          }) == "LayerNorm: bias must have 2 entries, got 3");
    CHECK(refusal([&] {
              LayerNorm<double>{Vector<double>{}, Vector<double>{}};
          }) == "LayerNorm: features must be at least 1, got 0");

    const LayerNorm<double> layer{3};
    const Matrix<double> x = Matrix<double>::Ones(3, 2);
    Matrix<double> y(3, 2), dx = Matrix<double>::Constant(3, 2, 77);
    LayerNorm<double>::Cache cache;
    LayerNorm<double>::Gradient gradient = layer.zero_gradient();
    CHECK(refusal([&] { layer.backward(x, x, cache, gradient, dx); }) ==
          "LayerNorm: cache must be of 2 columns, got 0");
    layer.forward(x, y, cache);
    gradient = LayerNorm<double>{4}.zero_gradient();
    CHECK(refusal([&] { layer.backward(x, x, cache, gradient, dx); }) ==
          "LayerNorm: gradient must have 3 features, got 4");
    CHECK((dx.array() == 77).all());
}

}  // namespace
