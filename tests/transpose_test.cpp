// SPDX-License-Identifier: MIT
#include <stochastic_depth/kernels/transpose.hpp>

#include <cstddef>
#include <limits>
#include <vector>

#include <stochastic_depth/random/philox.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"

namespace {

using namespace stochastic_depth;

constexpr int canary = -77;

/// Transposes a matrix whose columns lie apart, with NaN in the gaps, into one whose columns lie
/// apart, which must stay as they were around it. `shift` moves both off every alignment.
template <class Scalar>
void check(Philox& random, Index rows, Index columns, Index gap, Index to_gap, Index shift) {
    const Index stride = rows + gap, to_stride = columns + to_gap;
    const auto size = [](Index count) { return static_cast<std::size_t>(count); };
    std::vector<Scalar> from(size(shift + columns * stride),
                             std::numeric_limits<Scalar>::quiet_NaN());
    std::vector<Scalar> to(size(shift + rows * to_stride + 64), Scalar(canary));
    const Matrix<Scalar> numbers = test::random_matrix<Scalar>(random, rows, columns);
    for (Index j = 0; j < columns; ++j)
        for (Index i = 0; i < rows; ++i) from[size(shift + i + j * stride)] = numbers(i, j);
    detail::transpose(rows, columns, from.data() + shift, stride, to.data() + shift, to_stride);
    CAPTURE(rows, columns, gap, to_gap, shift, sizeof(Scalar));
    bool all_there = true;
    for (Index j = 0; j < columns; ++j)
        for (Index i = 0; i < rows; ++i) {
            Scalar& entry = to[size(shift + j + i * to_stride)];
            all_there = all_there && entry == numbers(i, j);
            entry = Scalar(canary);
        }
    REQUIRE(all_there);
    bool others_untouched = true;
    for (const Scalar entry : to) others_untouched = others_untouched && entry == Scalar(canary);
    REQUIRE(others_untouched);
}

TEMPLATE_TEST_CASE("transpose: every entry in its place and nothing around, for all small shapes",
                   "[transpose]", float, double) {
    Philox random{1};
    for (Index rows = 0; rows <= 37; ++rows)
        for (Index columns = 0; columns <= 37; ++columns)
            check<TestType>(random, rows, columns, (rows + columns) % 4, columns % 3, rows % 2);
}

TEMPLATE_TEST_CASE("transpose: the same far beyond what is fetched ahead, and off the alignment",
                   "[transpose]", float, double) {
    Philox random{2};
    for (const Index rows : {1, 15, 16, 64, 127, 128, 129, 300})
        for (const Index columns : {1, 16, 31, 200})
            for (const Index shift : {0, 1, 5}) {
                check<TestType>(random, rows, columns, 0, 0, shift);
                check<TestType>(random, rows, columns, 7, 3, shift);
            }
}

TEST_CASE("transpose: numbers keep their bits, NaN and signs of zero too", "[transpose]") {
    Philox random{3};
    Matrix<double> from = test::random_matrix<double>(random, 19, 21);
    from(3, 4) = std::numeric_limits<double>::quiet_NaN();
    from(18, 20) = -std::numeric_limits<double>::infinity();
    from(0, 20) = -0.0;
    from(7, 0) = std::numeric_limits<double>::denorm_min();
    Matrix<double> to(21, 19), back(19, 21);
    detail::transpose(19, 21, from.data(), 19, to.data(), 21);
    CHECK(test::same_bits(to, from.transpose()));
    detail::transpose(21, 19, to.data(), 21, back.data(), 19);
    CHECK(test::same_bits(back, from));
}

}  // namespace
