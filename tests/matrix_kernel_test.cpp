// SPDX-License-Identifier: MIT
#include <stochastic_depth/kernels/matrix_kernel.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/kernels/packet_pair.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

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
struct Product {
    Index rows, inner, columns, left_stride, right_stride;
    RightFactorIs right_is;
    Start start_is;
    std::vector<Scalar> left, right, start;

    Product(Philox& random, Index rows_, Index inner_, Index columns_, RightFactorIs right_is_,
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

template <class Scalar>
void check_shapes(const std::vector<Index>& row_counts, const std::vector<Index>& inner_sizes,
                  const std::vector<Index>& column_counts) {
    Philox random{11};
    int variant = 0;
    double largest = 0;
    for (const Index rows : row_counts)
        for (const Index inner : inner_sizes) {
            ++variant;
            const Product<Scalar> factors(
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

// A single column takes taller tiles than several do.
TEMPLATE_TEST_CASE("matrix kernel: the same for one column of many rows", "[matrix_kernel]", float,
                   double) {
    check_shapes<TestType>(range(60, 140), {1, 9}, {1, 2});
    check_shapes<TestType>({255, 256, 257, 300}, {1, 9}, {1, 2});
}

// Long sums for many columns take their weights from a packed copy, and wait in the output in
// between.
TEMPLATE_TEST_CASE("matrix kernel: the same for long sums", "[matrix_kernel]", float, double) {
    check_shapes<TestType>({1, 3, 5, 8, 9, 17, 20, 33, 40, 65, 70}, {511, 512, 513, 1030},
                           {1, 6, 23, 24, 25, 40});
}

TEMPLATE_TEST_CASE("matrix kernel: no rows, no columns, no terms", "[matrix_kernel]", float,
                   double) {
    Philox random{12};
    for (const Index rows : {0, 1, 5, 33})
        for (const Index inner : {0, 1, 5})
            for (const Index columns : {0, 1, 7}) {
                const Product<TestType> factors(random, rows, inner, columns, RightFactorIs::plain,
                                                Start::vector);
                CHECK(same_bits(factors.run(columns), factors.in_ascending_order()));
            }
}

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
                   "[matrix_kernel]", float, double) {
    check_side_by_side<TestType, 2>();
    check_side_by_side<TestType, 4>();
    check_side_by_side<TestType, 8>();
    check_side_by_side<TestType, 16>();
}

TEST_CASE(
    "matrix kernel: a packet goes on to the next column where no matrix has gaps, and only there",
    "[matrix_kernel]") {
    const Matrix<float> shift = Matrix<float>::Zero(8, 2);
    const ReLU<float> relu;
    const auto epilogue = shift_and_rectify(shift, relu);
    CHECK(detail::crosses_columns(epilogue, 8));
    CHECK_FALSE(detail::crosses_columns(epilogue, 7));
    CHECK(detail::crosses_columns(detail::AsIs{}, 7));
    const auto silent = [](auto packet, Index, Index) { return packet; };
    CHECK_FALSE(detail::crosses_columns(silent, 8));
    CHECK_FALSE(detail::crosses_columns(detail::Then{epilogue, silent}, 8));
}

/// Sizes known at compile time, both or one of them, give the bits of sizes known at run time.
template <class Scalar, int Rows, int Inner>
void check_fixed() {
    Philox random{static_cast<std::uint_fast32_t>(100 * Rows + Inner)};
    for (const auto right_is : {RightFactorIs::plain, RightFactorIs::transposed})
        for (const auto start_is : {Start::zero, Start::vector}) {
            const Product<Scalar> factors(random, Rows, Inner, 20, right_is, start_is);
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
                   "[matrix_kernel]", float, double) {
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

/// Calls function(std::integral_constant<int, lanes>) for each width of packet, the widest first.
template <class Scalar, int Lanes = detail::widest_lanes<Scalar>, class Function>
void for_each_width(const Function& function) {
    function(std::integral_constant<int, Lanes>{});
    if constexpr (Lanes > 1)
        for_each_width<Scalar, detail::Packet<Scalar, Lanes>::narrower>(function);
}

TEMPLATE_TEST_CASE("matrix kernel: narrower packets give the same bits", "[matrix_kernel]", float,
                   double) {
    Philox random{13};
    for (const Index rows : {1, 4, 7, 16, 33, 67}) {
        const Product<TestType> factors(random, rows, 19, 13, RightFactorIs::plain, Start::vector);
        const Matrix<TestType> expected = factors.in_ascending_order();
        for_each_width<TestType>([&](auto lanes) {
            CAPTURE(rows, lanes());
            CHECK(same_bits(
                factors.template run<Eigen::Dynamic, Eigen::Dynamic, lanes>(13, detail::AsIs{}),
                expected));
        });
    }
}

TEMPLATE_TEST_CASE("matrix kernel: an epilogue is told its row and column, for every tile",
                   "[matrix_kernel]", float, double) {
    using detail::AddMatrix, detail::ApplyElementwise, detail::Then;
    Philox random{14};
    const ReLU<TestType> relu;
    for (Index rows = 1; rows <= 70; ++rows)
        for (const Index columns : {1, 5, 6, 7, 20}) {
            const Product<TestType> factors(random, rows, 5, columns, RightFactorIs::plain,
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
                   "[matrix_kernel]", float, double) {
    using detail::ScatterInto, detail::Then;
    Philox random{17};
    const TestType canary = TestType(77);
    // A short inner dimension; and one whose weights are packed, with sums waiting in between.
    for (const Index inner : {Index{5}, detail::packed_inner + 3})
        for (const Index rows : {1, 7, 8, 33, 64, 70})
            for (const Index columns : {1, 5, 6, 26}) {
                const Product<TestType> factors(random, rows, inner, columns, RightFactorIs::plain,
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

TEMPLATE_TEST_CASE("matrix kernel: NaN and infinity stay in their own row and column",
                   "[matrix_kernel]", float, double) {
    Philox random{15};
    Product<TestType> factors(random, 37, 6, 11, RightFactorIs::plain, Start::vector);
    const Matrix<TestType> healthy = factors.run(11);
    for (const TestType bad :
         {std::numeric_limits<TestType>::quiet_NaN(), std::numeric_limits<TestType>::infinity()}) {
        Product<TestType> sick = factors;
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

TEMPLATE_TEST_CASE("transform: each entry once, in place and out of place, and nothing around",
                   "[matrix_kernel]", float, double) {
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

/// Numbers that rounding, signs and branches could treat unlike.
template <class Scalar>
std::vector<Scalar> telling_numbers() {
    using Limits = std::numeric_limits<Scalar>;
    std::vector<Scalar> numbers{
        Scalar(0),     Scalar(-0.0),       Scalar(1),           Scalar(-1),
        Scalar(0.1),   Scalar(-0.3),       Scalar(1e-6),        Scalar(-4e-4),
        Scalar(9.5),   Scalar(-40),        Limits::max(),       Limits::lowest(),
        Limits::min(), Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN()};
    Philox random{17};
    while (numbers.size() < 512) numbers.push_back(uniform<Scalar>(random, -8, 8));
    return numbers;
}

/// Four packets of the widest kind, as one.
template <class Scalar>
using FourPackets =
    detail::PacketPair<detail::PacketPair<detail::Packet<Scalar, detail::widest_lanes<Scalar>>>>;

/// operation(packet, packet) on all telling numbers with packets of type P.
template <class P, class Scalar, class Operation>
Vector<Scalar> lane_by_lane(const std::vector<Scalar>& numbers, const Operation& operation) {
    const auto size = static_cast<Index>(numbers.size());
    const Vector<Scalar> a = Eigen::Map<const Vector<Scalar>>(numbers.data(), size);
    const Vector<Scalar> b = a.reverse();
    Vector<Scalar> result(size);
    for (Index i = 0; i < size; i += P::size)
        operation(P::load(a.data() + i), P::load(b.data() + i)).store(result.data() + i);
    return result;
}

/// Entries are equal, or both NaN: IEEE leaves a NaN's sign and payload open.
template <class A, class B>
bool same_numbers(const A& a, const B& b) {
    for (Index i = 0; i < a.size(); ++i)
        if (!(std::isnan(a(i)) ? std::isnan(b(i)) : same_bits(a.segment(i, 1), b.segment(i, 1))))
            return false;
    return a.size() == b.size();
}

TEMPLATE_TEST_CASE("Packet: every operation acts on each lane as on a scalar, in every width",
                   "[matrix_kernel]", float, double) {
    using Scalar = TestType;
    const std::vector<Scalar> numbers = telling_numbers<Scalar>();
    const auto size = static_cast<Index>(numbers.size());
    const auto check = [&](const auto& packets, const auto& scalars) {
        Vector<Scalar> expected(size);
        for (Index i = 0; i < size; ++i)
            expected(i) = scalars(numbers[static_cast<std::size_t>(i)],
                                  numbers[static_cast<std::size_t>(size - 1 - i)]);
        for_each_width<Scalar>([&](auto lanes) {
            CAPTURE(lanes());
            CHECK(same_numbers(lane_by_lane<detail::Packet<Scalar, lanes>>(numbers, packets),
                               expected));
        });
        CHECK(same_numbers(lane_by_lane<FourPackets<Scalar>>(numbers, packets), expected));
    };
    check([](auto a, auto b) { return a + b; }, [](Scalar a, Scalar b) { return a + b; });
    check([](auto a, auto b) { return a - b; }, [](Scalar a, Scalar b) { return a - b; });
    check([](auto a, auto b) { return a * b; }, [](Scalar a, Scalar b) { return a * b; });
    check([](auto a, auto b) { return multiply_add(a, b, a); },
          [](Scalar a, Scalar b) { return multiply_add(a, b, a); });
    check([](auto a, auto b) { return a.on_each_lane([](Scalar z) { return std::sin(z); }) + b; },
          [](Scalar a, Scalar b) { return std::sin(a) + b; });
    // max(a, b) is a where a is NaN, and where both are zero.
    check([](auto a, auto) { return max(a, decltype(a)::broadcast(Scalar(0))); },
          [](Scalar a, Scalar) { return a < Scalar(0) ? Scalar(0) : a; });
}

TEMPLATE_TEST_CASE("Packet: an activation gives the same bits in every width, and by itself",
                   "[matrix_kernel]", float, double) {
    const std::vector<TestType> numbers = telling_numbers<TestType>();
    const auto size = static_cast<Index>(numbers.size());
    const auto check = [&](const auto& layer) {
        Vector<TestType> expected(size);
        for (Index i = 0; i < size; ++i)
            expected(i) = layer.value(numbers[static_cast<std::size_t>(i)]);
        const detail::ApplyElementwise<std::remove_cvref_t<decltype(layer)>> apply{layer};
        const auto on_packets = [&](auto packet, auto) { return apply(packet, 0, 0); };
        for_each_width<TestType>([&](auto lanes) {
            CAPTURE(lanes());
            CHECK(same_numbers(lane_by_lane<detail::Packet<TestType, lanes>>(numbers, on_packets),
                               expected));
        });
        CHECK(same_numbers(lane_by_lane<FourPackets<TestType>>(numbers, on_packets), expected));
        return expected;
    };
    check(ReLU<TestType>{});
    check(GELU<TestType>{});
    // Within 4 units in the last place of tanh itself: the polynomial is no loose approximation.
    const Vector<TestType> tanh = check(Tanh<TestType>{});
    for (Index i = 0; i < size; ++i) {
        const auto exact =
            std::tanh(static_cast<long double>(numbers[static_cast<std::size_t>(i)]));
        CAPTURE(numbers[static_cast<std::size_t>(i)], tanh(i));
        if (std::isnan(exact))
            CHECK(std::isnan(tanh(i)));
        else
            CHECK(std::abs(tanh(i) - exact) <=
                  4 * std::abs(exact) *
                      static_cast<long double>(std::numeric_limits<TestType>::epsilon()));
    }
}

}  // namespace
