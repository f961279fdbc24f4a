// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>

#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/types.hpp>

/// What several tests need of matrices.
namespace stochastic_depth::test {

/// Uniform on [-1, 1); the same numbers everywhere, which Eigen's Random does not give.
template <class Scalar>
[[nodiscard]] Matrix<Scalar> random_matrix(Philox& random, Index rows, Index columns) {
    Matrix<Scalar> matrix(rows, columns);
    for (Index k = 0; k < matrix.size(); ++k)
        matrix.data()[k] = uniform<Scalar>(random, Scalar(-1), Scalar(1));
    return matrix;
}

/// Equal shapes and equal bits: -0 differs from 0, and a NaN equals itself.
template <class A, class B>
[[nodiscard]] bool same_bits(const A& a, const B& b) {
    using Scalar = typename A::Scalar;
    const Matrix<Scalar> left = a, right = b;
    return left.rows() == right.rows() && left.cols() == right.cols() &&
           (left.size() == 0 ||
            std::memcmp(left.data(), right.data(),
                        static_cast<std::size_t>(left.size()) * sizeof(Scalar)) == 0);
}

/// The largest entry of |a - b|; 0 for no entries, NaN where either has one.
template <class A, class B>
[[nodiscard]] double largest_difference(const A& a, const B& b) {
    double largest = 0;
    for (Index j = 0; j < a.cols(); ++j)
        for (Index i = 0; i < a.rows(); ++i) {
            const double difference =
                std::abs(static_cast<double>(a(i, j)) - static_cast<double>(b(i, j)));
            if (!(difference <= largest)) largest = difference;
        }
    return largest;
}

}  // namespace stochastic_depth::test
