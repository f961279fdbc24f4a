// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>

#include <stochastic_depth/detail/one_alignment.hpp>

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error \
    "stochastic_depth needs IEEE arithmetic (NaN tests, fixed order of sums): build without -ffast-math and -ffinite-math-only"
#endif

#if defined(__GNUC__) && !defined(__cpp_exceptions)
#error "stochastic_depth needs exceptions, by which it refuses bad input: build without -fno-exceptions"
#endif

/// Networks whose layers are skipped at random, and the exact mathematics of the ensemble that this
/// defines.
///
/// Data is [features x batch], column major: one sample in one column. Read arguments are
/// `const ConstMatrixRef<Scalar>&`: matrices, column ranges, maps and expressions are taken; a
/// transpose or a row-major matrix is silently copied into a temporary first, as Eigen::Ref does.
/// Outputs are `MatrixRef<Scalar>`, sized by the caller.
namespace stochastic_depth {

using Eigen::Index;

static_assert(sizeof(Index) == 8,
              "stochastic_depth needs a target with 64-bit addresses: Eigen::Index counts samples "
              "and random numbers past 2^32");

template <class Scalar>
using Matrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic>;

template <class Scalar>
using Vector = Eigen::Matrix<Scalar, Eigen::Dynamic, 1>;

/// What a function reads: [features x batch].
template <class Scalar>
using ConstMatrixRef = Eigen::Ref<const Matrix<Scalar>>;

/// What a function writes: [features x batch], of the size that the caller gave it.
template <class Scalar>
using MatrixRef = Eigen::Ref<Matrix<Scalar>>;

}  // namespace stochastic_depth
