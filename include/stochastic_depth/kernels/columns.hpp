// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include <stochastic_depth/types.hpp>

/// Copies of columns. From and To are matrices, blocks or maps with contiguous columns; copying
/// these by hand spares the compiler an assignment for each pair of Eigen types.
namespace stochastic_depth::detail {

/// Matrices that stand somewhere else, with contiguous columns.
template <class Scalar>
using View = Eigen::Map<Matrix<Scalar>, 0, Eigen::OuterStride<>>;
template <class Scalar>
using ConstView = Eigen::Map<const Matrix<Scalar>, 0, Eigen::OuterStride<>>;

/// The view of a matrix, block or map with contiguous columns. Functions of the library hand views
/// to each other: each Eigen::Ref that is made of another matrix brings along a matrix to copy it
/// into, and the end of that.
template <class From>
[[nodiscard]] ConstView<typename From::Scalar> const_view(const From& from) {
    return {from.data(), from.rows(), from.cols(), Eigen::OuterStride<>(from.outerStride())};
}
/// The same for writing; what is constant of `to` is the map, not the numbers.
template <class To>
[[nodiscard]] View<typename To::Scalar> view(const To& to) {
    return {const_cast<typename To::Scalar*>(to.data()), to.rows(), to.cols(),
            Eigen::OuterStride<>(to.outerStride())};
}

/// to(:, j) = from(:, j).
template <class From, class To>
void copy_columns(const From& from, To&& to) {
    for (Index j = 0; j < from.cols(); ++j)
        std::copy_n(from.data() + j * from.outerStride(), from.rows(),
                    to.data() + j * to.outerStride());
}

/// to(:, k) = from(:, columns[k]). Of few rows, the first n, and then the last n: a call for each
/// column would take longer than the moves.
template <class Scalar>
[[gnu::noinline]] void gather_columns(const ConstView<Scalar>& from, const Index* columns,
                                      const View<Scalar>& to) {
    const Index rows = from.rows(), count = to.cols();
    const Scalar* const source = from.data();
    Scalar* const target = view(to).data();
    const Index from_stride = from.outerStride(), to_stride = to.outerStride();
    const auto copy_parts = [&]<Index n>(std::integral_constant<Index, n>) {
        constexpr std::size_t bytes = static_cast<std::size_t>(n) * sizeof(Scalar);
        for (Index k = 0; k < count; ++k) {
            const Scalar* const in = source + columns[k] * from_stride;
            Scalar* const out = target + k * to_stride;
            std::memcpy(out, in, bytes);
            if (rows > n) std::memcpy(out + rows - n, in + rows - n, bytes);
        }
    };
    if (rows >= 4 && rows < 8) return copy_parts(std::integral_constant<Index, 4>{});
    if (rows >= 8 && rows < 16) return copy_parts(std::integral_constant<Index, 8>{});
    if (rows >= 16 && rows <= 32) return copy_parts(std::integral_constant<Index, 16>{});
    for (Index k = 0; k < count; ++k)
        std::copy_n(source + columns[k] * from_stride, rows, target + k * to_stride);
}
template <class From, class To>
void gather(const From& from, const Index* columns, To&& to) {
    gather_columns(const_view(from), columns, view(to));
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
