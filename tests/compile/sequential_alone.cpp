// SPDX-License-Identifier: MIT

// The headers of a network's layers and of masks are enough to run it under a mask.

#include <stochastic_depth/layers/sequential.hpp>

#include <stochastic_depth/layers/linear.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>

namespace stochastic_depth {
namespace {

[[maybe_unused]] Matrix<double> run(const Sequential<Linear<double>>& network,
                                    const Matrix<double>& x) {
    return network(x, SurvivalMask::all(0));
}

}  // namespace
}  // namespace stochastic_depth
