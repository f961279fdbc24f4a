// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>

#include "support/catch.hpp"
#include "support/random_gradients.hpp"

// 1,072 networks in all, in three files: each compiles in less than a minute.

namespace {

using namespace stochastic_depth;
using test::check_random_networks;
using test::Kinks;
using test::Maker;

TEST_CASE("TrainingStep: gradients of random nested networks are those of differences",
          "[gradients_of_random_nests]") {
    check_random_networks("linear shortcuts", 11, Kinks::none, [](Maker& make, Index inputs) {
        const Index d = make.width(), outputs = make.width();
        return Sequential{
            make.skippable(Residual{Sequential{make.linear(inputs, d), Tanh<double>{}},
                                    make.linear(inputs, d)}),
            make.skippable(Residual{Sequential{make.linear(d, d), Tanh<double>{}}}),
            Residual{make.linear(d, outputs), make.linear(d, outputs)}};
    });
    check_random_networks("skippable in skippable", 12, Kinks::none, [](Maker& make, Index inputs) {
        const Index d = inputs;
        const auto layer = [&] {
            const auto inner =
                make.skippable(Residual{Sequential{make.linear(d, d), Tanh<double>{}}});
            return make.skippable(Residual{Sequential{inner, make.linear(d, d)}});
        };
        return Sequential{make.stack(1, 3, layer), make.linear(d, make.width())};
    });
    check_random_networks("three deep", 13, Kinks::none, [](Maker& make, Index inputs) {
        const Index d = inputs, outputs = make.width();
        const auto innermost = [&] {
            return make.skippable(Residual{Sequential{make.linear(d, d), Tanh<double>{}}});
        };
        const auto middle = make.skippable(Residual{
            Sequential{make.stack(0, 2, innermost), make.linear(d, d)}, make.linear(d, d)});
        return Sequential{make.skippable(
            Residual{Sequential{make.linear(d, d), Tanh<double>{}, middle, make.linear(d, outputs)},
                     make.linear(d, outputs)})};
    });
    check_random_networks("residuals of residuals", 14, Kinks::none, [](Maker& make, Index inputs) {
        const Index d = inputs;
        const auto skippable = [&] {
            return make.skippable(Residual{Sequential{make.linear(d, d), Tanh<double>{}}});
        };
        const auto branch = skippable();
        const auto shortcut = skippable();
        return Sequential{Residual{Residual{Sequential{branch, Tanh<double>{}}}, shortcut},
                          make.linear(d, make.width())};
    });
    check_random_networks("without residuals", 15, Kinks::none, [](Maker& make, Index inputs) {
        const Index d = make.width();
        const auto layer = [&] {
            return Sequential{make.skippable(Sequential{make.linear(d, d), Tanh<double>{}}),
                              Tanh<double>{}};
        };
        const auto stack = make.stack(0, 2, layer);
        return Sequential{make.linear(inputs, d), make.skippable(make.skippable(stack)),
                          make.linear(d, make.width())};
    });
}

}  // namespace
