// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/elementwise.hpp>
#include <stochastic_depth/random/philox.hpp>

#include "support/matrices.hpp"

/// Layers that several tests are made of.
namespace stochastic_depth::test {

/// A Linear that keeps activations of about the size of 1, with a bias that is not zero.
template <class Scalar, int Inputs = Eigen::Dynamic, int Outputs = Eigen::Dynamic>
[[nodiscard]] Linear<Scalar, Inputs, Outputs> linear(Philox& random, Index inputs, Index outputs) {
    const double size = 1.5 / std::sqrt(static_cast<double>(inputs));
    const Matrix<Scalar> weights =
        static_cast<Scalar>(size) * random_matrix<Scalar>(random, outputs, inputs);
    const Vector<Scalar> bias = random_matrix<Scalar>(random, outputs, 1);
    return {weights, bias};
}

/// z^2 + sin(z), an activation that a user might bring.
template <class Scalar>
[[nodiscard]] auto wave() {
    return elementwise<Scalar>([](Scalar z) { return z * z + std::sin(z); },
                               [](Scalar z) { return 2 * z + std::cos(z); });
}

}  // namespace stochastic_depth::test
