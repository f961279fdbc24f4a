// SPDX-License-Identifier: MIT

// Which types are which kind of layer, and what is no layer.

#include <memory>
#include <tuple>
#include <type_traits>
#include <vector>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/elementwise.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/function.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

namespace stochastic_depth {
namespace {

/// A layer is a value: copied, moved, assigned; nothing else owns it.
template <class Layer>
constexpr bool is_value = std::copyable<Layer>&& std::is_nothrow_move_constructible_v<Layer> &&
                          !std::is_polymorphic_v<Layer>;

enum class Kind { plain, elementwise, network };

template <class Layer>
constexpr bool is_differentiable(Kind kind) {
    return ForwardLayer<Layer> && DifferentiableLayer<Layer> && is_value<Layer> &&
           ElementwiseLayer<Layer> == (kind == Kind::elementwise) &&
           MaskedNetwork<Layer> == (kind == Kind::network);
}

template <class Scalar>
constexpr bool all_layers() {
    using L = Linear<Scalar>;
    using Branch = Sequential<L, ReLU<Scalar>, L>;
    using Skippable = StochasticDepth<Residual<Branch>>;
    static_assert(is_differentiable<L>(Kind::plain));
    static_assert(is_differentiable<Linear<Scalar, 8, 8>>(Kind::plain));
    static_assert(is_differentiable<Linear<Scalar, 784, Eigen::Dynamic>>(Kind::plain));
    static_assert(is_differentiable<Identity<Scalar>>(Kind::plain));
    static_assert(is_differentiable<Softmax<Scalar>>(Kind::plain));
    static_assert(is_differentiable<ReLU<Scalar>>(Kind::elementwise));
    static_assert(is_differentiable<Tanh<Scalar>>(Kind::elementwise));
    static_assert(is_differentiable<GELU<Scalar>>(Kind::elementwise));
    static_assert(is_differentiable<Branch>(Kind::network));
    static_assert(is_differentiable<Stack<L>>(Kind::network));
    static_assert(is_differentiable<Residual<L>>(Kind::network));
    static_assert(is_differentiable<Residual<L, L>>(Kind::network));
    static_assert(is_differentiable<Skippable>(Kind::network));
    static_assert(is_differentiable<StochasticDepth<Skippable>>(Kind::network));
    static_assert(
        is_differentiable<Sequential<L, Stack<Skippable>, ReLU<Scalar>, L>>(Kind::network));
    static_assert(
        is_differentiable<Residual<Sequential<Skippable, Stack<Skippable>>>>(Kind::network));

    static_assert(!detail::has_skippable_layers<L>);
    static_assert(!detail::has_skippable_layers<Residual<Branch>>);
    static_assert(!detail::has_skippable_layers<Sequential<Residual<Branch>, Stack<L>>>);
    static_assert(detail::has_skippable_layers<Skippable>);
    static_assert(detail::has_skippable_layers<Residual<Sequential<L, Stack<Skippable>>>>);
    static_assert(detail::has_skippable_layers<Residual<L, Skippable>>);
    return true;
}
static_assert(all_layers<float>() && all_layers<double>());

// What a forward pass alone needs is not asked to be differentiable.
const auto halve = function<double>([](const auto& x) { return 0.5 * x; });
using Halve = std::remove_const_t<decltype(halve)>;
static_assert(ForwardLayer<Halve> && !DifferentiableLayer<Halve> && !ElementwiseLayer<Halve>);
static_assert(MaskedNetwork<Sequential<Linear<double>, StochasticDepth<Residual<Halve>>>>);

const auto square = elementwise<float>([](float z) { return z * z; });
using Square = std::remove_const_t<decltype(square)>;
static_assert(ElementwiseLayer<Square> && !DifferentiableLayer<Square>);
const auto cube =
    elementwise<float>([](float z) { return z * z * z; }, [](float z) { return 3 * z * z; });
using Cube = std::remove_const_t<decltype(cube)>;
static_assert(ElementwiseLayer<Cube> && DifferentiableLayer<Cube>);

// The smallest layer, and what is missing something.
struct Doubling {
    using Scalar = double;
    Index output_size(Index input_size) const { return input_size; }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const { y = 2.0 * x; }
};
static_assert(ForwardLayer<Doubling> && !ElementwiseLayer<Doubling> &&
              !DifferentiableLayer<Doubling>);
static_assert(!MaskedNetwork<Doubling> && MaskedNetwork<StochasticDepth<Doubling>>);

struct NoScalar {
    Index output_size(Index input_size) const { return input_size; }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const { y = x; }
};
struct NoSize {
    using Scalar = double;
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const { y = x; }
};
struct ForwardIsNotConst {
    using Scalar = double;
    Index output_size(Index input_size) const { return input_size; }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) { y = x; }
};
struct CannotBeCopied : Doubling {
    std::unique_ptr<int> owned;
};
static_assert(!ForwardLayer<int> && !ForwardLayer<NoScalar> && !ForwardLayer<NoSize>);
static_assert(!ForwardLayer<ForwardIsNotConst> && !ForwardLayer<CannotBeCopied>);

// Composition refuses what is no layer.
template <class... Layers>
constexpr bool in_sequence = requires {
    typename Sequential<Layers...>;
};
template <class Layer>
constexpr bool in_stack = requires {
    typename Stack<Layer>;
};
template <class Branch, class... Shortcut>
constexpr bool as_residual = requires {
    typename Residual<Branch, Shortcut...>;
};
template <class Layer>
constexpr bool skippable = requires {
    typename StochasticDepth<Layer>;
};

static_assert(in_sequence<Doubling> && in_stack<Doubling> && as_residual<Doubling> &&
              skippable<Doubling>);
static_assert(as_residual<Doubling, Linear<double>>);
static_assert(!in_sequence<> && !in_sequence<NoSize> && !in_sequence<Doubling, NoSize>);
static_assert(!in_stack<NoSize> && !as_residual<NoSize> && !as_residual<Doubling, NoSize>);
static_assert(!skippable<NoSize> && !skippable<CannotBeCopied> && !skippable<double>);

}  // namespace
}  // namespace stochastic_depth
