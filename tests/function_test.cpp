// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/function.hpp>

#include <string>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/layer_contract.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

TEST_CASE("Function: a lambda is a layer", "[function]") {
    Philox random{1};
    const auto centre = function<double>([](const auto& x) {
        return x.rowwise() - column_sums(x) / static_cast<double>(x.rows());
    });
    CHECK(centre.output_size(5) == 5);
    const Matrix<double> x = random_matrix<double>(random, 5, 4);
    const Matrix<double> y = run(centre, x);
    for (Index j = 0; j < 4; ++j) {
        CHECK(std::abs(y.col(j).sum()) <= 1e-15);
        for (Index i = 0; i < 5; ++i)
            CHECK(std::abs(y(i, j) - (x(i, j) - x.col(j).sum() / 5)) <= 1e-15);
    }
}

TEST_CASE("Function: a number of outputs of its own", "[function]") {
    const auto norms = function<float>([](const auto& x) { return x.colwise().norm(); }, 1);
    CHECK(norms.output_size(7) == 1);
    Matrix<float> x(2, 3);
    x << 3, 5, 0, 4, 12, 0;
    CHECK(run(norms, x) == (Matrix<float>(1, 3) << 5, 13, 0).finished());
    CHECK(run(norms, x.leftCols(0)).cols() == 0);
}

TEST_CASE("Function: captures are copied with the layer", "[function]") {
    std::vector<double> slopes{2, 3};
    const auto line = [&slopes] {
        return function<double>([slope = slopes](const auto& x) { return slope[0] * x; });
    }();
    const auto copy = line;
    slopes[0] = 100;
    const Matrix<double> x = Matrix<double>::Ones(2, 2);
    CHECK(run(line, x) == 2 * x);
    CHECK(run(copy, x) == 2 * x);
}

TEST_CASE("Function: stands anywhere in a network", "[function]") {
    Philox random{2};
    const auto twice = function<double>([](const auto& x) { return 2.0 * x; });
    const Linear<double> linear{4, 4, random};
    const Sequential network{
        twice, StochasticDepth{Residual{twice}, SurvivalProbability{0.5}},
        StochasticDepth{Residual{Sequential{linear, twice}, twice}, SurvivalProbability{0.5}},
        ReLU<double>{}};
    const Matrix<double> x = random_matrix<double>(random, 4, 3);
    CHECK(network(x, SurvivalMask{0, 0}) == (4 * x).cwiseMax(0));
    CHECK(network(x, SurvivalMask{1, 0}) == (12 * x).cwiseMax(0));
    const Matrix<double> h = 6 * x;
    const Matrix<double> full = 2 * h + 2 * run(linear, h);
    CHECK(largest_difference(network(x, SurvivalMask{1, 1}), full.cwiseMax(0)) <= 1e-14);
}

TEST_CASE("Function: bad sizes are refused by name, the output untouched", "[function]") {
    const auto same = [](const auto& x) { return Matrix<double>(x); };
    CHECK(refusal([&] { (void)function<double>(same, 0); }) ==
          "Function: outputs must be at least 1, got 0");
    CHECK(refusal([&] { (void)function<double>(same, -7); }) ==
          "Function: outputs must be at least 1, got -7");
    CHECK(refusal([&] { (void)function<double>(same, Eigen::Dynamic); }) == "accepted");

    const Matrix<double> x = Matrix<double>::Ones(4, 3);
    Matrix<double> y = Matrix<double>::Constant(2, 3, 77);
    // The callable's result is not what `outputs` promised.
    CHECK(refusal([&] { function<double>(same, 2).forward(x, y); }) ==
          "Function: result must be [2 x 3], got [4 x 3]");
    const auto fewer_columns = [](const auto& z) { return Matrix<double>(z.topLeftCorner(2, 2)); };
    CHECK(refusal([&] { function<double>(fewer_columns, 2).forward(x, y); }) ==
          "Function: result must be [2 x 3], got [2 x 2]");
    CHECK(refusal([&] { function<double>(same).forward(x, y); }) ==
          "Function: output must have 4 rows, got 2");
    CHECK((y.array() == 77).all());
}

}  // namespace
