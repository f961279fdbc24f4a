// SPDX-License-Identifier: MIT

// A composite is differentiable where its parts are; where one is not, asking
// says no and is no error.

#include <type_traits>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/elementwise.hpp>
#include <stochastic_depth/layers/function.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

namespace stochastic_depth {
namespace {

template <class Layer>
constexpr bool nowhere_differentiable =
    !DifferentiableLayer<Layer> && !DifferentiableLayer<Sequential<Linear<double>, Layer>> &&
    !DifferentiableLayer<Stack<Layer>> && !DifferentiableLayer<Residual<Layer>> &&
    !DifferentiableLayer<Residual<Linear<double>, Layer>> &&
    !DifferentiableLayer<StochasticDepth<Layer>> &&
    !DifferentiableLayer<StochasticDepth<Residual<Layer>>> &&
    !DifferentiableLayer<Sequential<Stack<Sequential<Layer>>>>;

/// Without backward, cache or gradient.
const auto halve = function<double>([](const auto& x) { return 0.5 * x; });
static_assert(nowhere_differentiable<std::remove_const_t<decltype(halve)>>);

/// With cache and gradient, but no derivative.
const auto square = elementwise<double>([](double z) { return z * z; });
static_assert(nowhere_differentiable<std::remove_const_t<decltype(square)>>);

}  // namespace
}  // namespace stochastic_depth
