// SPDX-License-Identifier: MIT

// The layers of a composite compute in one Scalar: asking for another says no
// and is no error.

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>

namespace stochastic_depth {
namespace {

template <class First, class Second>
constexpr bool compose = requires(const First& first, const Second& second) {
    Sequential{first, second};
    Residual{first, second};
};
static_assert(compose<Linear<double>, ReLU<double>>);
static_assert(!compose<Linear<double>, ReLU<float>>);
static_assert(!compose<Linear<float>, Linear<double>>);

}  // namespace
}  // namespace stochastic_depth
