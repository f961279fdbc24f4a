// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <string>
#include <string_view>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/detail/name_of.hpp>
#include <stochastic_depth/pass/run.hpp>

namespace stochastic_depth {

/// The layer y(i, j) = function(x(i, j)).
///
/// Function has a type `Scalar` and a member `value(z)`; with `derivative(z)` the layer is
/// differentiable; with `packet(z)` and `packet_derivative(z)`, the same on a packet of numbers
/// (which has +, -, *, max, tanh, is_positive), it is fast; with `derivative_of_output(y)` and
/// `packet_derivative_of_output(y)` a training step keeps y and not z. After a Linear it is fused
/// into the matrix product. Structures and checkpoints call it by Function's member `name`, or else by the
/// name of its class.
template <class Function>
class Elementwise {
public:
    using Scalar = typename Function::Scalar;
    using Cache = detail::NoCache;
    using Gradient = detail::NoGradient;

    Elementwise() = default;
    explicit Elementwise(Function function) : function_(std::move(function)) {}

    [[nodiscard]] const Function& function() const { return function_; }

    [[nodiscard]] Index output_size(Index input_size) const { return input_size; }

    [[nodiscard]] std::string description() const {
        if constexpr (requires { { Function::name } -> std::convertible_to<std::string_view>; })
            return std::string(Function::name);
        else
            return std::string(detail::name_of<Function>());
    }

    [[nodiscard]] Scalar value(Scalar z) const { return function_.value(z); }

    template <class Packet>
        requires requires(const Function& function, Packet z) { function.packet(z); }
    [[nodiscard]] EIGEN_ALWAYS_INLINE Packet packet(Packet z) const { return function_.packet(z); }

    /// \param x  [features x batch].
    /// \param y  [features x batch], overwritten; may be x itself.
    /// \throws std::invalid_argument  if sizes differ.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("Elementwise", *this, x, y);
        detail::run_leaf(*this, detail::const_view(x), detail::view(y), detail::AsIs{});
    }

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache&) const {
        forward(x, y);
    }

    [[nodiscard]] Gradient zero_gradient() const { return {}; }

    [[nodiscard]] Scalar derivative(Scalar z) const requires
        requires(const Function& function) { function.derivative(z); }
    {
        return function_.derivative(z);
    }

    template <class Packet>
        requires requires(const Function& function, Packet z) { function.packet_derivative(z); }
    [[nodiscard]] EIGEN_ALWAYS_INLINE Packet packet_derivative(Packet z) const {
        return function_.packet_derivative(z);
    }

    /// The derivative as a function of y = value(z).
    [[nodiscard]] Scalar derivative_of_output(Scalar y) const requires
        requires(const Function& function) { function.derivative_of_output(y); }
    {
        return function_.derivative_of_output(y);
    }

    template <class Packet>
        requires requires(const Function& function, Packet y) {
            function.packet_derivative_of_output(y);
        }
    [[nodiscard]] EIGEN_ALWAYS_INLINE Packet packet_derivative_of_output(Packet y) const {
        return function_.packet_derivative_of_output(y);
    }

    /// dx = dy * function'(x).
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy, const Cache&,
                  Gradient&, MatrixRef<Scalar> dx) const requires
        requires(const Function& function, Scalar z) { function.derivative(z); }
    {
        detail::check_backward("Elementwise", *this, x, dy, dx);
        detail::transform<Scalar>(detail::const_view(dy), detail::view(dx),
                                  detail::by_derivative(*this, x));
    }

private:
    Function function_;
};

namespace detail {

/// A callable as a function of scalars.
template <class Scalar_, class Callable>
struct ScalarFunction {
    using Scalar = Scalar_;
    static constexpr std::string_view name = "Elementwise";
    Callable callable;
    [[nodiscard]] Scalar value(Scalar z) const { return callable(z); }
};

template <class Scalar_, class Callable, class Derivative>
struct DifferentiableScalarFunction {
    using Scalar = Scalar_;
    static constexpr std::string_view name = "Elementwise";
    Callable callable;
    Derivative derivative_callable;
    [[nodiscard]] Scalar value(Scalar z) const { return callable(z); }
    [[nodiscard]] Scalar derivative(Scalar z) const { return derivative_callable(z); }
};

}  // namespace detail

/// An element-wise layer from a lambda: elementwise<float>([](float z) { return z * z; }). All of
/// these are called Elementwise: a checkpoint doesn't tell one lambda from another.
template <class Scalar, class Callable>
    requires std::convertible_to<std::invoke_result_t<const Callable&, Scalar>, Scalar>
[[nodiscard]] auto elementwise(Callable callable) {
    return Elementwise{detail::ScalarFunction<Scalar, Callable>{std::move(callable)}};
}

/// A differentiable one, from the function and its derivative.
template <class Scalar, class Callable, class Derivative>
    requires std::convertible_to<std::invoke_result_t<const Callable&, Scalar>, Scalar> &&
        std::convertible_to<std::invoke_result_t<const Derivative&, Scalar>, Scalar>
[[nodiscard]] auto elementwise(Callable callable, Derivative derivative) {
    return Elementwise{detail::DifferentiableScalarFunction<Scalar, Callable, Derivative>{
        std::move(callable), std::move(derivative)}};
}

}  // namespace stochastic_depth
