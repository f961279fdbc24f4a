// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/normalisation/rms_norm.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include <stochastic_depth/random/philox.hpp>

#include "support/layer_contract.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

template <class Scalar>
RmsNorm<Scalar> rms_norm(Philox& random, Index features, double epsilon = 1e-5) {
    const Vector<Scalar> gain = random_matrix<Scalar>(random, features, 1);
    return RmsNorm<Scalar>{gain, epsilon};
}

template <class Scalar>
long double wide(Scalar number) {
    return static_cast<long double>(number);
}

/// 1 / sqrt(mean square + epsilon) by the definition, in long double.
template <class Scalar>
long double inverse_root_mean_square(const Matrix<Scalar>& x, Index j, double epsilon) {
    long double mean = 0;
    for (Index i = 0; i < x.rows(); ++i)
        mean += wide(x(i, j)) * wide(x(i, j)) / static_cast<long double>(x.rows());
    return 1 / std::sqrt(mean + wide(epsilon));
}

TEST_CASE("RmsNorm keeps the layer contract", "[rms_norm]") {
    Philox random{1};
    // Of one feature z is close to a sign: a larger epsilon makes the derivative large enough for
    // finite differences.
    check_layer_contract("RmsNorm", rms_norm<double>(random, 1, 0.5), 1);
    check_layer_contract("RmsNorm", rms_norm<double>(random, 2, 0.5), 2);
    check_layer_contract("RmsNorm", rms_norm<double>(random, 7), 7);
    check_layer_contract("RmsNorm", rms_norm<double>(random, 37), 37);
    check_layer_contract("RmsNorm", rms_norm<float>(random, 19), 19);
    check_refuses_other_inputs(rms_norm<double>(random, 7), 7, "RmsNorm");
}

TEMPLATE_TEST_CASE("RmsNorm: both ways are those of the definition, for columns of any size",
                   "[rms_norm]", float, double) {
    using Scalar = TestType;
    Philox random{2};
    const double epsilon = std::numeric_limits<Scalar>::epsilon();
    for (const Index features : {1, 3, 8, 61})
        for (const Index columns : {1, 7, 75})
            for (const double size : {1e-2, 1.0, 1e4}) {
                const auto layer = rms_norm<Scalar>(random, features);
                const Matrix<Scalar> x =
                    static_cast<Scalar>(size) * random_matrix<Scalar>(random, features, columns);
                const Matrix<Scalar> dy = random_matrix<Scalar>(random, features, columns);
                Matrix<Scalar> y(features, columns), dx(features, columns);
                typename RmsNorm<Scalar>::Cache cache;
                auto gradient = layer.zero_gradient();
                layer.forward(x, y, cache);
                layer.backward(x, dy, cache, gradient, dx);

                Vector<long double> by_gain = Vector<long double>::Zero(features);
                double of_value = 0, of_slope = 0;
                for (Index j = 0; j < columns; ++j) {
                    const long double inverse = inverse_root_mean_square(x, j, layer.epsilon());
                    const auto gain = [&](Index i) { return wide(layer.gain()(i)); };
                    const auto z = [&](Index i) { return wide(x(i, j)) * inverse; };
                    long double average = 0;
                    for (Index i = 0; i < features; ++i)
                        average +=
                            gain(i) * wide(dy(i, j)) * z(i) / static_cast<long double>(features);
                    for (Index i = 0; i < features; ++i) {
                        by_gain(i) += wide(dy(i, j)) * z(i);
                        const long double value = gain(i) * z(i);
                        of_value = std::max(
                            of_value,
                            static_cast<double>(std::abs(wide(y(i, j)) - value) / std::abs(value)));
                        const long double slope =
                            (gain(i) * wide(dy(i, j)) - z(i) * average) * inverse;
                        of_slope = std::max(
                            of_slope,
                            static_cast<double>(std::abs(wide(dx(i, j)) - slope) / inverse));
                    }
                }
                CAPTURE(features, columns, size);
                CHECK(of_value <= 2 * epsilon);
                CHECK(of_slope <= 8 * epsilon);
                CHECK(largest_difference(gradient.gain, by_gain) <= 32 * epsilon);
            }
}

TEST_CASE("RmsNorm: fresh, it gives mean square 1 whatever scale went before", "[rms_norm]") {
    Philox random{3};
    const RmsNorm<double> layer{24, 1e-12};
    CHECK(layer.features() == 24);
    CHECK(layer.epsilon() == 1e-12);
    const Matrix<double> x = random_matrix<double>(random, 24, 6);
    const Matrix<double> y = run(layer, x);
    for (Index j = 0; j < 6; ++j) CHECK(std::abs(y.col(j).squaredNorm() / 24 - 1) <= 1e-10);
    CHECK(largest_difference(run(layer, Matrix<double>(8 * x)), y) <= 1e-10);
    Matrix<double> in_place = x;
    layer.forward(in_place, in_place);
    CHECK(same_bits(in_place, y));
}

TEST_CASE("RmsNorm: columns of zeros, NaN and infinities", "[rms_norm]") {
    const RmsNorm<double> layer{Vector<double>{{2, 3, 4}}};
    const Matrix<double> x{{0, 1, 1, 0}, {0, nan, infinity, 1}, {0, 2, 2, 2}};
    const Matrix<double> y = run(layer, x);
    CHECK(y.col(0).isZero(0));
    for (Index i = 0; i < 3; ++i) {
        CHECK(std::isnan(y(i, 1)));
        CHECK(std::isnan(y(i, 2)) == (i == 1));
        CHECK(std::isfinite(y(i, 3)));
    }
    // The smallest numbers and the smallest epsilon: nothing becomes infinite.
    const RmsNorm<float> small{3, std::numeric_limits<double>::min()};
    Matrix<float> tiny = Matrix<float>::Zero(3, 2);
    tiny(1, 1) = std::numeric_limits<float>::denorm_min();
    CHECK(run(small, tiny).allFinite());
}

TEST_CASE("RmsNorm: refuses what is no layer, no cache and no gradient", "[rms_norm]") {
    CHECK(refusal([] { RmsNorm<double>{0}; }) == "RmsNorm: features must be at least 1, got 0");
    CHECK(refusal([] { RmsNorm<float>{-3}; }) == "RmsNorm: features must be at least 1, got -3");
    CHECK(refusal([] {
              RmsNorm<double>{2, 0.0};
          }) == "RmsNorm: epsilon must be finite and above 0, got 0");
    CHECK(refusal([] {
              RmsNorm<double>{2, nan};
          }) == "RmsNorm: epsilon must be finite and above 0, got nan");
    CHECK(refusal([] {
              RmsNorm<double>{2, infinity};
          }) == "RmsNorm: epsilon must be finite and above 0, got inf");
    CHECK(refusal([] { RmsNorm<double>{Vector<double>{}}; }) ==
          "RmsNorm: features must be at least 1, got 0");

    const RmsNorm<double> layer{3};
    const Matrix<double> x = Matrix<double>::Ones(3, 2);
    Matrix<double> y(3, 2), dx = Matrix<double>::Constant(3, 2, 77);
    RmsNorm<double>::Cache cache;
    RmsNorm<double>::Gradient gradient = layer.zero_gradient();
    CHECK(refusal([&] { layer.backward(x, x, cache, gradient, dx); }) ==
          "RmsNorm: cache must be of 2 columns, got 0");
    layer.forward(x, y, cache);
    gradient = RmsNorm<double>{4}.zero_gradient();
    CHECK(refusal([&] { layer.backward(x, x, cache, gradient, dx); }) ==
          "RmsNorm: gradient must have 3 features, got 4");
    CHECK((dx.array() == 77).all());
}

}  // namespace
