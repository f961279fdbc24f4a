// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/function.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/numerics/column_sums.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

namespace stochastic_depth::test {

/// Networks with skippable layers in all places, each with what only it can get wrong.
struct Structures {
    explicit Structures(std::uint64_t seed) : random(seed) {}

    auto linear(Index inputs, Index outputs) {
        return Linear<double>{inputs, outputs, random, 1.0};
    }
    auto branch(Index inputs, Index outputs) {
        return Sequential{linear(inputs, outputs), ReLU<double>{}};
    }
    auto block(Index width, double p) {
        return StochasticDepth{Residual{branch(width, width)}, SurvivalProbability{p}};
    }

    /// Skippable layers in a skippable layer, two deep.
    auto nested() {
        const auto inner = StochasticDepth{Sequential{linear(5, 5), block(5, 0.4), Tanh<double>{}},
                                           SurvivalProbability{0.7}};
        return Sequential{block(5, 0.9),
                          StochasticDepth{Residual{Sequential{block(5, 0.3), inner, block(5, 0.8)}},
                                          SurvivalProbability{0.6}},
                          block(5, 0.5), linear(5, 3)};
    }
    /// Skippable layers in the branch and in the shortcut of a plain residual layer.
    auto residual_around() {
        return Sequential{block(6, 0.7),
                          Residual{Sequential{block(6, 0.6), linear(6, 4), block(4, 0.2)},
                                   Sequential{linear(6, 4), block(4, 0.9), block(4, 0.5)}},
                          block(4, 0.35)};
    }
    /// Shortcuts of their own, also where the width changes; the last one ends the network.
    auto own_shortcuts() {
        return Sequential{
            block(4, 0.8),
            StochasticDepth{Residual{branch(4, 7), linear(4, 7)}, SurvivalProbability{0.6}},
            StochasticDepth{Residual{Sequential{block(7, 0.5), linear(7, 3)}, linear(7, 3)},
                            SurvivalProbability{0.3}},
            StochasticDepth{Residual{branch(3, 5), Sequential{linear(3, 5), Tanh<double>{}}},
                            SurvivalProbability{0.45}}};
    }
    /// Layers without a shortcut, plain layers between them, one that is always kept, a lambda.
    auto not_residual() {
        return Sequential{
            StochasticDepth{Sequential{linear(6, 6), ReLU<double>{}}, SurvivalProbability{0.3}},
            Tanh<double>{},
            block(6, 1.0),
            StochasticDepth{Softmax<double>{}, SurvivalProbability{0.5}},
            linear(6, 6),
            StochasticDepth{
                function<double>([](const auto& x) { return x.array().cube().matrix(); }),
                SurvivalProbability{0.6}},
            function<double>([](const auto& x) { return column_sums(x).replicate(2, 1); }, 2),
            StochasticDepth{Tanh<double>{}, SurvivalProbability{0.2}}};
    }
    /// Widths known at compile time; a skippable layer that is always kept at either end.
    auto fixed() {
        using Small = Linear<double, 4, 4>;
        const auto small = [&](double p) {
            return StochasticDepth{Residual{Sequential{Small{random}, Tanh<double>{}}},
                                   SurvivalProbability{p}};
        };
        return Sequential{small(1.0), ReLU<double>{}, small(0.9), small(0.25), small(1.0)};
    }

    Philox random;
};

}  // namespace stochastic_depth::test
