// SPDX-License-Identifier: MIT
#include <stochastic_depth/kernels/attention.hpp>
#include <stochastic_depth/kernels/small_product.hpp>
#include <stochastic_depth/kernels/softmax_columns.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <stochastic_depth/random/philox.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/packets.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// What softmax_terms makes of each number.
template <class Scalar, int Lanes>
std::vector<Scalar> terms_of(std::vector<Scalar> x) {
    using P = detail::Packet<Scalar, Lanes>;
    for (std::size_t i = 0; i + Lanes <= x.size(); i += Lanes) {
        P packet[] = {P::load(&x[i])};
        detail::softmax_terms(packet);
        packet[0].store(&x[i]);
    }
    return x;
}

TEMPLATE_TEST_CASE("softmax_terms: exponentials of numbers up to 0, at most 1.1 units off",
                   "[attention]", float, double) {
    using Scalar = TestType;
    constexpr int lanes = detail::widest_lanes<Scalar>;
    const Scalar lowest = std::log(std::numeric_limits<Scalar>::min());
    std::vector<Scalar> x;
    for (int k = 0; k < 1 << 16; ++k)
        x.push_back(lowest * Scalar(0.995) * static_cast<Scalar>(k) / Scalar(1 << 16));
    for (int k = 0; k < 64; ++k) x.push_back(-std::ldexp(Scalar(1), -k));
    const std::vector<Scalar> y = terms_of<Scalar, lanes>(x);
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const long double exact = std::exp(static_cast<long double>(x[i]));
        const auto unit = static_cast<long double>(
            std::ldexp(std::numeric_limits<Scalar>::epsilon(), std::ilogb(exact)));
        worst = std::max(worst, static_cast<double>(std::abs(y[i] - exact) / unit));
    }
    CAPTURE(worst);
    CHECK(worst <= (std::is_same_v<Scalar, float> ? 1.1 : 1.2));
    test::for_each_width<Scalar>(
        [&](auto width) { CHECK(terms_of<Scalar, decltype(width)::value>(x) == y); });
}

TEMPLATE_TEST_CASE("softmax_terms: 1 of 0, 0 of what is far below, NaN of NaN", "[attention]",
                   float, double) {
    using Scalar = TestType;
    constexpr Scalar infinity = std::numeric_limits<Scalar>::infinity();
    test::for_each_width<Scalar>([&](auto width) {
        const auto term = [&](Scalar x) {
            constexpr int lanes = decltype(width)::value;
            return terms_of<Scalar, lanes>(std::vector<Scalar>(lanes, x)).front();
        };
        CHECK(term(0) == 1);
        CHECK(term(-infinity) == 0);
        CHECK(term(std::numeric_limits<Scalar>::lowest()) == 0);
        CHECK(term(2 * std::log(std::numeric_limits<Scalar>::min())) == 0);
        CHECK(std::isnan(term(std::numeric_limits<Scalar>::quiet_NaN())));
    });
}

/// A softmax of columns, and the way back, with packets of so many lanes.
template <class Scalar>
struct Softmaxes {
    Matrix<Scalar> scores, terms, probabilities, slopes;
    Vector<Scalar> maxima, inverses;

    template <int Lanes>
    void run(Scalar scale) {
        const Index rows = scores.rows(), columns = scores.cols();
        terms = scores;
        probabilities = scores;
        maxima.resize(columns);
        inverses.resize(columns);
        detail::in_steps(columns, [&](Index c, auto n) {
            detail::find_maxima<Lanes, n>(rows, &terms(0, c), rows, &maxima(c));
            detail::exponentiate<Lanes, n>(rows, &terms(0, c), rows, scale, &maxima(c),
                                           &inverses(c));
            detail::differentiate_softmax<Lanes, n>(rows, scale, &maxima(c), &inverses(c),
                                                    &probabilities(0, c), &slopes(0, c), rows);
        });
    }
};

TEMPLATE_TEST_CASE(
    "Softmax of columns of scores, and its way back: equal their definition, with "
    "the same bits in packets of every width",
    "[attention]", float, double) {
    using Scalar = TestType;
    const double epsilon = std::numeric_limits<Scalar>::epsilon();
    Philox random{1};
    for (const Index keys : {1, 5, 16, 17, 70})
        for (const Index columns : {1, 4, 7}) {
            const Index rows = detail::padded_keys(keys);
            Softmaxes<Scalar> widest;
            widest.scores = 20 * random_matrix<Scalar>(random, rows, columns);
            widest.scores.bottomRows(rows - keys)
                .setConstant(-std::numeric_limits<Scalar>::infinity());
            widest.slopes = random_matrix<Scalar>(random, rows, columns);
            const Matrix<Scalar> slopes = widest.slopes;
            const Softmaxes<Scalar> before = widest;
            const Scalar scale = Scalar(0.3);
            widest.template run<detail::widest_lanes<Scalar>>(scale);
            for (Index c = 0; c < columns; ++c) {
                const Scalar largest = widest.scores.col(c).maxCoeff();
                CHECK(widest.maxima(c) == largest);
                Vector<double> p(keys);
                for (Index s = 0; s < keys; ++s)
                    p(s) = std::exp(static_cast<double>(scale) *
                                    static_cast<double>(widest.scores(s, c) - largest));
                p /= p.sum();
                double mean = 0;
                for (Index s = 0; s < keys; ++s) mean += p(s) * static_cast<double>(slopes(s, c));
                for (Index s = 0; s < rows; ++s) {
                    CAPTURE(keys, columns, s, c);
                    const double exact = s < keys ? p(s) : 0;
                    // The exponent is rounded to a part of its size.
                    const double tolerance = 40 * epsilon * exact;
                    CHECK(std::abs(static_cast<double>(widest.terms(s, c) * widest.inverses(c)) -
                                   exact) <= tolerance);
                    CHECK(std::abs(static_cast<double>(widest.probabilities(s, c)) - exact) <=
                          tolerance);
                    const double slope = static_cast<double>(scale) * exact *
                                         (static_cast<double>(slopes(s, c)) - mean);
                    CHECK(std::abs(static_cast<double>(widest.slopes(s, c)) - slope) <=
                          100 * epsilon * exact);
                }
            }
            test::for_each_width<Scalar>([&](auto lanes) {
                Softmaxes<Scalar> other = before;
                other.template run<decltype(lanes)::value>(scale);
                CHECK(same_bits(other.terms, widest.terms));
                CHECK(same_bits(other.maxima, widest.maxima));
                CHECK(same_bits(other.inverses, widest.inverses));
                CHECK(same_bits(other.probabilities, widest.probabilities));
                CHECK(same_bits(other.slopes, widest.slopes));
            });
        }
}

TEST_CASE("small_product: sums in the order of its definition, whatever its size", "[attention]") {
    Philox random{2};
    for (const Index rows : {1, 3, 8, 13, 16, 31, 48, 70})
        for (const Index columns : {1, 2, 3, 7, 16, 21})
            for (const Index inner : {1, 5, 16}) {
                const Matrix<float> left = random_matrix<float>(random, rows, inner);
                const Matrix<float> right = random_matrix<float>(random, inner, columns);
                const Vector<float> factors = random_matrix<float>(random, columns, 1);
                Matrix<float> plain(rows, columns), scaled(rows, columns);
                const auto operands = [&](Matrix<float>& out) {
                    return detail::Operands<float>{{left.data(), rows},
                                                   {nullptr},
                                                   {out.data(), rows},
                                                   {right.data(), 1, inner},
                                                   inner,
                                                   {},
                                                   {},
                                                   columns};
                };
                detail::small_product<float>(rows, operands(plain));
                detail::small_product<float>(rows, operands(scaled), factors.data());
                Matrix<float> expected(rows, columns);
                detail::product<float>(rows, inner, columns, {left.data(), rows}, nullptr,
                                       {right.data(), 1, inner}, {expected.data(), rows},
                                       detail::AsIs{});
                CAPTURE(rows, columns, inner);
                CHECK(same_bits(plain, expected));
                for (Index c = 0; c < columns; ++c) expected.col(c) *= factors(c);
                CHECK(same_bits(scaled, expected));
            }
}

TEST_CASE("all_finite: sees what is not, wherever it stands", "[attention]") {
    for (const Index rows : {1, 3, 8, 21}) {
        Matrix<float> x = Matrix<float>::Constant(rows, 5, std::numeric_limits<float>::max());
        const auto is_finite = [&] {
            return detail::all_finite<detail::widest_lanes<float>>(rows, 5, x.data(), rows);
        };
        CHECK(is_finite());
        for (Index k = 0; k < x.size(); ++k)
            for (const float z : {std::numeric_limits<float>::infinity(),
                                  std::numeric_limits<float>::quiet_NaN()}) {
                const float before = x.data()[k];
                x.data()[k] = z;
                CHECK_FALSE(is_finite());
                x.data()[k] = before;
            }
    }
}

}  // namespace
