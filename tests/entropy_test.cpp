// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/probability/entropy.hpp>

#include <cmath>
#include <limits>

#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>

#include "support/layer_contract.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

TEST_CASE("Entropy keeps the layer contract, behind a Softmax", "[entropy]") {
    for (const Index size : {2, 3, 19})
        check_layer_contract("Sequential", Sequential{Softmax<double>{}, Entropy<double>{}}, size);
    check_layer_contract("Sequential", Sequential{Softmax<float>{}, Entropy<float>{}}, 5);
}

TEST_CASE("Entropy: by hand, with 0 log 0 = 0 and NaN for what is no probability", "[entropy]") {
    const Matrix<double> x{{1, 0.5, 0.25, 0, 0.7, 0.5, -0.1},
                           {0, 0.5, 0.25, 0, 0.2, nan, 0.6},
                           {0, 0, 0.5, 0, 0.1, 0.5, 0.5}};
    const Matrix<double> y = run(Entropy<double>{}, x);
    REQUIRE(y.rows() == 1);
    CHECK(y(0, 0) == 0);
    CHECK_FALSE(std::signbit(y(0, 0)));
    CHECK(std::abs(y(0, 1) - std::log(2.0)) <= 1e-15);
    CHECK(std::abs(y(0, 2) - 1.5 * std::log(2.0)) <= 1e-15);
    CHECK(y(0, 3) == 0);
    CHECK(std::abs(y(0, 4) - -(0.7 * std::log(0.7) + 0.2 * std::log(0.2) + 0.1 * std::log(0.1))) <=
          1e-15);
    CHECK(std::isnan(y(0, 5)));
    CHECK(std::isnan(y(0, 6)));
    CHECK(run(Entropy<double>{}, Matrix<double>(0, 2)).isZero(0));

    // Blocks of larger matrices; a NaN stays in its column.
    Matrix<double> around = Matrix<double>::Constant(6, 5, nan),
                   target = Matrix<double>::Constant(3, 5, 7);
    around.block(2, 1, 3, 3) = x.leftCols(3);
    Entropy<double>{}.forward(around.block(2, 1, 3, 3), target.block(1, 1, 1, 3));
    CHECK(same_bits(target.block(1, 1, 1, 3), y.leftCols(3)));
    target.block(1, 1, 1, 3).setConstant(7);
    CHECK((target.array() == 7).all());
}

TEST_CASE("Entropy: derivatives are those of the formula, and 0 at 0", "[entropy]") {
    const Matrix<double> x{{1, 0.5, 0}, {0, 1e-300, 1}}, dy{{2, -3, 0.5}};
    Matrix<double> dx(2, 3);
    detail::NoGradient gradient;
    Entropy<double>{}.backward(x, dy, {}, gradient, dx);
    const Matrix<double> expected{{-2, 3 * (1 + std::log(0.5)), 0},
                                  {0, 3 * (1 + std::log(1e-300)), -0.5}};
    for (Index j = 0; j < 3; ++j)
        for (Index i = 0; i < 2; ++i) {
            CAPTURE(i, j);
            CHECK(std::abs(dx(i, j) - expected(i, j)) <= 1e-15 * std::abs(expected(i, j)));
        }

    // Logits whose smaller probability underflows: d H / d z_1 = -p_1 (log p_1 + H), next to 0.
    const Sequential behind{Softmax<double>{}, Entropy<double>{}};
    decltype(behind)::Cache cache;
    auto none = behind.zero_gradient();
    const Matrix<double> logits{{800}, {0}};
    Matrix<double> entropy(1, 1), by_logits(2, 1);
    behind.forward(logits, entropy, cache);
    behind.backward(logits, Matrix<double>::Ones(1, 1), cache, none, by_logits);
    CHECK(by_logits.isZero(1e-300));
}

TEST_CASE("Entropy: sizes that don't fit are refused by name", "[entropy]") {
    const Matrix<double> x = Matrix<double>::Constant(3, 4, 0.25);
    Matrix<double> y = Matrix<double>::Constant(3, 4, 7);
    CHECK(refusal([&] { Entropy<double>{}.forward(x, y); }) ==
          "Entropy: output must have 1 rows, got 3");
    CHECK(refusal([&] { Entropy<double>{}.forward(x, y.topLeftCorner(1, 3)); }) ==
          "Entropy: output must have 4 columns, got 3");
    detail::NoGradient gradient;
    CHECK(refusal([&] {
              Entropy<double>{}.backward(x, x.topRows(1), {}, gradient, y.topRows(2));
          }) == "Entropy: dx must be [3 x 4], got [2 x 4]");
    CHECK((y.array() == 7).all());
}

}  // namespace
