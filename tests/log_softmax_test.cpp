// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/probability/log_softmax.hpp>

#include <cmath>
#include <limits>

#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/random/philox.hpp>

#include "support/layer_contract.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

TEST_CASE("LogSoftmax keeps the layer contract", "[log_softmax]") {
    for (const Index size : {1, 3, 19})
        check_layer_contract("LogSoftmax", LogSoftmax<double>{}, size);
    check_layer_contract("LogSoftmax", LogSoftmax<float>{}, 5);
}

TEST_CASE("LogSoftmax: log probabilities that keep their digits, for logits of any size",
          "[log_softmax]") {
    Philox random{7};
    const double epsilon = std::numeric_limits<double>::epsilon();
    for (const double size : {1e-3, 1.0, 30.0, 1e4}) {
        const Matrix<double> x = size * random_matrix<double>(random, 11, 20);
        const Matrix<double> y = run(LogSoftmax<double>{}, x);
        for (Index j = 0; j < 20; ++j) {
            Index top = 0;
            x.col(j).maxCoeff(&top);
            long double rest = 0;
            for (Index i = 0; i < 11; ++i)
                if (i != top) rest += std::exp(static_cast<long double>(x(i, j)) - x(top, j));
            for (Index i = 0; i < 11; ++i) {
                CAPTURE(size, i, j);
                const long double exact =
                    static_cast<long double>(x(i, j)) - x(top, j) - std::log1p(rest);
                // The differences' rounding, up to 2 size, is a relative error of each exponential;
                // the entry of the largest logit is -log1p(rest) and has nothing but that.
                CHECK(std::abs(y(i, j) - exact) <= epsilon * (16 + 4 * size) * std::abs(exact) +
                                                       std::numeric_limits<double>::min());
            }
        }
    }
    Matrix<double> in_place = random_matrix<double>(random, 5, 3);
    const Matrix<double> apart = run(LogSoftmax<double>{}, in_place);
    LogSoftmax<double>{}.forward(in_place, in_place);
    CHECK(same_bits(in_place, apart));
}

TEST_CASE("LogSoftmax: infinite logits and NaN", "[log_softmax]") {
    const Matrix<double> x{{-infinity, infinity, nan, 0, -infinity},
                           {0, 0, 0, 0, -infinity},
                           {-800, 0, 0, nan, -infinity}};
    const Matrix<double> y = run(LogSoftmax<double>{}, x);
    CHECK(y(0, 0) == -infinity);
    CHECK(y(1, 0) == 0);
    CHECK(y(2, 0) == -800);
    for (Index j = 1; j < 5; ++j)
        for (Index i = 0; i < 3; ++i) {
            CAPTURE(i, j);
            CHECK(std::isnan(y(i, j)));
        }
}

TEST_CASE("LogSoftmax: the exponentials are Softmax's probabilities", "[log_softmax]") {
    Philox random{8};
    const Matrix<double> x = 5 * random_matrix<double>(random, 7, 30);
    const Matrix<double> log_probabilities = run(LogSoftmax<double>{}, x);
    const Matrix<double> probabilities = run(Softmax<double>{}, x);
    for (Index k = 0; k < x.size(); ++k)
        CHECK(std::abs(std::exp(log_probabilities.data()[k]) / probabilities.data()[k] - 1) <=
              1e-14);
}

}  // namespace
