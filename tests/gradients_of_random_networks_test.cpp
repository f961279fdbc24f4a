// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>

#include "support/catch.hpp"
#include "support/random_gradients.hpp"

// 1,072 networks in all, in three files: each compiles in less than a minute.

namespace {

using namespace stochastic_depth;
using test::check_random_networks;
using test::Kinks;
using test::Maker;

TEST_CASE("TrainingStep: gradients of random stacks of residual layers are those of differences",
          "[gradients_of_random_networks]") {
    check_random_networks("plain", 1, Kinks::none, [](Maker& make, Index inputs) {
        const Index d = make.width();
        return Sequential{make.linear(inputs, d), Tanh<double>{}, make.linear(d, d), GELU<double>{},
                          make.linear(d, make.width())};
    });
    check_random_networks("tanh", 2, Kinks::none, [](Maker& make, Index inputs) {
        const Index d = make.width();
        const auto layer = [&] {
            return make.skippable(Residual{Sequential{make.linear(d, d), Tanh<double>{}}});
        };
        return Sequential{make.linear(inputs, d), make.stack(0, 4, layer),
                          make.linear(d, make.width())};
    });
    check_random_networks("gelu, two linears", 3, Kinks::none, [](Maker& make, Index inputs) {
        const Index d = make.width();
        const auto layer = [&] {
            const Index inner = make.width();
            return make.skippable(
                Residual{Sequential{make.linear(d, inner), GELU<double>{}, make.linear(inner, d)}});
        };
        return Sequential{make.linear(inputs, d), make.stack(1, 3, layer), Tanh<double>{}};
    });
    check_random_networks("relu", 4, Kinks::some, [](Maker& make, Index inputs) {
        const Index d = make.width();
        const auto layer = [&] {
            return make.skippable(
                Residual{Sequential{make.linear(d, d), ReLU<double>{}, make.linear(d, d)}});
        };
        return Sequential{make.linear(inputs, d), ReLU<double>{}, make.stack(1, 3, layer),
                          make.linear(d, make.width())};
    });
    check_random_networks("relu last in the branch", 5, Kinks::some, [](Maker& make, Index inputs) {
        const Index d = make.width();
        const auto layer = [&] {
            return make.skippable(Residual{Sequential{make.linear(d, d), ReLU<double>{}}});
        };
        return Sequential{make.linear(inputs, d), make.stack(1, 4, layer), Softmax<double>{}};
    });
}

}  // namespace
