// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/parts.hpp>

namespace stochastic_depth {

/// y(i, j) = x(i, j) - log sum_k exp(x(k, j)): log class probabilities from logits, for each
/// column.
///
/// With m = max_k x(k, j) at class t the sum is m + log(1 + sum_(k != t) exp(x(k, j) - m)): no
/// exponential overflows, no logarithm meets 0, and log probabilities close to 0 keep their digits.
/// A logit of -inf has the log probability -inf. A column with a NaN or +inf, or of -inf alone, is
/// NaN throughout.
template <class Scalar_>
class LogSoftmax {
public:
    using Scalar = Scalar_;
    using Cache = detail::NoCache;
    using Gradient = detail::NoGradient;

    [[nodiscard]] Index output_size(Index input_size) const { return input_size; }

    /// \param x  Logits, [classes x batch].
    /// \param y  Log probabilities, [classes x batch], overwritten; may be x itself.
    /// \throws std::invalid_argument  if sizes differ.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("LogSoftmax", *this, x, y);
        const Index classes = x.rows();
        if (classes == 0) return;
        for (Index j = 0; j < x.cols(); ++j) {
            const Scalar* const logit = x.data() + j * x.outerStride();
            Scalar* const log_probability = y.data() + j * y.outerStride();
            const Index top = std::max_element(logit, logit + classes) - logit;
            const Scalar largest = logit[top];
            // 0; NaN for a largest logit that is infinite.
            Scalar rest = largest - largest;
            for (Index i = 0; i < classes; ++i)
                if (i != top) rest += std::exp(logit[i] - largest);
            const Scalar log_sum = std::log1p(rest);
            for (Index i = 0; i < classes; ++i) log_probability[i] = logit[i] - largest - log_sum;
        }
    }

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache&) const {
        forward(x, y);
    }

    [[nodiscard]] Gradient zero_gradient() const { return {}; }

    /// dx = dy - exp(y) sum_k dy_k, with y computed anew.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy, const Cache&,
                  Gradient&, MatrixRef<Scalar> dx) const {
        detail::check_backward("LogSoftmax", *this, x, dy, dx);
        detail::ScratchMatrix<Scalar> y(x.rows(), x.cols());
        forward(x, *y);
        for (Index j = 0; j < x.cols(); ++j) {
            Scalar sum = 0;
            for (Index i = 0; i < x.rows(); ++i) sum += dy(i, j);
            for (Index i = 0; i < x.rows(); ++i) dx(i, j) = dy(i, j) - std::exp((*y)(i, j)) * sum;
        }
    }
};

}  // namespace stochastic_depth
