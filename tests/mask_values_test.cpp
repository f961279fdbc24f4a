// SPDX-License-Identifier: MIT
#include <stochastic_depth/expectation/mask_values.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/own_networks.hpp"
#include "support/plain_network.hpp"
#include "support/refusals.hpp"
#include "support/structures.hpp"

namespace {

using namespace stochastic_depth;
using test::refuses;

using Branch = plain::OneLinear<double, Tanh<double>>;

auto network_of(Philox& random, std::size_t depth) {
    return plain::random_network(random, {depth, 4, 1, plain::Activation::tanh, true});
}

TEST_CASE("mask_outputs: 200 random networks, every mask in plain loops of long double",
          "[mask_values]") {
    Philox random{11};
    for (std::size_t trial = 0; trial < 200; ++trial) {
        const plain::Network network = network_of(random, trial % 7);
        const auto library = plain::to_library<Branch>(network);
        const Matrix<double> x =
            test::random_matrix<double>(random, 3, static_cast<Index>(trial % 4));
        const Matrix<double> table = mask_outputs(library, x);
        REQUIRE(table.rows() == Index{1} << trial % 7);
        REQUIRE(table.cols() == 2 * x.cols());
        double worst = 0;
        for (Index mask = 0; mask < table.rows(); ++mask)
            for (Index j = 0; j < x.cols(); ++j) {
                const auto y = network(plain::column(x, j), static_cast<std::uint64_t>(mask));
                for (Index i = 0; i < 2; ++i) {
                    const double expected = static_cast<double>(y[static_cast<std::size_t>(i)]);
                    const double error = std::abs(table(mask, i + 2 * j) - expected);
                    if (!(error <= worst)) worst = error;
                }
            }
        CHECK(worst < 1e-13);
    }
}

/// The table has the bits of masked passes, whatever a mask says of layers inside a skipped one.
template <class Network>
void check_bits(const Network& network, const Matrix<double>& x) {
    const auto score = [](const Matrix<double>& y) { return y.squaredNorm() - y(0, 0); };
    const Eigen::VectorXd values = mask_values(network, x, score);
    const Matrix<double> outputs = mask_outputs(network, x, {.threads = 2});
    REQUIRE(values.size() == Index{1} << network.depth());
    for (Index k = 0; k < values.size(); ++k) {
        const SurvivalMask mask = mask_at(k, network.depth());
        REQUIRE(index_of(mask) == k);
        const Matrix<double> y = network(x, mask);
        const Eigen::Map<const Eigen::VectorXd> column(y.data(), y.size());
        CHECK(values(k) == score(y));
        CHECK(test::same_bits(Eigen::VectorXd(outputs.row(k).transpose()), column));
    }
}

TEST_CASE("mask_values: skippable layers in all places, the user's own composite among them",
          "[mask_values]") {
    test::Structures make{5};
    Philox random{6};
    check_bits(make.nested(), test::random_matrix<double>(random, 5, 3));
    check_bits(make.residual_around(), test::random_matrix<double>(random, 6, 70));
    check_bits(make.own_shortcuts(), test::random_matrix<double>(random, 4, 1));
    check_bits(make.not_residual(), test::random_matrix<double>(random, 6, 2));
    check_bits(own::mixed_network(7), test::random_matrix<double>(random, 3, 5));
}

TEST_CASE("mask_values: the same bits for any number of threads and any batch", "[mask_values]") {
    Philox random{12};
    const auto network = plain::to_library<plain::OneLinear<float, Tanh<float>>>(
        network_of(random, 9));
    const auto score = [](const ConstMatrixRef<float>& y) { return y.sum(); };
    for (const Index batch : {1, 3, 500}) {
        const Matrix<float> x = test::random_matrix<float>(random, 3, batch);
        const Eigen::VectorXd one = mask_values(network, x, score);
        CHECK(test::same_bits(mask_values(network, x, score, {.threads = 3}), one));
        const Matrix<double> outputs = mask_outputs(network, x);
        CHECK(test::same_bits(Matrix<double>(outputs.middleCols(2 * (batch - 1), 2)),
                              mask_outputs(network, x.rightCols(1))));
        CHECK(one(5) == static_cast<double>(score(network(x, mask_at(5, 9)))));
    }
}

TEST_CASE("mask_values: a score may be no number, and be told of no columns", "[mask_values]") {
    Philox random{13};
    const auto network = plain::to_library<Branch>(network_of(random, 3));
    const auto columns = [](const ConstMatrixRef<double>& y) {
        return y.cols() == 0 ? test::nan : test::inf;
    };
    const Eigen::VectorXd none = mask_values(network, Matrix<double>(3, 0), columns);
    CHECK(none.size() == 8);
    CHECK(none.array().isNaN().all());
    CHECK(mask_values(network, Matrix<double>::Ones(3, 1), columns)(7) == test::inf);
}

TEST_CASE("mask_values: budgets, and what it refuses", "[mask_values]") {
    Philox random{14};
    const auto network = plain::to_library<Branch>(network_of(random, 10));
    const Matrix<double> x = Matrix<double>::Ones(3, 2);
    int calls = 0;
    const auto score = [&](const Matrix<double>& y) { return ++calls, y.sum(); };
    const auto uncalled = [&] { return calls == 0; };
    refuses([&] { (void)mask_values(network, x, score, {.threads = 0}); },
            {"mask_values: threads must be at least 1, got 0"}, uncalled);
    refuses([&] { (void)mask_values(network, x.topRows(2), score); },
            {"Linear: input must have 3 rows", "got 2"}, uncalled);
    refuses<std::length_error>(
        [&] { (void)mask_values(network, x, score, {.max_layer_evaluations = 1022}); },
        {"mask_values: depth 10 takes 1023 layer evaluations", "max_layer_evaluations is 1022"},
        uncalled);
    refuses<std::length_error>(
        [&] { (void)mask_values(network, x, score, {.max_bytes = 8191}); },
        {"mask_values: depth 10 takes a table of 8192 bytes", "max_bytes is 8191"}, uncalled);
    refuses<std::length_error>([&] { (void)mask_outputs(network, x, {.max_bytes = 32767}); },
                               {"mask_outputs: depth 10 takes a table of 32768 bytes"});
    CHECK_NOTHROW(mask_values(network, x, score,
                              {.max_layer_evaluations = 1023, .max_bytes = 8192}));
    CHECK(calls == 1024);
    double done = 0;
    CHECK_THROWS_AS(mask_values(network, x, score,
                                {.progress = [&](double part) { return (done = part) < 0.5; }}),
                    Cancelled);
    CHECK(done >= 0.5);

    refuses([&] { (void)mask_at(8, 3); }, {"mask_at: index must lie in [0, 2^3), got 8"});
    refuses([&] { (void)mask_at(-1, 3); }, {"mask_at: index", "got -1"});
    refuses([&] { (void)mask_at(0, 63); }, {"mask_at: depth must lie in [0, 62], got 63"});
    refuses([&] { (void)index_of(SurvivalMask::all(63)); },
            {"index_of: mask must have at most 62 layers, got 63"});
    CHECK(index_of(SurvivalMask{}) == 0);
    CHECK(index_of(SurvivalMask{1, 0, 0, 1}) == 9);
}

}  // namespace
