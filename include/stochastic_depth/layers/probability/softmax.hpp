// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/parts.hpp>

namespace stochastic_depth {

/// y(i, j) = exp(x(i, j)) / sum_k exp(x(k, j)): class probabilities from logits, for each column.
///
/// The largest logit is subtracted first, so that no exponential overflows. A column with a NaN or
/// +inf is NaN throughout.
template <class Scalar_>
class Softmax {
public:
    using Scalar = Scalar_;
    using Cache = detail::NoCache;
    using Gradient = detail::NoGradient;

    [[nodiscard]] Index output_size(Index input_size) const { return input_size; }

    /// \param x  Logits, [classes x batch].
    /// \param y  Probabilities, [classes x batch], overwritten; may be x itself.
    /// \throws std::invalid_argument  if sizes differ.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("Softmax", *this, x, y);
        const Index classes = x.rows();
        if (classes == 0) return;
        for (Index j = 0; j < x.cols(); ++j) {
            const Scalar* const logit = x.data() + j * x.outerStride();
            Scalar* const probability = y.data() + j * y.outerStride();
            const Scalar largest = *std::max_element(logit, logit + classes);
            Scalar sum = 0;
            for (Index i = 0; i < classes; ++i)
                sum += probability[i] = std::exp(logit[i] - largest);
            for (Index i = 0; i < classes; ++i) probability[i] /= sum;
        }
    }

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache&) const {
        forward(x, y);
    }

    [[nodiscard]] Gradient zero_gradient() const { return {}; }

    /// dx = y * (dy - sum_k y_k dy_k), with y computed anew.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy, const Cache&,
                  Gradient&, MatrixRef<Scalar> dx) const {
        detail::check_backward("Softmax", *this, x, dy, dx);
        detail::ScratchMatrix<Scalar> y(x.rows(), x.cols());
        forward(x, *y);
        for (Index j = 0; j < x.cols(); ++j) {
            const Scalar mean = y->col(j).dot(dy.col(j));
            dx.col(j) = y->col(j).cwiseProduct((dy.col(j).array() - mean).matrix());
        }
    }
};

}  // namespace stochastic_depth
