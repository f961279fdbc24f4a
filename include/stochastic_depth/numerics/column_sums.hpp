// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <utility>

#include <stochastic_depth/numerics/column_moments.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

namespace detail {

/// The entries of a row that all copies of this share.
template <class Scalar>
struct SharedRow {
    std::shared_ptr<const Eigen::Matrix<Scalar, 1, Eigen::Dynamic>> row;

    [[nodiscard]] Scalar operator()(Index j) const { return (*row)(j); }
};

}  // namespace detail

/// What column_sums answers: an Eigen expression, [1 x n], that owns its numbers, as a part of a
/// larger expression too. So a lambda may return an expression of it, which would refer to what is
/// gone if this were a matrix.
template <class Scalar>
using ColumnSums =
    Eigen::CwiseNullaryOp<detail::SharedRow<Scalar>, Eigen::Matrix<Scalar, 1, Eigen::Dynamic>>;

/// The sum of each column, in one order: the same column gives the same bits wherever it stands.
///
/// Eigen's own sums (`sum`, `mean`, `norm`, `dot`, matrix products) add in an order that depends on
/// the address at which a column begins, and so on the columns that come before it.
///
/// The order: entry i goes to the sum number i mod 8, for the first 8 floor(rows / 8) entries, and
/// to sum number 0 after these; the total is ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)). All in
/// double, rounded to Scalar at the end. An empty column has the sum 0.
///
/// \param x  [rows x n], of float or double; an expression is evaluated first.
/// \returns  [1 x n].
template <class Derived>
[[nodiscard]] ColumnSums<typename Derived::Scalar> column_sums(
    const Eigen::MatrixBase<Derived>& x) {
    using Scalar = typename Derived::Scalar;
    const ConstMatrixRef<Scalar> columns(x.derived());
    Eigen::Matrix<Scalar, 1, Eigen::Dynamic> sums(columns.cols());
    for (Index j = 0; j < columns.cols(); ++j) {
        const Scalar* const column = columns.data() + j * columns.outerStride();
        sums(j) = static_cast<Scalar>(detail::sum_of(
            columns.rows(), [column](Index i) { return static_cast<double>(column[i]); }));
    }
    const Index n = sums.cols();
    return ColumnSums<Scalar>(
        1, n, {std::make_shared<const Eigen::Matrix<Scalar, 1, Eigen::Dynamic>>(std::move(sums))});
}

}  // namespace stochastic_depth
