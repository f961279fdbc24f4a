// SPDX-License-Identifier: MIT
#include <stochastic_depth/kernels/epilogue.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

#include <stochastic_depth/kernels/matrix_kernel.hpp>
#include <stochastic_depth/layers/elementwise/elementwise.hpp>
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

TEST_CASE(
    "matrix kernel: a packet goes on to the next column where no matrix has gaps, and only there",
    "[epilogue]") {
    const Matrix<float> shift = Matrix<float>::Zero(8, 2);
    const ReLU<float> relu;
    const auto epilogue = shift_and_rectify(shift, relu);
    CHECK(detail::crosses_columns(epilogue, 8));
    CHECK_FALSE(detail::crosses_columns(epilogue, 7));
    CHECK(detail::crosses_columns(detail::AsIs{}, 7));
    const auto silent = [](auto packet, Index, Index) { return packet; };
    CHECK_FALSE(detail::crosses_columns(silent, 8));
    CHECK_FALSE(detail::crosses_columns(detail::Then{epilogue, silent}, 8));

    // Each that reads or writes a matrix says so of itself.
    const detail::AddMatrix<float> add{shift.data(), 8};
    const detail::AddScaled<float> add_scaled{shift.data(), 8, 0.5f};
    float into[16] = {};
    const detail::StoreInto<float> store{into, 8};
    CHECK(detail::crosses_columns(add, 8));
    CHECK_FALSE(detail::crosses_columns(add, 7));
    CHECK(detail::crosses_columns(add_scaled, 8));
    CHECK_FALSE(detail::crosses_columns(add_scaled, 7));
    CHECK(detail::crosses_columns(store, 8));
    CHECK_FALSE(detail::crosses_columns(store, 7));
}

/// A product of small matrices side by side in a packet, behind which a matrix with a gap between
/// its columns is read and another is written.
template <class Scalar, int Width>
void check_matrices_with_gaps() {
    Philox random{500 + Width};
    const auto factor = Scalar(0.75), canary = Scalar(77);
    const Matrix<Scalar> left = random_matrix<Scalar>(random, Width, Width);
    for (const Index columns : {1, 2, 7, 16, 33})
        for (const Index gap : {0, 1, 3}) {
            const Matrix<Scalar> right = random_matrix<Scalar>(random, Width, columns);
            const Matrix<Scalar> shift = random_matrix<Scalar>(random, Width + gap, columns);
            Matrix<Scalar> expected(Width, columns);
            for (Index j = 0; j < columns; ++j)
                for (Index i = 0; i < Width; ++i) {
                    Scalar sum = Scalar(0);
                    for (Index k = 0; k < Width; ++k)
                        sum = multiply_add(left(i, k), right(k, j), sum);
                    expected(i, j) = multiply_add(factor, sum, shift(i, j));
                }
            Matrix<Scalar> out = Matrix<Scalar>::Constant(Width, columns + 1, canary);
            Matrix<Scalar> kept = Matrix<Scalar>::Constant(Width + gap, columns + 1, canary);
            detail::product<Scalar, Width, Width>(
                Width, Width, columns, {left.data(), Width}, nullptr, {right.data(), 1, Width},
                {out.data(), Width},
                detail::Then{detail::AddScaled<Scalar>{shift.data(), Width + gap, factor},
                             detail::StoreInto<Scalar>{kept.data(), Width + gap}});
            CAPTURE(Width, columns, gap, sizeof(Scalar));
            REQUIRE(same_bits(out.leftCols(columns), expected));
            REQUIRE(same_bits(kept.topLeftCorner(Width, columns), expected));
            REQUIRE((out.col(columns).array() == canary).all());
            kept.topLeftCorner(Width, columns).setConstant(canary);
            REQUIRE((kept.array() == canary).all());
        }
}

TEMPLATE_TEST_CASE("AddScaled, StoreInto: gaps between columns are neither read nor written",
                   "[epilogue]", float, double) {
    check_matrices_with_gaps<TestType, 2>();
    check_matrices_with_gaps<TestType, 4>();
    check_matrices_with_gaps<TestType, 8>();
}

TEMPLATE_TEST_CASE("matrix kernel: an epilogue is told its row and column, for every tile",
                   "[epilogue]", float, double) {
    using detail::AddMatrix, detail::ApplyElementwise, detail::Then;
    Philox random{14};
    const ReLU<TestType> relu;
    for (Index rows = 1; rows <= 70; ++rows)
        for (const Index columns : {1, 5, 6, 7, 20}) {
            const Factors<TestType> factors(random, rows, 5, columns, RightFactorIs::plain,
                                            Start::vector);
            const Matrix<TestType> sum = factors.in_ascending_order();
            const Matrix<TestType> padded = random_matrix<TestType>(random, rows + 4, columns);
            const AddMatrix<TestType> add{padded.data(), rows + 4};
            const ApplyElementwise<ReLU<TestType>> rectify{relu};
            Matrix<TestType> after(rows, columns), before(rows, columns);
            for (Index j = 0; j < columns; ++j)
                for (Index i = 0; i < rows; ++i) {
                    after(i, j) = padded(i, j) + std::max(sum(i, j), TestType(0));
                    before(i, j) = std::max(padded(i, j) + sum(i, j), TestType(0));
                }
            constexpr int widest = detail::widest_lanes<TestType>;
            constexpr int any = Eigen::Dynamic;
            CAPTURE(rows, columns);
            REQUIRE(same_bits(factors.template run<any, any, widest>(columns, Then{rectify, add}),
                              after));
            REQUIRE(same_bits(factors.template run<any, any, widest>(columns, Then{add, rectify}),
                              before));
        }
}

TEMPLATE_TEST_CASE("matrix kernel: an epilogue that stores elsewhere leaves the destination alone",
                   "[epilogue]", float, double) {
    using detail::ScatterInto, detail::Then;
    Philox random{17};
    const TestType canary = TestType(77);
    // A short inner dimension; and one whose weights are packed, with sums waiting in between.
    for (const Index inner : {Index{5}, detail::packed_inner + 3})
        for (const Index rows : {1, 7, 8, 33, 64, 70})
            for (const Index columns : {1, 5, 6, 26}) {
                const Factors<TestType> factors(random, rows, inner, columns, RightFactorIs::plain,
                                                Start::vector);
                std::vector<Index> chosen;
                for (Index j = 0; j < columns; ++j) chosen.push_back(2 * j + j % 2);
                Matrix<TestType> to = Matrix<TestType>::Constant(rows + 3, 2 * columns, canary);
                const ScatterInto<TestType> scatter{to.data(), rows + 3, chosen.data()};
                constexpr int widest = detail::widest_lanes<TestType>;
                constexpr int any = Eigen::Dynamic;
                const Matrix<TestType> expected = factors.in_ascending_order();
                const Matrix<TestType> destination =
                    factors.template run<any, any, widest>(columns, Then{detail::AsIs{}, scatter});
                CAPTURE(rows, inner, columns);
                if (inner <= detail::packed_inner)
                    REQUIRE((destination.array() == destination(0, 0)).all());
                for (Index j = 0; j < columns; ++j) {
                    const auto column = to.col(chosen[static_cast<std::size_t>(j)]);
                    REQUIRE(same_bits(column.head(rows), expected.col(j)));
                    to.col(chosen[static_cast<std::size_t>(j)]).head(rows).setConstant(canary);
                }
                REQUIRE((to.array() == canary).all());

                detail::transform<TestType>(expected, expected, scatter);
                for (Index j = 0; j < columns; ++j)
                    REQUIRE(same_bits(to.col(chosen[static_cast<std::size_t>(j)]).head(rows),
                                      expected.col(j)));
            }
}

TEMPLATE_TEST_CASE("transform: each entry once, in place and out of place, and nothing around",
                   "[epilogue]", float, double) {
    using detail::AddMatrix, detail::ApplyElementwise, detail::Then;
    Philox random{16};
    // Not idempotent, so that an entry which went through twice shows.
    const auto layer = elementwise<TestType>([](TestType z) { return TestType(3) - z; });
    for (Index rows = 0; rows <= 70; ++rows)
        for (const Index columns : {0, 1, 2, 9}) {
            const Matrix<TestType> x = random_matrix<TestType>(random, rows + 3, columns + 1);
            const Matrix<TestType> shift = random_matrix<TestType>(random, rows, columns);
            const Then epilogue{ApplyElementwise<std::remove_const_t<decltype(layer)>>{layer},
                                AddMatrix<TestType>{shift.data(), rows}};
            Matrix<TestType> expected(rows, columns);
            for (Index j = 0; j < columns; ++j)
                for (Index i = 0; i < rows; ++i)
                    expected(i, j) = shift(i, j) + (TestType(3) - x(i + 1, j + 1));

            const auto part = x.block(1, 1, rows, columns);
            Matrix<TestType> out = Matrix<TestType>::Constant(rows + 2, columns + 2, TestType(77));
            detail::transform<TestType>(part, out.block(1, 1, rows, columns), epilogue);
            CAPTURE(rows, columns);
            REQUIRE(same_bits(out.block(1, 1, rows, columns), expected));
            out.block(1, 1, rows, columns).setConstant(TestType(77));
            REQUIRE((out.array() == TestType(77)).all());

            Matrix<TestType> in_place = x;
            auto here = in_place.block(1, 1, rows, columns);
            detail::transform<TestType>(here, here, epilogue);
            REQUIRE(same_bits(here, expected));
            here = part;
            REQUIRE(same_bits(in_place, x));
        }
}

}  // namespace
