// SPDX-License-Identifier: MIT
#include <stochastic_depth/pass/structure.hpp>

#include <string>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/dropout.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/function.hpp>
#include <stochastic_depth/layers/normalisation/batch_norm.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "../examples/own_composite.hpp"
#include "support/catch.hpp"

namespace {

using namespace stochastic_depth;

template <class>
struct Outer {
    struct Inner {
        double value(double z) const { return z; }
        using Scalar = double;
    };
};
struct Swish : Outer<int>::Inner {
    static constexpr const char* name = "SiLU";
};
struct Described {
    std::string description() const { return "own words"; }
};

template <class Type>
std::string local_name() {
    struct Local {};
    return std::string(detail::name_of<Local>());
}

TEST_CASE("name_of: the same words with every compiler", "[structure]") {
    const auto lambda = [](int) {};
    CHECK(detail::name_of<int>() == "int");
    CHECK(detail::name_of<Linear<float>>() == "Linear");
    CHECK(detail::name_of<Described>() == "Described");
    CHECK(detail::name_of<Outer<Linear<float>>::Inner>() == "Inner");
    CHECK(detail::name_of<decltype(lambda)>() == "unnamed");
    CHECK(local_name<Linear<float>>() == "Local");
}

TEST_CASE("describe: a line for each layer, outer before inner", "[structure]") {
    Philox random{1};
    const StochasticDepth block{
        Residual{Sequential{Linear<float>{3, 3, random}, ReLU<float>{}}}, SurvivalProbability{0.1}};
    const auto lambda = function<float>([](const auto& x) { return 2 * x; });
    CHECK(describe(Sequential{Stack{std::vector{block, block}}, BatchNorm<float>{3},
                              Dropout<float>{0.25}, lambda}) ==
          "Sequential\n"
          "0: Stack\n"
          "0.0: StochasticDepth, survival probability 0.1\n"
          "0.0: Residual\n"
          "0.0.branch: Sequential\n"
          "0.0.branch.0: Linear 3 -> 3\n"
          "0.0.branch.1: ReLU\n"
          "0.0.shortcut: Identity\n"
          "0.1: StochasticDepth, survival probability 0.1\n"
          "0.1: Residual\n"
          "0.1.branch: Sequential\n"
          "0.1.branch.0: Linear 3 -> 3\n"
          "0.1.branch.1: ReLU\n"
          "0.1.shortcut: Identity\n"
          "1: BatchNorm 3, epsilon 1e-05\n"
          "2: Dropout, rate 0.25\n"
          "3: Function\n");
    CHECK(describe(Stack{std::vector<ReLU<float>>{}}) == "Stack\n");
}

TEST_CASE("describe: layers that the library does not know", "[structure]") {
    CHECK(describe(Described{}) == "own words\n");
    CHECK(describe(Elementwise<Outer<int>::Inner>{}) == "Inner\n");
    CHECK(describe(Elementwise<Swish>{}) == "SiLU\n");
    const Linear<float> linear{Matrix<float>::Zero(1, 1), Vector<float>::Zero(1)};
    CHECK(describe(Gated{linear, ReLU<float>{}}) ==
          "Gated\ngate: Linear 1 -> 1\nbranch: ReLU\n");
    CHECK(describe(elementwise<float>([](float z) { return z; })) == "Elementwise\n");
}

}  // namespace
