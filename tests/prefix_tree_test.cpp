// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/prefix_tree.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <vector>

#include <stochastic_depth/expectation/enumerate_masks.hpp>
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/layers/function.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/plain_network.hpp"
#include "support/probe_layers.hpp"
#include "support/structures.hpp"

namespace {

using namespace stochastic_depth;
using plain::OneLinear;
using plain::TwoLinears;
using test::same_bits;

/// Mean and variance by the listed masks, in long double; errors relative to the column's largest
/// entry.
template <class Network>
void check_against_enumeration(const Network& network, const Eigen::MatrixXd& x) {
    const auto exact = ExactExpectation{}(network, x);
    const auto rows = enumerate_masks(network, x);
    using LongArray = Eigen::Array<long double, Eigen::Dynamic, Eigen::Dynamic>;
    const auto average = [&](const auto& term) {
        LongArray sum = LongArray::Zero(exact.mean.rows(), exact.mean.cols());
        for (const auto& row : rows)
            sum += static_cast<long double>(row.probability) *
                   LongArray(term(LongArray(row.output.template cast<long double>())));
        return sum;
    };
    const LongArray mean = average([](const LongArray& y) { return y; });
    const LongArray variance = average([&](const LongArray& y) { return (y - mean).square(); });
    REQUIRE(exact.mean.allFinite());
    for (Index j = 0; j < x.cols(); ++j) {
        const long double size = mean.col(j).abs().maxCoeff();
        const long double spread = variance.col(j).maxCoeff();
        for (Index i = 0; i < mean.rows(); ++i) {
            CHECK(std::abs(exact.mean(i, j) - mean(i, j)) <= 1e-13L * size);
            CHECK(std::abs(exact.variance(i, j) - variance(i, j)) <= 1e-13L * spread);
        }
    }
}

template <class Network, class Scalar>
void check_threads(const Network& network, const Matrix<Scalar>& x) {
    const auto one = ExactExpectation{}(network, x);
    REQUIRE(one.mean.allFinite());
    for (const unsigned threads : {2u, 3u, 8u}) {
        const auto many = ExactExpectation{{.threads = threads}}(network, x);
        INFO("threads " << threads << ", L = " << network.depth() << ", batch " << x.cols());
        CHECK(same_bits(many.mean, one.mean));
        CHECK(same_bits(many.variance, one.variance));
        CHECK(many.layer_evaluations == one.layer_evaluations);
    }
}

template <class Network, class Scalar>
void check_columns(const Network& network, const Matrix<Scalar>& x, unsigned threads = 1) {
    const ExactExpectation exact{{.threads = threads}};
    const auto together = exact(network, x);
    REQUIRE(together.mean.allFinite());
    for (Index j = 0; j < x.cols(); ++j) {
        const auto alone = exact(network, x.col(j));
        INFO("column " << j << " of " << x.cols() << ", L = " << network.depth() << ", " << x.rows()
                       << " rows");
        REQUIRE(same_bits(alone.mean, together.mean.col(j)));
        REQUIRE(same_bits(alone.variance, together.variance.col(j)));
    }
}

StochasticDepth<probe::Counted> counted(std::atomic<long>& columns, double p) {
    return {probe::Counted{&columns}, SurvivalProbability{p}};
}

TEST_CASE("PrefixTree: every structure has the moments of its listed masks", "[prefix_tree]") {
    test::Structures make{71};
    Philox random{72};
    for (const Index batch : {1, 3}) {
        check_against_enumeration(make.nested(), test::random_matrix<double>(random, 5, batch));
        check_against_enumeration(make.residual_around(),
                                  test::random_matrix<double>(random, 6, batch));
        check_against_enumeration(make.own_shortcuts(),
                                  test::random_matrix<double>(random, 4, batch));
        check_against_enumeration(make.not_residual(),
                                  test::random_matrix<double>(random, 6, batch));
        check_against_enumeration(make.fixed(), test::random_matrix<double>(random, 4, batch));
    }
}

TEST_CASE(
    "PrefixTree: every structure has the same bits for any number of threads, and in any batch",
    "[prefix_tree]") {
    test::Structures make{71};
    Philox random{73};
    const auto check = [&](const auto& network, Index rows) {
        check_threads(network, test::random_matrix<double>(random, rows, 500));
        check_columns(network, test::random_matrix<double>(random, rows, 9));
        check_columns(network, test::random_matrix<double>(random, rows, 200), 3);
    };
    check(make.nested(), 5);
    check(make.residual_around(), 6);
    check(make.own_shortcuts(), 4);
    check(make.not_residual(), 6);
    check(make.fixed(), 4);
}

TEST_CASE("PrefixTree: layer l of a chain runs 2^(l - 1) times for each column", "[prefix_tree]") {
    for (const Index depth : {1, 2, 5, 12})
        for (const Index batch : {1, 7, 97}) {
            if (depth == 12 && batch == 97) continue;
            for (const unsigned threads : {1u, 3u}) {
                std::vector<std::atomic<long>> columns(static_cast<std::size_t>(depth));
                std::vector<StochasticDepth<probe::Counted>> layers;
                for (auto& counter : columns) layers.push_back(counted(counter, 0.7));
                const auto exact = ExactExpectation{{.threads = threads}}(
                    Stack{layers}, Eigen::MatrixXd(Eigen::MatrixXd::Random(3, batch)));
                CHECK(exact.layer_evaluations == std::ldexp(1.0, static_cast<int>(depth)) - 1);
                for (std::size_t l = 0; l < columns.size(); ++l)
                    CHECK(columns[l] == (long{1} << l) * batch);
            }
        }
}

TEST_CASE("PrefixTree: what a mask cannot reach does not run", "[prefix_tree]") {
    const Eigen::MatrixXd x = Eigen::MatrixXd::Random(2, 5);
    for (const unsigned threads : {1u, 2u}) {
        const ExactExpectation exact{{.threads = threads}};
        SECTION("layers inside a skipped layer, threads " + std::to_string(threads)) {
            std::atomic<long> before{0}, inner{0}, after{0}, last{0};
            const Sequential network{
                StochasticDepth{Sequential{probe::Counted{&before}, counted(inner, 0.5),
                                           probe::Counted{&after}},
                                SurvivalProbability{0.5}},
                counted(last, 0.5)};
            CHECK(exact(network, x).layer_evaluations == 5.0);
            CHECK(before == 5);     // the outer layer kept
            CHECK(inner == 5);      // the outer layer kept
            CHECK(after == 2 * 5);  // after the inner one kept, and after it skipped
            CHECK(last == 3 * 5);   // (1,1), (1,0), (0)
            check_against_enumeration(network, x);
        }
        SECTION("the skipped side of layers with p = 1, threads " + std::to_string(threads)) {
            std::atomic<long> always{0}, first{0}, second{0};
            const Sequential network{counted(always, 1.0), counted(first, 0.5),
                                     counted(always, 1.0), counted(always, 1.0),
                                     counted(second, 0.5), counted(always, 1.0)};
            // 1 and 1, 2 and 2 and 2, and 4.
            CHECK(exact(network, x).layer_evaluations == 12.0);
            CHECK(always == (1 + 2 + 2 + 4) * 5);
            CHECK(first == 1 * 5);
            CHECK(second == 2 * 5);
        }
        SECTION("thirty layers with p = 1 and nothing else, threads " + std::to_string(threads)) {
            std::atomic<long> always{0};
            const Stack network{
                std::vector<StochasticDepth<probe::Counted>>(30, counted(always, 1.0))};
            const auto sum = exact(network, x);
            CHECK(sum.layer_evaluations == 30.0);
            CHECK(always == 30 * 5);
            CHECK((sum.variance.array() == 0.0).all());
            CHECK(same_bits(sum.mean, network(x, SurvivalMask::all(30))));
        }
    }
}

TEST_CASE("PrefixTree: plain layers run once for each prefix that reaches them", "[prefix_tree]") {
    std::atomic<long> stem{0}, first{0}, between{0}, second{0}, head{0};
    const Sequential network{probe::Counted{&stem}, counted(first, 0.5), probe::Counted{&between},
                             counted(second, 0.5), probe::Counted{&head}};
    CHECK(ExactExpectation{}(network, Eigen::MatrixXd::Ones(2, 3)).layer_evaluations == 3.0);
    CHECK(stem == 3);
    CHECK(first == 3);
    CHECK(between == 2 * 3);
    CHECK(second == 2 * 3);
    CHECK(head == 4 * 3);
}

TEST_CASE("PrefixTree: a residual layer hands its input to branch and shortcut alike",
          "[prefix_tree]") {
    // |x|/2 + 1 in the branch kept or skipped, and in the shortcut kept or skipped: by hand, exact.
    std::atomic<long> branch{0}, shortcut{0};
    const Sequential network{
        Residual{Sequential{counted(branch, 0.5)}, Sequential{counted(shortcut, 0.25)}}};
    const auto exact = ExactExpectation{}(network, Eigen::MatrixXd::Constant(1, 1, 4.0));
    // Branch 3 or 4 with 1/2; shortcut 3 with 1/4, else 4; they are independent.
    CHECK(exact.mean(0, 0) == 3.5 + 3.75);
    CHECK(exact.variance(0, 0) == 0.25 + 0.1875);
    CHECK(exact.layer_evaluations == 3.0);
    CHECK(branch == 1);
    CHECK(shortcut == 2);
}

TEST_CASE("PrefixTree: same bits for 1, 2, 3 and 8 threads, whatever the batch and the depth",
          "[prefix_tree]") {
    using Branch = TwoLinears<double, ReLU<double>>;
    Philox random{81};
    for (std::size_t depth = 1; depth <= 12; ++depth) {
        const auto network = plain::to_library<Branch>(
            plain::random_network(random, {depth, 9, 2, plain::Activation::relu, true}));
        for (const Index batch : {1, 2, 7, 97, 500})
            // At most 100,000 columns below the tree: with 8 threads enough to be dealt out.
            if (batch << depth <= 100'000)
                check_threads(network, test::random_matrix<double>(random, 3, batch));
    }
    SECTION("and in twenty runs of each number of threads") {
        const auto network = plain::to_blocks<OneLinear<float, ReLU<float>>>(
            plain::random_network(random, {14, 16, 1, plain::Activation::relu, false}));
        const Matrix<float> x = test::random_matrix<float>(random, 16, 1);
        const auto expected = ExactExpectation{}(network, x);
        for (const unsigned threads : {1u, 2u, 3u, 4u, 7u, 8u, 16u})
            for (int run = 0; run < 20; ++run) {
                const auto result = ExactExpectation{{.threads = threads}}(network, x);
                REQUIRE(test::same_bits(result.mean, expected.mean));
                REQUIRE(test::same_bits(result.variance, expected.variance));
            }
    }
    SECTION("blocks of few columns, for wide layers") {
        const auto wide = plain::to_blocks<OneLinear<float, ReLU<float>>>(
            plain::random_network(random, {9, 131, 1, plain::Activation::relu, false}));
        for (const Index batch : {1, 7, 30})
            check_threads(wide, test::random_matrix<float>(random, 131, batch));
    }
}

TEST_CASE("PrefixTree: a column has the same bits alone and in a batch", "[prefix_tree]") {
    Philox random{82};
    using plain::Activation;
    for (const std::size_t depth : {1u, 4u, 8u})
        for (const std::size_t width : {1u, 2u, 5u, 8u, 17u}) {
            const auto rows = static_cast<Index>(width);
            const auto bare =
                plain::random_network(random, {depth, width, 2, Activation::tanh, false});
            check_columns(plain::to_blocks<TwoLinears<double, Tanh<double>>>(bare),
                          test::random_matrix<double>(random, rows, 29));
            check_columns(plain::to_blocks<TwoLinears<float, Tanh<float>>>(bare),
                          test::random_matrix<float>(random, rows, 29));
        }
    SECTION("with stem, head and softmax") {
        const auto network = plain::random_network(random, {7, 12, 1, Activation::relu, true});
        check_columns(Sequential{plain::to_library<OneLinear<double, ReLU<double>>>(network),
                                 Softmax<double>{}},
                      test::random_matrix<double>(random, 3, 97), 2);
    }
}

}  // namespace
