// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/normalisation/batch_norm.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

namespace fuzz {

/// Two features, a layer to skip, parameters and state.
template <class Scalar>
using Network = stochastic_depth::Sequential<
    stochastic_depth::StochasticDepth<stochastic_depth::Residual<stochastic_depth::Linear<Scalar>>>,
    stochastic_depth::BatchNorm<Scalar>>;

template <class Scalar>
[[nodiscard]] Network<Scalar> network() {
    using namespace stochastic_depth;
    Philox random{1};
    return Network<Scalar>{StochasticDepth{Residual{Linear<Scalar>{2, 2, random}},
                                           SurvivalProbability{0.75}},
                           BatchNorm<Scalar>{2}};
}

}  // namespace fuzz
