// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

#include <stochastic_depth/types.hpp>

namespace stochastic_depth::test {

/// A user's own layer of sequences: the sum of a vector for each token. It takes any number of
/// rows, -1 past the end of a shorter sequence.
class BagOfTokens {
public:
    using Scalar = double;
    struct Cache {};
    struct Gradient {
        Matrix<double> vectors;
        void set_zero() { vectors.setZero(); }
    };

    /// \param vectors  [features x ids].
    explicit BagOfTokens(Matrix<double> vectors) : vectors_(std::move(vectors)) {}

    [[nodiscard]] Index output_size(Index) const { return vectors_.rows(); }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y) const {
        y.setZero();
        for_each_token(x, [&](Index id, Index j) { y.col(j) += vectors_.col(id); });
    }
    void forward(const ConstMatrixRef<double>& x, MatrixRef<double> y, Cache&) const {
        forward(x, y);
    }
    [[nodiscard]] Gradient zero_gradient() const {
        return {Matrix<double>::Zero(vectors_.rows(), vectors_.cols())};
    }
    void backward(const ConstMatrixRef<double>& x, const ConstMatrixRef<double>& dy, const Cache&,
                  Gradient& gradient, MatrixRef<double> dx) const {
        for_each_token(x, [&](Index id, Index j) { gradient.vectors.col(id) += dy.col(j); });
        dx.setZero();
    }
    static void visit_parameters(auto& self, auto&& visit, auto&... gradients) {
        visit("vectors", self.vectors_, gradients.vectors...);
    }

private:
    static void for_each_token(const ConstMatrixRef<double>& x, const auto& visit) {
        for (Index j = 0; j < x.cols(); ++j)
            for (Index t = 0; t < x.rows(); ++t)
                if (x(t, j) >= 0) visit(static_cast<Index>(x(t, j)), j);
    }

    Matrix<double> vectors_;
};

}  // namespace stochastic_depth::test
