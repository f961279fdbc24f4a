// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/numerics/column_sums.hpp>

namespace stochastic_depth {

/// A callable as a layer: y = callable(x), where x is [features x batch] and the result an Eigen
/// expression of the shape [outputs x batch] whose columns depend on their own column of x alone.
///
/// Where the library promises the same bits in any batch and for any number of threads, the
/// callable has to keep that promise for its part: the bits of a column must not depend on where it
/// stands. Eigen's sums over a column (`sum`, `mean`, `norm`, `dot`, matrix products) do, in their
/// last bits; `column_sums` does not. Nor do operations on single numbers, unless the compiler
/// contracts a product and a sum into one operation in some places and not in others: with g++,
/// -ffp-contract=off rules that out.
template <class Scalar_, class Callable>
class Function {
public:
    using Scalar = Scalar_;

    /// \param outputs  Rows of the result; Eigen::Dynamic: as many as x has.
    /// \throws std::invalid_argument  if outputs is neither at least 1 nor Eigen::Dynamic.
    explicit Function(Callable callable, Index outputs = Eigen::Dynamic)
        : callable_(std::move(callable)), outputs_(outputs) {
        if (outputs != Eigen::Dynamic && outputs < 1)
            detail::refuse("Function: outputs must be at least 1, got ", outputs);
    }

    [[nodiscard]] Index output_size(Index input_size) const {
        return outputs_ == Eigen::Dynamic ? input_size : outputs_;
    }

    /// \param x  [features x batch].
    /// \param y  [outputs x batch], overwritten.
    /// \throws std::invalid_argument  if sizes don't match, the callable's result included.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("Function", *this, x, y);
        const Matrix<Scalar> result = callable_(x);
        if (result.rows() != y.rows() || result.cols() != y.cols())
            detail::refuse("Function: result must be [", y.rows(), " x ", y.cols(), "], got [",
                           result.rows(), " x ", result.cols(), "]");
        y = result;
    }

private:
    Callable callable_;
    Index outputs_;
};

/// A layer from a lambda, in one line:
///
///     auto centre = sd::function<float>([](const auto& x) {
///         return x.rowwise() - sd::column_sums(x) / static_cast<float>(x.rows());
///     });
template <class Scalar, class Callable>
[[nodiscard]] Function<Scalar, Callable> function(Callable callable,
                                                  Index outputs = Eigen::Dynamic) {
    return Function<Scalar, Callable>(std::move(callable), outputs);
}

}  // namespace stochastic_depth
