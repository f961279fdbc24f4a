// SPDX-License-Identifier: MIT
#include "support/layer_contract.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>
#include <type_traits>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/gelu_tanh.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/silu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/function.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/random/philox.hpp>

#include "support/layers.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

TEMPLATE_TEST_CASE(
    "Linear keeps the layer contract, with widths known at run time and at compile time",
    "[layer_contract]", float, double) {
    using Scalar = TestType;
    Philox random{1};
    constexpr int any = Eigen::Dynamic;
    check_layer_contract("Linear", linear<Scalar>(random, 1, 1), 1);
    check_layer_contract("Linear", linear<Scalar>(random, 7, 5), 7);
    check_layer_contract("Linear", linear<Scalar>(random, 9, 37), 9);
    check_layer_contract("Linear", linear<Scalar, 4, 4>(random, 4, 4), 4);
    check_layer_contract("Linear", linear<Scalar, 8, 8>(random, 8, 8), 8);
    check_layer_contract("Linear", linear<Scalar, 3, 11>(random, 3, 11), 3);
    check_layer_contract("Linear", linear<Scalar, any, 6>(random, 5, 6), 5);
    check_layer_contract("Linear", linear<Scalar, 6, any>(random, 6, 5), 6);
    check_refuses_other_inputs(linear<Scalar>(random, 7, 5), 7, "Linear");
    check_refuses_other_inputs(linear<Scalar, 8, 8>(random, 8, 8), 8, "Linear");
}

TEMPLATE_TEST_CASE("Activations and Identity keep the layer contract", "[layer_contract]", float,
                   double) {
    using Scalar = TestType;
    for (const Index size : {1, 3, 19}) {
        check_layer_contract("Elementwise", ReLU<Scalar>{}, size, Derivative::kinked);
        check_layer_contract("Elementwise", Tanh<Scalar>{}, size);
        check_layer_contract("Elementwise", GELU<Scalar>{}, size);
        check_layer_contract("Elementwise", GELUTanh<Scalar>{}, size);
        check_layer_contract("Elementwise", SiLU<Scalar>{}, size);
        check_layer_contract("Elementwise", wave<Scalar>(), size);
        check_layer_contract("Identity", Identity<Scalar>{}, size);
        check_layer_contract("Softmax", Softmax<Scalar>{}, size);
    }
}

TEMPLATE_TEST_CASE("Function keeps the forward part of the layer contract", "[layer_contract]",
                   float, double) {
    using Scalar = TestType;
    const auto centre =
        function<Scalar>([](const auto& x) { return x.rowwise() - x.colwise().minCoeff(); });
    check_layer_contract("Function", centre, 6);
    const auto halves =
        function<Scalar>([](const auto& x) { return x.topRows(3) - x.bottomRows(3); }, 3);
    check_layer_contract("Function", halves, 6);
}

/// Against derivatives written down on paper, in long double.
TEST_CASE("Activations: derivatives are those of the formula", "[layer_contract]") {
    const auto derivative = [](const auto& layer, double z) {
        using Layer = std::remove_cvref_t<decltype(layer)>;
        Matrix<double> x = Matrix<double>::Constant(1, 1, z), one = Matrix<double>::Ones(1, 1),
                       dx(1, 1);
        typename Layer::Gradient gradient = layer.zero_gradient();
        layer.backward(x, one, typename Layer::Cache{}, gradient, dx);
        return dx(0, 0);
    };
    for (double z = -6; z <= 6; z += 0.0625) {
        CAPTURE(z);
        const auto exact = static_cast<long double>(z);
        const long double cosh = std::cosh(exact);
        // 1 - tanh^2 cancels: its error is one of tanh's roundings.
        CHECK(std::abs(derivative(Tanh<double>{}, z) - 1 / (cosh * cosh)) <= 1e-15);
        const long double Phi = std::erfc(-exact / std::numbers::sqrt2_v<long double>) / 2;
        const long double phi =
            std::exp(-exact * exact / 2) / std::sqrt(2 * std::numbers::pi_v<long double>);
        CHECK(std::abs(derivative(GELU<double>{}, z) - (Phi + exact * phi)) <= 1e-15);
        CHECK(derivative(ReLU<double>{}, z) == (z > 0 ? 1 : 0));
    }
}

TEST_CASE("Activations: values are those of the formula", "[layer_contract]") {
    for (double z = -30; z <= 30; z += 0.125) {
        CAPTURE(z);
        const auto exact = static_cast<long double>(z);
        const Matrix<double> x = Matrix<double>::Constant(1, 1, z);
        CHECK(run(ReLU<double>{}, x)(0, 0) == std::max(z, 0.0));
        CHECK(std::abs(run(Tanh<double>{}, x)(0, 0) - std::tanh(exact)) <= 1e-15);
        // Relative, deep into the tail, where a rounding of z is one of z^2 in the exponent.
        const long double gelu = exact * std::erfc(-exact / std::numbers::sqrt2_v<long double>) / 2;
        CHECK(std::abs(run(GELU<double>{}, x)(0, 0) - gelu) <=
              4e-16 * (1 + z * z) * std::abs(gelu));
    }
}

TEMPLATE_TEST_CASE("Softmax: probabilities that sum to 1, for logits of any size",
                   "[layer_contract]", float, double) {
    using Scalar = TestType;
    Philox random{7};
    const double epsilon = std::numeric_limits<Scalar>::epsilon();
    for (const double size : {1.0, 30.0, 1e4}) {
        const Matrix<Scalar> x = static_cast<Scalar>(size) * random_matrix<Scalar>(random, 11, 20);
        const Matrix<Scalar> y = run(Softmax<Scalar>{}, x);
        CHECK(y.minCoeff() >= 0);
        for (Index j = 0; j < 20; ++j) {
            CHECK(std::abs(static_cast<double>(y.col(j).sum()) - 1) <= 12 * epsilon);
            long double sum = 0;
            const long double largest = x.col(j).maxCoeff();
            for (Index i = 0; i < 11; ++i) sum += std::exp(x(i, j) - largest);
            for (Index i = 0; i < 11; ++i) {
                const auto exact = static_cast<double>(std::exp(x(i, j) - largest) / sum);
                // exp turns the rounding of the difference, up to 2 size, into a relative error.
                CHECK(std::abs(static_cast<double>(y(i, j)) - exact) <=
                      epsilon * (16 + 4 * size) * exact + std::numeric_limits<Scalar>::min());
            }
        }
    }
    Matrix<Scalar> in_place = random_matrix<Scalar>(random, 5, 3);
    const Matrix<Scalar> apart = run(Softmax<Scalar>{}, in_place);
    Softmax<Scalar>{}.forward(in_place, in_place);
    CHECK(same_bits(in_place, apart));
}

// A NaN must reach the output: in its column, and in no other.
TEMPLATE_TEST_CASE("NaN passes through every layer, in its own column", "[layer_contract]", float,
                   double) {
    using Scalar = TestType;
    Philox random{8};
    const Scalar nan = std::numeric_limits<Scalar>::quiet_NaN();
    enum class Reaches { entry, column };
    const auto check = [&](const std::string& name, const auto& layer, Index size,
                           Reaches reaches) {
        INFO(name);
        const Matrix<Scalar> x = random_matrix<Scalar>(random, size, 8);
        const Matrix<Scalar> healthy = run(layer, x);
        for (Index at = 0; at < size; ++at) {
            Matrix<Scalar> sick = x;
            sick(at, 5) = nan;
            const Matrix<Scalar> y = run(layer, sick);
            for (Index j = 0; j < 8; ++j)
                for (Index i = 0; i < y.rows(); ++i) {
                    CAPTURE(at, i, j);
                    if (j == 5 && (reaches == Reaches::column || i == at))
                        CHECK(std::isnan(y(i, j)));
                    else
                        CHECK(y(i, j) == healthy(i, j));
                }
        }
    };
    for (const Index size : {1, 2, 7, 19, 35}) {
        check("ReLU", ReLU<Scalar>{}, size, Reaches::entry);
        check("Tanh", Tanh<Scalar>{}, size, Reaches::entry);
        check("GELU", GELU<Scalar>{}, size, Reaches::entry);
        check("GELUTanh", GELUTanh<Scalar>{}, size, Reaches::entry);
        check("SiLU", SiLU<Scalar>{}, size, Reaches::entry);
        check("Elementwise", wave<Scalar>(), size, Reaches::entry);
        check("Identity", Identity<Scalar>{}, size, Reaches::entry);
        check("Softmax", Softmax<Scalar>{}, size, Reaches::column);
        check("Linear", linear<Scalar>(random, size, size), size, Reaches::column);
        check("Linear and ReLU", Sequential{linear<Scalar>(random, size, 21), ReLU<Scalar>{}}, size,
              Reaches::column);
        check("Residual", Residual{Sequential{linear<Scalar>(random, size, size), ReLU<Scalar>{}}},
              size, Reaches::column);
    }
    check("Linear 8, ReLU", Sequential{linear<Scalar, 8, 8>(random, 8, 8), ReLU<Scalar>{}}, 8,
          Reaches::column);
}

TEST_CASE("Linear: bad parameters are refused by name", "[layer_contract]") {
    Philox random{10};
    const Philox untouched = random;
    const Matrix<double> weights = Matrix<double>::Ones(3, 2);
    const auto made = [&](Index rows, Index columns, Index bias) {
        return refusal([&] {
            (void)Linear<double>{Matrix<double>::Ones(rows, columns), Vector<double>::Ones(bias)};
        });
    };
    CHECK(made(3, 2, 3) == "accepted");
    CHECK(made(3, 2, 2) == "Linear: bias must have 3 entries, got 2");
    CHECK(made(3, 0, 3) == "Linear: inputs must be at least 1, got 0");
    CHECK(made(0, 2, 0) == "Linear: outputs must be at least 1, got 0");
    using Fixed = Linear<double, 2, 3>;
    const Vector<double> bias = Vector<double>::Ones(4);
    CHECK(refusal([&] {
              (void)Fixed{Matrix<double>::Ones(4, 2), bias};
          }) == "Linear: outputs must be 3, got 4");
    CHECK(refusal([&] {
              (void)Fixed{Matrix<double>::Ones(3, 4), bias};
          }) == "Linear: inputs must be 2, got 4");
    CHECK(refusal([&] {
              (void)Fixed{weights, bias};
          }) == "Linear: bias must have 3 entries, got 4");
    const double nan = std::nan("");
    const double infinity = std::numeric_limits<double>::infinity();
    CHECK(refusal([&] {
              (void)Linear<double>{0, 3, random};
          }) == "Linear: inputs must be at least 1, got 0");
    CHECK(refusal([&] {
              (void)Linear<double>{2, -3, random};
          }) == "Linear: outputs must be at least 1, got -3");
    CHECK(refusal([&] { (void)Fixed{2, 4, random}; }) == "Linear: outputs must be 3, got 4");
    CHECK(refusal([&] {
              (void)Linear<double>{2, 3, random, -0.5};
          }) == "Linear: gain must be finite and at least 0, got -0.5");
    CHECK(refusal([&] {
              (void)Linear<double>{2, 3, random, nan};
          }) == "Linear: gain must be finite and at least 0, got nan");
    CHECK(refusal([&] {
              (void)Fixed{random, infinity};
          }) == "Linear: gain must be finite and at least 0, got inf");
    CHECK(random == untouched);
}

// Uniform on +-gain sqrt(3 / n) has the variance gain^2 / n. With N = 1e6 weights the sample
// variance has the relative standard deviation sqrt(0.8 / N) = 9e-4: bounds of 6 of these, false
// alarms of 2e-9.
TEMPLATE_TEST_CASE("Linear: random weights have the variance that He et al. ask for",
                   "[layer_contract]", float, double) {
    Philox random{11};
    for (const double gain : {std::numbers::sqrt2, 1.0, 0.3}) {
        const Linear<TestType> layer{1000, 1000, random, gain};
        const Matrix<double> weights = layer.weights().template cast<double>();
        CHECK(std::abs(weights.squaredNorm() / (1000.0 * gain * gain) - 1) <= 6 * 9e-4);
        // The mean of N weights has the standard deviation gain / sqrt(1000 N).
        CHECK(std::abs(weights.mean()) <= 6 * gain / std::sqrt(1e9));
        CHECK(weights.cwiseAbs().maxCoeff() <= gain * std::sqrt(3e-3) * (1 + 1e-7));
        CHECK((layer.bias().array() == 0).all());
    }
    const Linear<TestType> zero{3, 4, random, 0.0};
    CHECK((zero.weights().array() == 0).all());
    CHECK(Linear<TestType, 3, 4>{random}.weights().size() == 12);
}

}  // namespace
