// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/parts.hpp>

namespace stochastic_depth {

/// y(0, j) = -sum_i x(i, j) log x(i, j): the entropy of class probabilities, in nats, for each
/// column.
///
/// 0 log 0 = 0. A column with a NaN or an entry below 0 has the entropy NaN; that its entries sum
/// to 1 is not checked.
template <class Scalar_>
class Entropy {
public:
    using Scalar = Scalar_;
    using Cache = detail::NoCache;
    using Gradient = detail::NoGradient;

    [[nodiscard]] Index output_size(Index) const { return 1; }

    /// \param x  Class probabilities, [classes x batch].
    /// \param y  Entropies, [1 x batch], overwritten; must not overlap x.
    /// \throws std::invalid_argument  if sizes don't match.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("Entropy", *this, x, y);
        for (Index j = 0; j < x.cols(); ++j) {
            const Scalar* const probability = x.data() + j * x.outerStride();
            Scalar sum = 0;
            // An explicit fma: whether the compiler would contract the expression must not change
            // the bits.
            for (Index i = 0; i < x.rows(); ++i)
                if (probability[i] != Scalar(0))
                    sum = std::fma(-probability[i], std::log(probability[i]), sum);
            y(0, j) = sum;
        }
    }

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache&) const {
        forward(x, y);
    }

    [[nodiscard]] Gradient zero_gradient() const { return {}; }

    /// dx = -dy (1 + log x).
    ///
    /// At x = 0 the derivative is infinite, and dx is 0 there by definition: what stands before an
    /// Entropy, a Softmax above all, has a derivative that goes to 0 with x, and x log x does. So
    /// the gradient by the logits stays right where a probability has underflowed.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy, const Cache&,
                  Gradient&, MatrixRef<Scalar> dx) const {
        detail::check_backward("Entropy", *this, x, dy, dx);
        for (Index j = 0; j < x.cols(); ++j)
            for (Index i = 0; i < x.rows(); ++i) {
                const Scalar p = x(i, j);
                dx(i, j) = p == Scalar(0) ? Scalar(0) : -dy(0, j) * (Scalar(1) + std::log(p));
            }
    }
};

}  // namespace stochastic_depth
