// SPDX-License-Identifier: MIT
#include <stochastic_depth/training/assign_parameters.hpp>

#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/normalisation/batch_norm.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/parameters.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::MatrixXf;
using Eigen::VectorXf;
using test::refusal;

using Block = StochasticDepth<Residual<Linear<float>>>;
using Network = Sequential<Linear<float>, BatchNorm<float>, Block>;
using Source = std::map<std::string, RowMajorMatrix<float>>;

Network zeros() {
    return Network{Linear<float>{MatrixXf::Zero(3, 2), VectorXf::Zero(3)}, BatchNorm<float>{3},
                   Block{Residual{Linear<float>{MatrixXf::Zero(3, 3), VectorXf::Zero(3)}},
                         SurvivalProbability{0.5}}};
}

/// Entry (i, j) of the k-th matrix is 100 k + 10 i + j.
Source numbered() {
    Source source;
    float first = 0;
    const auto add = [&](const char* path, Index rows, Index columns) {
        RowMajorMatrix<float>& matrix = source[path];
        matrix.resize(rows, columns);
        for (Index i = 0; i < rows; ++i)
            for (Index j = 0; j < columns; ++j)
                matrix(i, j) = first + static_cast<float>(10 * i + j);
        first += 100;
    };
    add("0.weights", 3, 2);
    add("0.bias", 3, 1);
    add("1.gain", 3, 1);
    add("1.bias", 3, 1);
    add("2.branch.weights", 3, 3);
    add("2.branch.bias", 3, 1);
    add("1.running_mean", 3, 1);
    add("1.running_variance", 3, 1);
    return source;
}

TEST_CASE("assign_parameters: row-major matrices arrive by their paths, statistics too",
          "[assign_parameters]") {
    Network network = zeros();
    assign_parameters(network, numbered());
    const auto& [linear, norm, block] = network.layers();
    CHECK(linear.weights() == MatrixXf{{0, 1}, {10, 11}, {20, 21}});
    CHECK(linear.bias() == VectorXf{{100, 110, 120}});
    CHECK(norm.gain() == VectorXf{{200, 210, 220}});
    CHECK(block.layer().branch().weights() ==
          MatrixXf{{400, 401, 402}, {410, 411, 412}, {420, 421, 422}});
    CHECK(norm.running_mean() == VectorXf{{600, 610, 620}});
    CHECK(norm.running_variance() == VectorXf{{700, 710, 720}});
}

TEST_CASE("assign_parameters: maps of foreign memory, column-major and double sources",
          "[assign_parameters]") {
    Network network = zeros(), expected = zeros();
    const Source source = numbered();
    assign_parameters(expected, source);
    std::map<std::string, Eigen::Map<const RowMajorMatrix<float>>> in_place;
    std::vector<std::pair<const char*, Eigen::MatrixXd>> listed;
    for (const auto& [path, matrix] : source) {
        in_place.emplace(path, Eigen::Map<const RowMajorMatrix<float>>{matrix.data(), matrix.rows(),
                                                                       matrix.cols()});
        listed.emplace_back(path.c_str(), matrix.cast<double>());
    }
    assign_parameters(network, in_place);
    CHECK(test::same_bits(test::parameters(network), test::parameters(expected)));
    network = zeros();
    assign_parameters(network, listed);
    CHECK(test::same_bits(test::parameters(network), test::parameters(expected)));
}

TEST_CASE("assign_parameters: one missing, unknown, twice there or misshapen, and none is assigned",
          "[assign_parameters]") {
    Network network = zeros();
    const auto unchanged = [&] {
        return test::same_bits(test::parameters(network), test::parameters(zeros())) &&
               (std::get<1>(network.layers()).running_variance().array() == 1).all();
    };
    const auto refused = [&](const auto& change) {
        Source source = numbered();
        change(source);
        return refusal([&] { assign_parameters(network, source); });
    };
    CHECK(refused([](Source& source) { source.erase("2.branch.bias"); }) ==
          "assign_parameters: source must have 2.branch.bias [3 x 1], got none");
    CHECK(refused([](Source& source) { source.erase("1.running_variance"); }) ==
          "assign_parameters: source must have 1.running_variance [3 x 1], got none");
    CHECK(refused([](Source& source) { source["0.weights"].resize(2, 3); }) ==
          "assign_parameters: 0.weights must be [3 x 2], got [2 x 3]");
    CHECK(refused([](Source& source) { source["1.running_mean"].resize(1, 3); }) ==
          "assign_parameters: 1.running_mean must be [3 x 1], got [1 x 3]");
    CHECK(refused([](Source& source) { source["2.branch.scale"].setZero(1, 1); }) ==
          "assign_parameters: source must have paths of the network alone, got 2.branch.scale");
    CHECK(refused([](Source& source) { source.clear(); }) ==
          "assign_parameters: source must have 0.weights [3 x 2], got none");
    std::vector<std::pair<std::string, MatrixXf>> twice;
    for (const auto& [path, matrix] : numbered()) twice.emplace_back(path, matrix);
    twice.push_back(twice[3]);
    CHECK(refusal([&] { assign_parameters(network, twice); }) ==
          "assign_parameters: source must have each path once, got " + twice[3].first + " twice");
    CHECK(unchanged());
}

}  // namespace
