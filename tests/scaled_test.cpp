// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/composition/scaled.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>

#include <limits>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/layer_contract.hpp"
#include "support/layers.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

template <class Layer>
constexpr bool can_be_scaled = requires {
    typename Scaled<Layer>;
};
static_assert(can_be_scaled<Linear<float>> && can_be_scaled<Residual<Tanh<float>>>);
static_assert(!can_be_scaled<StochasticDepth<Tanh<float>>> && !can_be_scaled<int>);

TEST_CASE("Scaled keeps the layer contract", "[scaled]") {
    Philox random{1};
    check_layer_contract("Scaled", Scaled{linear<double>(random, 7, 5), 2.5}, 7);
    check_layer_contract("Scaled", Scaled{linear<float>(random, 9, 37), -0.3f}, 9);
    check_layer_contract("Scaled", Scaled{Tanh<double>{}, 1 / 3.0}, 5);
    check_layer_contract("Scaled", Scaled{Softmax<double>{}, 1 / 3.0}, 5);
    const auto branch =
        Sequential{linear<double>(random, 6, 19), Tanh<double>{}, linear<double>(random, 19, 6)};
    check_layer_contract("Scaled", Scaled{branch, 1.7}, 6);
    check_layer_contract("Residual", Residual{Scaled{branch, 1.7}}, 6);
}

TEMPLATE_TEST_CASE("Scaled: is the layer's output times the factor, rounded once", "[scaled]",
                   float, double) {
    using Scalar = TestType;
    Philox random{2};
    const auto layer = Sequential{linear<Scalar>(random, 6, 11), Tanh<Scalar>{}};
    const Matrix<Scalar> x = random_matrix<Scalar>(random, 6, 13);
    const Matrix<Scalar> y = run(layer, x);
    for (const Scalar factor : {Scalar(0), Scalar(1), Scalar(-1), Scalar(1) / 3, Scalar(40)}) {
        const Scaled scaled{layer, factor};
        CHECK(scaled.factor() == factor);
        CHECK(same_bits(run(scaled, x), factor * y));
        CHECK(same_bits(run(Scaled{Identity<Scalar>{}, factor}, y), factor * y));
    }
}

TEST_CASE("Scaled: refuses a factor that is not finite", "[scaled]") {
    const double infinity = std::numeric_limits<double>::infinity();
    CHECK(refusal([&] {
              Scaled{Tanh<double>{}, infinity};
          }) == "Scaled: factor must be finite, got inf");
    CHECK(refusal([&] {
              Scaled{Tanh<double>{}, -infinity};
          }) == "Scaled: factor must be finite, got -inf");
    CHECK(refusal([&] {
              Scaled{Tanh<double>{}, std::numeric_limits<double>::quiet_NaN()};
          }) == "Scaled: factor must be finite, got nan");
}

}  // namespace
