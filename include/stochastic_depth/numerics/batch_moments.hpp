// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/types.hpp>

/// Sums over the columns of a batch, for each row, in double and in the order of the columns. Rows
/// are taken in groups that begin at multiples of the group's size, whoever asks for them: the same
/// rows run through the same instructions.
namespace stochastic_depth::detail {

inline constexpr Index moments_group = 8;

/// Calls run(i, rows) for the groups of rows of [first, first + count).
/// \param first  A multiple of moments_group.
template <class Run>
void for_each_group(Index first, Index count, const Run& run) {
    for (Index i = first; i < first + count; i += moments_group)
        run(i, std::min(moments_group, first + count - i));
}

/// to[k] = the sum of term(k, j) over the columns j, for k < rows <= moments_group.
template <class Term>
void sum_columns(Index rows, Index columns, double* to, const Term& term) {
    double sums[moments_group] = {};
    if (rows == moments_group)
        for (Index j = 0; j < columns; ++j)
            for (Index k = 0; k < moments_group; ++k) sums[k] += term(k, j);
    else
        for (Index j = 0; j < columns; ++j)
            for (Index k = 0; k < rows; ++k) sums[k] += term(k, j);
    std::copy_n(sums, rows, to);
}

/// Mean and biased variance of rows first, ..., first + rows - 1.
template <class Scalar>
[[gnu::noinline]] void group_moments(const Scalar* x, Index stride, Index columns, Index rows,
                                     double* mean, double* variance) {
    const auto n = static_cast<double>(columns);
    const auto entry = [&](Index k, Index j) { return static_cast<double>(x[k + j * stride]); };
    sum_columns(rows, columns, mean, entry);
    for (Index k = 0; k < rows; ++k) mean[k] /= n;
    sum_columns(rows, columns, variance, [&](Index k, Index j) {
        const double deviation = entry(k, j) - mean[k];
        return deviation * deviation;
    });
    for (Index k = 0; k < rows; ++k) variance[k] /= n;
}

/// Mean and biased variance over the columns of x, for rows [first, first + count).
template <class View>
void batch_moments(const View& x, Index first, Index count, double* mean, double* variance) {
    for_each_group(first, count, [&](Index i, Index rows) {
        group_moments(x.data() + i, x.outerStride(), x.cols(), rows, mean + i, variance + i);
    });
}

template <class Scalar>
[[gnu::noinline]] void group_slope_sums(const Scalar* x, Index x_stride, const Scalar* dy,
                                        Index dy_stride, Index columns, Index rows,
                                        const double* mean, const double* inverse_deviation,
                                        double* of_slopes, double* of_products) {
    const auto slope = [&](Index k, Index j) { return static_cast<double>(dy[k + j * dy_stride]); };
    sum_columns(rows, columns, of_slopes, slope);
    sum_columns(rows, columns, of_products, [&](Index k, Index j) {
        const double z =
            (static_cast<double>(x[k + j * x_stride]) - mean[k]) * inverse_deviation[k];
        return slope(k, j) * z;
    });
}

/// The sums of dy and of dy (x - mean) inverse_deviation over the columns, for rows
/// [first, first + count).
template <class X, class Slope>
void batch_slope_sums(const X& x, const Slope& dy, const double* mean,
                      const double* inverse_deviation, Index first, Index count, double* of_slopes,
                      double* of_products) {
    for_each_group(first, count, [&](Index i, Index rows) {
        group_slope_sums(x.data() + i, x.outerStride(), dy.data() + i, dy.outerStride(), x.cols(),
                         rows, mean + i, inverse_deviation + i, of_slopes + i, of_products + i);
    });
}

}  // namespace stochastic_depth::detail
