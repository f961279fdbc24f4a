// SPDX-License-Identifier: MIT
#include <stochastic_depth/kernels/resident_kernel.hpp>

#include <algorithm>
#include <cstdint>

#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/kernels/matrix_kernel.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/random/philox.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/product.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// What may follow a product: an epilogue that reads a matrix, then one that goes through every
/// lane.
template <class Scalar>
auto shift_and_rectify(const Matrix<Scalar>& shift, const ReLU<Scalar>& relu) {
    using detail::AddMatrix, detail::ApplyElementwise, detail::Then;
    return Then{AddMatrix<Scalar>{shift.data(), shift.rows()},
                ApplyElementwise<ReLU<Scalar>>{relu}};
}

/// Square matrices of a size known at compile time without gaps between their columns, so that
/// several columns share a packet where that size is a part of one, unless the epilogue reads a
/// matrix with gaps.
template <class Scalar, int Width>
void check_side_by_side() {
    Philox random{static_cast<std::uint_fast32_t>(300 + Width)};
    const ReLU<Scalar> relu;
    const Matrix<Scalar> left = random_matrix<Scalar>(random, Width, Width);
    const Vector<Scalar> start = random_matrix<Scalar>(random, Width, 1);
    for (Index columns = 0; columns <= 35; ++columns)
        for (const Index gap : {0, 1}) {
            const Scalar* const from = columns % 3 == 0 ? nullptr : start.data();
            const Matrix<Scalar> right = random_matrix<Scalar>(random, Width, columns);
            const Matrix<Scalar> shift = random_matrix<Scalar>(random, Width + gap, columns);
            Matrix<Scalar> expected(Width, columns);
            for (Index j = 0; j < columns; ++j)
                for (Index i = 0; i < Width; ++i) {
                    Scalar sum = from ? start(i) : Scalar(0);
                    for (Index k = 0; k < Width; ++k)
                        sum = multiply_add(left(i, k), right(k, j), sum);
                    expected(i, j) = std::max(shift(i, j) + sum, Scalar(0));
                }
            Matrix<Scalar> out = Matrix<Scalar>::Constant(Width, columns + 1, Scalar(77));
            detail::product<Scalar, Width, Width>(Width, Width, columns, {left.data(), Width}, from,
                                                  {right.data(), 1, Width}, {out.data(), Width},
                                                  shift_and_rectify(shift, relu));
            CAPTURE(Width, columns, gap, sizeof(Scalar));
            REQUIRE(same_bits(out.leftCols(columns), expected));
            REQUIRE((out.col(columns).array() == Scalar(77)).all());
        }
}

TEMPLATE_TEST_CASE("matrix kernel: columns side by side in a packet have the bits of one by itself",
                   "[resident_kernel]", float, double) {
    check_side_by_side<TestType, 2>();
    check_side_by_side<TestType, 4>();
    check_side_by_side<TestType, 8>();
    check_side_by_side<TestType, 16>();
}

/// Sizes known at compile time, both or one of them, give the bits of sizes known at run time.
template <class Scalar, int Rows, int Inner>
void check_fixed() {
    Philox random{static_cast<std::uint_fast32_t>(100 * Rows + Inner)};
    for (const auto right_is : {RightFactorIs::plain, RightFactorIs::transposed})
        for (const auto start_is : {Start::zero, Start::vector}) {
            const Factors<Scalar> factors(random, Rows, Inner, 20, right_is, start_is);
            const Matrix<Scalar> expected = factors.in_ascending_order();
            CAPTURE(Rows, Inner, sizeof(Scalar));
            for (Index columns = 0; columns <= 20; ++columns) {
                const auto part = expected.leftCols(columns);
                REQUIRE(same_bits(factors.template run<Rows, Inner>(columns), part));
                if constexpr (Rows == 8 || Rows == 15)
                    REQUIRE(same_bits(factors.template run<Rows, Eigen::Dynamic>(columns), part));
                if constexpr (Rows == 8)
                    REQUIRE(same_bits(factors.template run<Eigen::Dynamic, Inner>(columns), part));
            }
        }
}

TEMPLATE_TEST_CASE("matrix kernel: sizes known at compile time give the bits of those at run time",
                   "[resident_kernel]", float, double) {
    check_fixed<TestType, 1, 1>();
    check_fixed<TestType, 2, 3>();
    check_fixed<TestType, 3, 2>();
    check_fixed<TestType, 4, 4>();
    check_fixed<TestType, 5, 7>();
    check_fixed<TestType, 7, 16>();
    check_fixed<TestType, 8, 8>();
    check_fixed<TestType, 9, 1>();
    check_fixed<TestType, 12, 5>();
    check_fixed<TestType, 15, 17>();
    check_fixed<TestType, 16, 16>();
    check_fixed<TestType, 17, 8>();
    check_fixed<TestType, 32, 8>();
}

}  // namespace
