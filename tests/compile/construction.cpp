// SPDX-License-Identifier: MIT

// How things are made: what is deduced, what converts, and what doesn't.

#include <concepts>
#include <cstdint>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/function.hpp>
#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>
#include <stochastic_depth/survival/survival_masks.hpp>

namespace stochastic_depth {
namespace {

using L = Linear<double>;
using Branch = Sequential<L, ReLU<double>>;

// Layers are deduced from their parts.
static_assert(std::same_as<decltype(Sequential{std::declval<L>(), ReLU<double>{}}), Branch>);
static_assert(std::same_as<decltype(Residual{std::declval<Branch>()}), Residual<Branch>>);
static_assert(
    std::same_as<decltype(Residual{std::declval<Branch>()}), Residual<Branch, Identity<double>>>);
static_assert(std::same_as<decltype(Residual{std::declval<Branch>(), std::declval<L>()}),
                           Residual<Branch, L>>);
static_assert(std::same_as<decltype(Stack{std::declval<std::vector<L>>()}), Stack<L>>);
static_assert(std::same_as<decltype(StochasticDepth{std::declval<Residual<Branch>>(),
                                                    std::declval<SurvivalProbability>()}),
                           StochasticDepth<Residual<Branch>>>);
static_assert(
    std::same_as<decltype(Sequential{std::declval<StochasticDepth<L>>(), std::declval<L>()}),
                 Sequential<StochasticDepth<L>, L>>);
static_assert(std::same_as<decltype(Sequential{std::declval<Stack<StochasticDepth<L>>>()}),
                           Sequential<Stack<StochasticDepth<L>>>>);

// A bare number is no probability, and neither kind of probability is the other.
static_assert(std::is_constructible_v<SurvivalProbability, double>);
static_assert(std::is_constructible_v<SurvivalProbability, DropProbability>);
static_assert(!std::is_convertible_v<double, SurvivalProbability>);
static_assert(!std::is_convertible_v<DropProbability, SurvivalProbability>);
static_assert(!std::is_convertible_v<SurvivalProbability, double>);
static_assert(!std::is_constructible_v<DropProbability, SurvivalProbability>);
static_assert(!std::is_constructible_v<StochasticDepth<L>, L, double>);
static_assert(!std::is_constructible_v<StochasticDepth<L>, L, DropProbability>);
static_assert(!std::is_constructible_v<StochasticDepth<L>, L>);
static_assert(std::is_constructible_v<StochasticDepth<L>, L, SurvivalProbability>);

// Wrapping is spelt out.
static_assert(!std::is_convertible_v<L, Residual<L>>);
static_assert(!std::is_convertible_v<L, Sequential<L>>);
static_assert(!std::is_convertible_v<std::vector<L>, Stack<L>>);

// Linear: weights and bias, widths and a generator, or a generator alone where the widths are
// known.
using Weights = Eigen::MatrixXd;
static_assert(std::is_constructible_v<L, Weights, Eigen::VectorXd>);
static_assert(std::is_constructible_v<L, Index, Index, Philox&>);
static_assert(std::is_constructible_v<L, int, int, std::mt19937&, double>);
static_assert(std::is_constructible_v<Linear<double, 8, 8>, Philox&>);
static_assert(std::is_constructible_v<Linear<double, 8, 8>, Weights, Eigen::VectorXd>);
static_assert(!std::is_constructible_v<L, Philox&>);
static_assert(!std::is_constructible_v<Linear<double, 8, Eigen::Dynamic>, Philox&>);
static_assert(!std::is_constructible_v<L, Eigen::MatrixXf, Eigen::VectorXf>);
static_assert(!std::is_default_constructible_v<L>);

// Networks are called with one mask or with many, and with nothing else in their place.
template <class Network, class Mask>
constexpr bool writes_under = requires(const Network& network, const Eigen::MatrixXd& x,
                                       const Mask& mask, Eigen::MatrixXd& y) {
    masked_forward(network, x, mask, y);
};
using Network = Sequential<StochasticDepth<Residual<L>>>;
static_assert(writes_under<Network, SurvivalMask> && writes_under<Network, SurvivalMasks>);
static_assert(!writes_under<Network, int> && !writes_under<Network, Eigen::VectorXd>);
static_assert(!writes_under<L, SurvivalMask>);
static_assert(!std::is_convertible_v<Index, SurvivalMask>);
static_assert(!std::is_convertible_v<SurvivalMask, SurvivalMasks>);

// Input of another Scalar is refused, not converted.
static_assert(std::invocable<const Network&, const Eigen::MatrixXd&, const SurvivalMask&>);
static_assert(!std::invocable<const Network&, const Eigen::MatrixXf&, const SurvivalMask&>);

}  // namespace
}  // namespace stochastic_depth
