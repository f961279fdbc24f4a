// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/composition/concatenate.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/scaled.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/normalisation/layer_norm.hpp>
#include <stochastic_depth/layers/probability/entropy.hpp>
#include <stochastic_depth/layers/probability/log_softmax.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>

#include "support/catch.hpp"
#include "support/random_gradients.hpp"

// 1,072 networks in all, in three files: each compiles in less than a minute.

namespace {

using namespace stochastic_depth;
using test::check_random_networks;
using test::Kinks;
using test::Maker;

TEST_CASE("TrainingStep: gradients of random networks of every layer are those of differences",
          "[gradients_of_random_layers]") {
    check_random_networks("log softmax", 6, Kinks::none, [](Maker& make, Index inputs) {
        const Index d = make.width();
        return Sequential{
            make.linear(inputs, d),
            make.skippable(Residual{Sequential{make.linear(d, d), LogSoftmax<double>{}}}),
            LogSoftmax<double>{}};
    });
    check_random_networks("softmax", 7, Kinks::none, [](Maker& make, Index inputs) {
        const Index d = inputs;
        const auto layer = [&] {
            return make.skippable(Residual{Sequential{Softmax<double>{}, make.linear(d, d)}});
        };
        return Sequential{make.stack(1, 3, layer), make.linear(d, make.width())};
    });
    check_random_networks("entropy", 8, Kinks::none, [](Maker& make, Index inputs) {
        const Index d = make.width();
        return Sequential{make.linear(inputs, d),
                          make.skippable(Residual{Sequential{make.linear(d, d), Tanh<double>{}}}),
                          Softmax<double>{}, Concatenate{Identity<double>{}, Entropy<double>{}}};
    });
    check_random_networks("concatenate", 9, Kinks::none, [](Maker& make, Index inputs) {
        const Index d = inputs, half = make.width();
        const auto layer = [&] {
            return make.skippable(Residual{Sequential{
                Concatenate{make.linear(d, half), Sequential{make.linear(d, 2), Tanh<double>{}},
                            Identity<double>{}},
                make.linear(half + 2 + d, d)}});
        };
        return Sequential{make.stack(1, 2, layer), make.linear(d, make.width())};
    });
    check_random_networks("layer norm, scaled", 16, Kinks::none, [](Maker& make, Index inputs) {
        const Index d = make.whole(2, 4);
        const auto layer = [&] {
            return make.skippable(
                Residual{Sequential{LayerNorm<double>(d, 0.3), make.linear(d, d), GELU<double>{},
                                    Scaled{make.linear(d, d), -0.7}}});
        };
        return Sequential{make.linear(inputs, d), make.stack(1, 3, layer),
                          LayerNorm<double>(d, 0.3), make.linear(d, make.width())};
    });
    check_random_networks("widths at compile time", 10, Kinks::none, [](Maker& make, Index inputs) {
        const auto layer = [&] {
            return make.skippable(Residual{Sequential{make.linear<4, 4>(4, 4), GELU<double>{}}});
        };
        return Sequential{make.linear<Eigen::Dynamic, 4>(inputs, 4), make.stack(0, 3, layer),
                          make.linear<4, 3>(4, 3), Tanh<double>{}, make.linear(3, make.width())};
    });
}

}  // namespace
