// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/types.hpp>

/// Copies of columns. From and To are matrices, blocks or maps with contiguous columns; copying
/// these by hand spares the compiler an assignment for each pair of Eigen types.
namespace stochastic_depth::detail {

/// Matrices that stand somewhere else, with contiguous columns.
template <class Scalar>
using View = Eigen::Map<Matrix<Scalar>, 0, Eigen::OuterStride<>>;
template <class Scalar>
using ConstView = Eigen::Map<const Matrix<Scalar>, 0, Eigen::OuterStride<>>;

/// to(:, j) = from(:, j).
template <class From, class To>
void copy_columns(const From& from, To&& to) {
    for (Index j = 0; j < from.cols(); ++j)
        std::copy_n(from.data() + j * from.outerStride(), from.rows(),
                    to.data() + j * to.outerStride());
}

/// to(:, k) = from(:, columns[k]).
template <class From, class To>
void gather(const From& from, const Index* columns, To&& to) {
    for (Index k = 0; k < to.cols(); ++k)
        std::copy_n(from.data() + columns[k] * from.outerStride(), from.rows(),
                    to.data() + k * to.outerStride());
}

/// to(:, columns[k]) = from(:, k).
template <class From, class To>
void scatter(const From& from, const Index* columns, To&& to) {
    for (Index k = 0; k < from.cols(); ++k)
        std::copy_n(from.data() + k * from.outerStride(), from.rows(),
                    to.data() + columns[k] * to.outerStride());
}

/// The targets of samples first, ..., first + count - 1: of a vector its entries, of a matrix its
/// columns.
template <class Targets>
[[nodiscard]] Targets targets_of(const Targets& targets, Index first, Index count) {
    if constexpr (Targets::ColsAtCompileTime == 1)
        return targets.segment(first, count);
    else
        return targets.middleCols(first, count);
}

/// Lists, in order, the columns that are not among `chosen`, which are in order too.
inline void list_others(Index columns, const Index* chosen, Index count, Index* others) {
    for (Index j = 0, k = 0; j < columns; ++j)
        if (k < count && chosen[k] == j)
            ++k;
        else
            others[j - k] = j;
}

}  // namespace stochastic_depth::detail
