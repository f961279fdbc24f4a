// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/composition/concatenate.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>

#include <tuple>
#include <vector>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/function.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/layer_contract.hpp"
#include "support/layers.hpp"
#include "support/parameters.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

using Block = StochasticDepth<Residual<Linear<double>>>;

template <class... Layers>
concept CanConcatenate = requires {
    typename Concatenate<Layers...>;
};
static_assert(CanConcatenate<Linear<double>, Tanh<double>>);
static_assert(!CanConcatenate<>);
static_assert(!CanConcatenate<Linear<double>, Tanh<float>>);
static_assert(!CanConcatenate<Block>);
static_assert(!CanConcatenate<Linear<double>, Sequential<Linear<double>, Stack<Block>>>);

const auto halve = function<double>([](const auto& x) { return 0.5 * x; });
using Halve = std::remove_const_t<decltype(halve)>;
static_assert(DifferentiableLayer<Concatenate<Linear<double>, Tanh<double>>>);
static_assert(ForwardLayer<Concatenate<Linear<double>, Halve>>);
static_assert(!DifferentiableLayer<Concatenate<Linear<double>, Halve>>);
static_assert(!DifferentiableLayer<Sequential<Linear<double>, Concatenate<Halve>>>);

TEST_CASE("Concatenate keeps the layer contract", "[concatenate]") {
    Philox random{2};
    check_layer_contract(
        "Concatenate",
        Concatenate{linear<double>(random, 6, 4), Identity<double>{}, wave<double>(),
                    Sequential{linear<double>(random, 6, 3), Tanh<double>{}}},
        6);
    check_layer_contract("Concatenate", Concatenate{linear<float>(random, 7, 5), Identity<float>{}},
                         7);
    check_layer_contract(
        "Sequential",
        Sequential{linear<double>(random, 5, 3),
                   Concatenate{Concatenate{Identity<double>{}, Tanh<double>{}}, Identity<double>{}},
                   linear<double>(random, 9, 2)},
        5);
    check_refuses_other_inputs(Concatenate{Tanh<double>{}, linear<double>(random, 6, 4)}, 6,
                               "Linear");
}

TEST_CASE("Concatenate: rows of y are the layers' own outputs, in their order", "[concatenate]") {
    Philox random{3};
    const auto first = linear<double>(random, 4, 3);
    const auto second = linear<double>(random, 4, 2);
    const Concatenate both{first, halve, second};
    const Matrix<double> x = random_matrix<double>(random, 4, 9), y = run(both, x);
    REQUIRE(y.rows() == 9);
    CHECK(same_bits(y.topRows(3), run(first, x)));
    CHECK(same_bits(y.middleRows(3, 4), run(halve, x)));
    CHECK(same_bits(y.bottomRows(2), run(second, x)));
    CHECK(same_bits(run(std::get<2>(both.layers()), x), run(second, x)));
}

TEST_CASE("Concatenate: parameters are the layers' own, in their order", "[concatenate]") {
    Philox random{4};
    const auto first = linear<double>(random, 4, 3);
    const auto second = linear<double>(random, 4, 2);
    Eigen::VectorXd expected(3 * 5 + 2 * 5);
    expected << parameters(first), parameters(second);
    CHECK(same_bits(parameters(Concatenate{first, Tanh<double>{}, second}), expected));
}

TEST_CASE("Concatenate: an expectation through it is that of each of its layers", "[concatenate]") {
    Philox random{5};
    std::vector<Block> blocks;
    for (const double p : {0.3, 0.9, 0.6, 0.5})
        blocks.emplace_back(Residual{linear<double>(random, 3, 3)}, SurvivalProbability{p});
    const Stack<Block> network{blocks};
    const auto head = linear<double>(random, 3, 2);
    const Matrix<double> x = random_matrix<double>(random, 3, 5);
    const ExactExpectation exact;
    const auto together = exact(Sequential{network, Concatenate{Softmax<double>{}, head}}, x);
    const auto softmax = exact(Sequential{network, Softmax<double>{}}, x);
    const auto linear_head = exact(Sequential{network, head}, x);
    CHECK(same_bits(together.mean.topRows(3), softmax.mean));
    CHECK(same_bits(together.variance.topRows(3), softmax.variance));
    CHECK(same_bits(together.mean.bottomRows(2), linear_head.mean));
    CHECK(same_bits(together.variance.bottomRows(2), linear_head.variance));
    CHECK(together.layer_evaluations == softmax.layer_evaluations);
}

}  // namespace
