// SPDX-License-Identifier: MIT
#include <stochastic_depth/kernels/columns.hpp>

#include <cstddef>
#include <vector>

#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::detail;

}  // namespace

// Rows of each length that is moved in another way, columns apart in both matrices.
TEMPLATE_TEST_CASE("columns: gathering takes the chosen ones, in order, and writes nothing else",
                   "[columns]", float, double) {
    const std::vector<Index> chosen{4, 0, 0, 6, 3};
    const auto count = static_cast<Index>(chosen.size());
    for (Index rows = 0; rows <= 70; ++rows) {
        CAPTURE(rows);
        Matrix<TestType> from(rows + 2, 7);
        Matrix<TestType> to = Matrix<TestType>::Constant(rows + 3, count + 1, -1);
        for (Index k = 0; k < from.size(); ++k) from.data()[k] = static_cast<TestType>(k);
        gather(const_view(from.middleRows(1, rows)), chosen.data(),
               view(to.block(1, 0, rows, count)));
        Matrix<TestType> expected = Matrix<TestType>::Constant(rows + 3, count + 1, -1);
        for (Index k = 0; k < count; ++k)
            for (Index i = 0; i < rows; ++i)
                expected(1 + i, k) = from(1 + i, chosen[static_cast<std::size_t>(k)]);
        CHECK(to == expected);
        Matrix<TestType> back = Matrix<TestType>::Constant(rows + 2, 7, -1);
        scatter(const_view(to.block(1, 0, rows, count)), chosen.data(),
                view(back.middleRows(1, rows)));
        for (const Index j : chosen)
            CHECK(back.col(j).segment(1, rows) == from.col(j).segment(1, rows));
        CHECK(back.col(1) == Matrix<TestType>::Constant(rows + 2, 1, -1));
    }
}

TEST_CASE("columns: those that are not chosen, in order", "[columns]") {
    const std::vector<Index> chosen{0, 3, 4};
    std::vector<Index> others(4);
    list_others(7, chosen.data(), 3, others.data());
    CHECK(others == std::vector<Index>{1, 2, 5, 6});
    list_others(4, nullptr, 0, others.data());
    CHECK(others == std::vector<Index>{0, 1, 2, 3});
}
