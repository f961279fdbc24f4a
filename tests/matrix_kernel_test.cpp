// SPDX-License-Identifier: MIT
#include <stochastic_depth/kernels/matrix_kernel.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include <stochastic_depth/random/philox.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/packets.hpp"
#include "support/product.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

template <class Scalar>
void check_shapes(const std::vector<Index>& row_counts, const std::vector<Index>& inner_sizes,
                  const std::vector<Index>& column_counts) {
    Philox random{11};
    int variant = 0;
    double largest = 0;
    for (const Index rows : row_counts)
        for (const Index inner : inner_sizes) {
            ++variant;
            const Factors<Scalar> factors(
                random, rows, inner, column_counts.back(),
                variant % 3 == 0 ? RightFactorIs::transposed : RightFactorIs::plain,
                variant % 4 == 0 ? Start::zero : Start::vector);
            const Matrix<Scalar> expected = factors.in_ascending_order();
            largest = std::max(largest, factors.error_in_bounds(expected));
            for (const Index columns : column_counts)
                if (!same_bits(factors.run(columns), expected.leftCols(columns))) {
                    CAPTURE(rows, inner, columns, sizeof(Scalar));
                    FAIL_CHECK("bits differ from one multiply-add after the other");
                }
        }
    CHECK(largest > 0);
    CHECK(largest <= 1);
}

std::vector<Index> range(Index first, Index last) {
    std::vector<Index> numbers;
    for (Index n = first; n <= last; ++n) numbers.push_back(n);
    return numbers;
}

// One fma chain in ascending k for every entry, whatever the number of columns: so a column's bits
// don't depend on the batch that it stands in, and rows don't depend on the packet they fall into.
TEMPLATE_TEST_CASE(
    "matrix kernel: every entry is one chain of multiply-adds in ascending order, for all "
    "shapes",
    "[matrix_kernel]", float, double) {
    check_shapes<TestType>(range(1, 70), range(1, 20), range(0, 20));
}

TEMPLATE_TEST_CASE("matrix kernel: the same for large shapes", "[matrix_kernel]", float, double) {
    check_shapes<TestType>({1, 3, 17, 64, 70, 128, 200}, {1, 2, 7, 64, 100, 784}, range(0, 20));
}

// A single column takes taller tiles than several do, and very many rows in parts.
TEMPLATE_TEST_CASE("matrix kernel: the same for one column of many rows", "[matrix_kernel]", float,
                   double) {
    check_shapes<TestType>(range(60, 140), {1, 9}, {1, 2});
    check_shapes<TestType>({255, 256, 257, 300}, {1, 9}, {1, 2});
    check_shapes<TestType>({512, 513, 530, 1100}, {1, 9}, {1, 2});
}

// Long sums for many columns take their weights from a packed copy, and wait in the output in
// between.
TEMPLATE_TEST_CASE("matrix kernel: the same for long sums", "[matrix_kernel]", float, double) {
    check_shapes<TestType>({1, 3, 5, 8, 9, 17, 20, 33, 40, 65, 70}, {511, 512, 513, 1030},
                           {1, 6, 23, 24, 25, 40});
}

// Squares of few rows keep their weights in registers, where all columns start from one.
TEMPLATE_TEST_CASE("matrix kernel: the same for sums that start from a matrix", "[matrix_kernel]",
                   float, double) {
    Philox random{16};
    for (const Index size : {2, 4, 8, 16, 32})
        for (const Index columns : {1, 2, 13}) {
            CAPTURE(size, columns);
            const Factors<TestType> factors(random, size, size, columns, RightFactorIs::plain,
                                            Start::zero);
            const Matrix<TestType> start = random_matrix<TestType>(random, size, columns);
            Matrix<TestType> expected = start, result(size, columns);
            for (Index j = 0; j < columns; ++j)
                for (Index k = 0; k < size; ++k)
                    for (Index i = 0; i < size; ++i)
                        expected(i, j) = test::multiply_add(
                            factors.left_at(i, k), factors.right_at(k, j), expected(i, j));
            detail::product_onto<TestType>(
                size, size, columns, {factors.left.data(), factors.left_stride},
                {start.data(), size}, {factors.right.data(), 1, factors.right_stride},
                {result.data(), size}, detail::AsIs{});
            CHECK(same_bits(result, expected));
        }
}

TEMPLATE_TEST_CASE("matrix kernel: no rows, no columns, no terms", "[matrix_kernel]", float,
                   double) {
    Philox random{12};
    for (const Index rows : {0, 1, 5, 33})
        for (const Index inner : {0, 1, 5})
            for (const Index columns : {0, 1, 7}) {
                const Factors<TestType> factors(random, rows, inner, columns, RightFactorIs::plain,
                                                Start::vector);
                CHECK(same_bits(factors.run(columns), factors.in_ascending_order()));
            }
}

TEMPLATE_TEST_CASE("matrix kernel: narrower packets give the same bits", "[matrix_kernel]", float,
                   double) {
    Philox random{13};
    for (const Index rows : {1, 4, 7, 16, 33, 67}) {
        const Factors<TestType> factors(random, rows, 19, 13, RightFactorIs::plain, Start::vector);
        const Matrix<TestType> expected = factors.in_ascending_order();
        for_each_width<TestType>([&](auto lanes) {
            CAPTURE(rows, lanes());
            CHECK(same_bits(
                factors.template run<Eigen::Dynamic, Eigen::Dynamic, lanes>(13, detail::AsIs{}),
                expected));
        });
    }
}

// As the rows of a window on an image.
TEMPLATE_TEST_CASE("matrix kernel: an inner dimension in segments is one sum", "[matrix_kernel]",
                   float, double) {
    using Scalar = TestType;
    constexpr Index steps = 5, left_step = 8, right_step = 7;
    Philox random{16};
    for (const Index rows : {1, 3, 4, 8, 16, 21, 40, 70})
        for (const Index columns : {1, 2, 5, 6, 9, 13, 30})
            for (const Index segments : {1, 2, 3}) {
                CAPTURE(rows, columns, segments);
                const Matrix<Scalar> left = random_matrix<Scalar>(random, rows, 3 * left_step);
                const Matrix<Scalar> right = random_matrix<Scalar>(random, 3 * right_step, columns);
                const Matrix<Scalar> start = random_matrix<Scalar>(random, rows, 1);
                Matrix<Scalar> side_by_side(rows, segments * steps), below(segments * steps, columns);
                for (Index s = 0; s < segments; ++s) {
                    side_by_side.middleCols(s * steps, steps) =
                        left.middleCols(s * left_step, steps);
                    below.middleRows(s * steps, steps) = right.middleRows(s * right_step, steps);
                }
                Matrix<Scalar> sum(rows, columns), expected(rows, columns);
                detail::product_onto<Scalar>(
                    rows, steps, columns, {left.data(), rows}, {start.data()},
                    {right.data(), 1, right.rows()}, {sum.data(), rows}, detail::AsIs{}, {},
                    {segments, (left_step - steps) * rows, right_step - steps});
                detail::product<Scalar>(rows, segments * steps, columns,
                                        {side_by_side.data(), rows}, start.data(),
                                        {below.data(), 1, below.rows()}, {expected.data(), rows},
                                        detail::AsIs{});
                REQUIRE(same_bits(sum, expected));
            }
}

// Windows on an image overlap; a right factor across has its columns side by side. Some tiles know
// the stride at compile time.
TEMPLATE_TEST_CASE("matrix kernel: the same whatever the distance of columns", "[matrix_kernel]",
                   float, double) {
    using Scalar = TestType;
    constexpr Index most_columns = 50;
    Philox random{18};
    const Matrix<Scalar> numbers = random_matrix<Scalar>(random, 64 * most_columns, 1);
    for (const Index rows : {4, 8, 11, 16, 21, 32})
        for (const Index inner : {15, 16, 33})
            for (const Index stride : {1, 2, 4, 8, 16, 32}) {
                CAPTURE(rows, inner, stride);
                const detail::RightFactor<Scalar> right{numbers.data(),
                                                        stride == 1 ? most_columns : 1, stride};
                const Matrix<Scalar> left = random_matrix<Scalar>(random, rows, inner);
                const Matrix<Scalar> start = random_matrix<Scalar>(random, rows, 1);
                Matrix<Scalar> expected = start.replicate(1, most_columns);
                for (Index j = 0; j < most_columns; ++j)
                    for (Index k = 0; k < inner; ++k)
                        for (Index i = 0; i < rows; ++i)
                            expected(i, j) = test::multiply_add(
                                left(i, k), numbers(k * right.inner_stride + j * stride),
                                expected(i, j));
                for (Index columns = 1; columns <= most_columns; ++columns) {
                    Matrix<Scalar> result(rows, columns);
                    detail::product<Scalar>(rows, inner, columns, {left.data(), rows}, start.data(),
                                            right, {result.data(), rows}, detail::AsIs{});
                    REQUIRE(same_bits(result, expected.leftCols(columns)));
                }
            }
}

TEMPLATE_TEST_CASE("matrix kernel: NaN and infinity stay in their own row and column",
                   "[matrix_kernel]", float, double) {
    Philox random{15};
    Factors<TestType> factors(random, 37, 6, 11, RightFactorIs::plain, Start::vector);
    const Matrix<TestType> healthy = factors.run(11);
    for (const TestType bad :
         {std::numeric_limits<TestType>::quiet_NaN(), std::numeric_limits<TestType>::infinity()}) {
        Factors<TestType> sick = factors;
        sick.right[static_cast<std::size_t>(2 + 7 * sick.right_stride)] = bad;
        sick.start[20] = bad;
        const Matrix<TestType> result = sick.run(11);
        for (Index j = 0; j < 11; ++j)
            for (Index i = 0; i < 37; ++i) {
                CAPTURE(i, j);
                if (i == 20 || j == 7)
                    CHECK_FALSE(std::isfinite(result(i, j)));
                else
                    CHECK(result(i, j) == healthy(i, j));
            }
    }
}

}  // namespace
