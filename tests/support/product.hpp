// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <vector>

#include <stochastic_depth/kernels/matrix_kernel.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/uniform.hpp>

/// Products with their answers, for the tests of the kernels.
namespace stochastic_depth::test {

/// The multiply-add that the kernel promises: rounded once wherever the target can.
template <class Scalar>
Scalar multiply_add(Scalar a, Scalar b, Scalar c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}

enum class RightFactorIs { plain, transposed };
enum class Start { zero, vector };

/// Factors of one product in memory that ends with their last entry, their columns apart; whatever
/// lies between the columns is NaN, so that reading it shows.
template <class Scalar>
struct Factors {
    Index rows, inner, columns, left_stride, right_stride;
    RightFactorIs right_is;
    Start start_is;
    std::vector<Scalar> left, right, start;

    Factors(Philox& random, Index rows_, Index inner_, Index columns_, RightFactorIs right_is_,
            Start start_is_)
        : rows(rows_),
          inner(inner_),
          columns(columns_),
          left_stride(rows_ + 3),
          right_stride((right_is_ == RightFactorIs::plain ? inner_ : columns_) + 2),
          right_is(right_is_),
          start_is(start_is_),
          left(strided(random, rows, inner, left_stride)),
          right(right_is == RightFactorIs::plain ? strided(random, inner, columns, right_stride)
                                                 : strided(random, columns, inner, right_stride)),
          start(strided(random, rows, 1, rows)) {}

    static std::vector<Scalar> strided(Philox& random, Index rows, Index columns, Index stride) {
        const Index size = rows > 0 && columns > 0 ? (columns - 1) * stride + rows : 0;
        std::vector<Scalar> data(static_cast<std::size_t>(size),
                                 std::numeric_limits<Scalar>::quiet_NaN());
        for (Index j = 0; j < columns; ++j)
            for (Index i = 0; i < rows; ++i)
                data[static_cast<std::size_t>(i + j * stride)] = uniform<Scalar>(random, -1, 1);
        return data;
    }

    Scalar left_at(Index i, Index k) const {
        return left[static_cast<std::size_t>(i + k * left_stride)];
    }
    Scalar right_at(Index k, Index j) const {
        const Index at =
            right_is == RightFactorIs::plain ? k + j * right_stride : j + k * right_stride;
        return right[static_cast<std::size_t>(at)];
    }
    Scalar start_at(Index i) const {
        return start_is == Start::zero ? Scalar(0) : start[static_cast<std::size_t>(i)];
    }

    /// One multiply-add after the other, in ascending k.
    Matrix<Scalar> in_ascending_order() const {
        Matrix<Scalar> result(rows, columns);
        for (Index j = 0; j < columns; ++j) {
            for (Index i = 0; i < rows; ++i) result(i, j) = start_at(i);
            for (Index k = 0; k < inner; ++k)
                for (Index i = 0; i < rows; ++i)
                    result(i, j) = multiply_add(left_at(i, k), right_at(k, j), result(i, j));
        }
        return result;
    }

    /// The largest distance from the true product, in units of the bound that any order of
    /// summation keeps: (inner + 1) roundings of eps / 2 each, of at most |start| + sum |left|
    /// |right|.
    double error_in_bounds(const Matrix<Scalar>& result) const {
        double largest = 0;
        for (Index j = 0; j < columns; ++j)
            for (Index i = 0; i < rows; ++i) {
                long double sum = start_at(i), size = std::abs(start_at(i));
                for (Index k = 0; k < inner; ++k) {
                    const long double term = static_cast<long double>(left_at(i, k)) *
                                             static_cast<long double>(right_at(k, j));
                    sum += term;
                    size += std::abs(term);
                }
                const long double bound =
                    static_cast<long double>(inner + 1) * size *
                    static_cast<long double>(std::numeric_limits<Scalar>::epsilon());
                const auto error = static_cast<double>(std::abs(result(i, j) - sum) / bound);
                if (!(error <= largest)) largest = error;
            }
        return largest;
    }

    /// The kernel on the first `used` columns. Throws if it writes anything else.
    template <int Rows, int Inner, int Lanes, class Epilogue>
    Matrix<Scalar> run(Index used, const Epilogue& epilogue) const {
        constexpr Scalar canary = Scalar(-12345.678);
        const Index stride = rows + 5;
        std::vector<Scalar> out(static_cast<std::size_t>((used + 1) * stride), canary);
        constexpr Index before = 2;
        Scalar* const first = out.data() + before;
        const Index inner_stride = right_is == RightFactorIs::plain ? 1 : right_stride;
        const Index column_stride = right_is == RightFactorIs::plain ? right_stride : 1;
        detail::product<Scalar, Rows, Inner, Lanes>(
            rows, inner, used, {left.data(), left_stride},
            start_is == Start::zero ? nullptr : start.data(),
            {right.data(), inner_stride, column_stride}, {first, stride}, epilogue);
        Matrix<Scalar> result(rows, used);
        for (Index j = 0; j < used; ++j)
            for (Index i = 0; i < rows; ++i) {
                Scalar& entry = first[i + j * stride];
                result(i, j) = entry;
                entry = canary;
            }
        for (const Scalar entry : out)
            if (!(entry == canary))
                throw std::logic_error("the kernel wrote outside its destination");
        return result;
    }
    template <int Rows = Eigen::Dynamic, int Inner = Eigen::Dynamic>
    Matrix<Scalar> run(Index used) const {
        return run<Rows, Inner, detail::widest_lanes<Scalar>>(used, detail::AsIs{});
    }
};

}  // namespace stochastic_depth::test
