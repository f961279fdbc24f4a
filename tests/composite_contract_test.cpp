// SPDX-License-Identifier: MIT
#include "support/layer_contract.hpp"

#include <string>
#include <vector>

#include <stochastic_depth/layers/composition/concatenate.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/scaled.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/identity.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/normalisation/batch_norm.hpp>
#include <stochastic_depth/layers/normalisation/layer_norm.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/layers.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

TEST_CASE("Sequential keeps the layer contract", "[composite_contract]") {
    Philox random{2};
    check_layer_contract("Sequential", Sequential{Tanh<double>{}}, 5);
    check_layer_contract("Sequential", Sequential{linear<double>(random, 5, 7)}, 5);
    check_layer_contract(
        "Sequential",
        Sequential{linear<double>(random, 6, 9), Tanh<double>{}, wave<double>(),
                   linear<double>(random, 9, 4), GELU<double>{}, Softmax<double>{},
                   linear<double>(random, 4, 3), Identity<double>{}, Softmax<double>{}},
        6);
    check_layer_contract("Sequential",
                         Sequential{linear<double, 8, 8>(random, 8, 8), ReLU<double>{},
                                    linear<double, 8, 3>(random, 8, 3), ReLU<double>{}},
                         8, Derivative::kinked);
    check_layer_contract(
        "Sequential",
        Sequential{Sequential{linear<double>(random, 4, 5), Tanh<double>{}},
                   Sequential{Tanh<double>{}, Sequential{linear<double>(random, 5, 2)}}},
        4);
    check_refuses_other_inputs(Sequential{Tanh<double>{}, linear<double>(random, 4, 5)}, 4,
                               "Linear");
}

TEST_CASE("Stack keeps the layer contract, empty too", "[composite_contract]") {
    Philox random{3};
    check_layer_contract("Stack", Stack{std::vector<Linear<double>>{}}, 4);
    check_layer_contract("Stack", Stack{std::vector{linear<double>(random, 4, 6)}}, 4);
    check_layer_contract(
        "Stack",
        Stack{std::vector{linear<double>(random, 4, 9), linear<double>(random, 9, 2),
                          linear<double>(random, 2, 5)}},
        4);
    using Block = Sequential<Linear<double>, Tanh<double>>;
    check_layer_contract("Stack",
                         Stack{std::vector{Block{linear<double>(random, 5, 5), Tanh<double>{}},
                                           Block{linear<double>(random, 5, 5), Tanh<double>{}}}},
                         5);
    check_layer_contract("Sequential",
                         Sequential{linear<double>(random, 3, 5),
                                    Stack{std::vector<Linear<double>>{}}, Tanh<double>{}},
                         3);
}

TEST_CASE("Residual keeps the layer contract, with any branch and shortcut",
          "[composite_contract]") {
    Philox random{4};
    check_layer_contract("Residual", Residual{linear<double>(random, 5, 5)}, 5);
    check_layer_contract("Residual",
                         Residual{Sequential{linear<double>(random, 7, 7), ReLU<double>{}}}, 7,
                         Derivative::kinked);
    check_layer_contract("Residual",
                         Residual{Sequential{linear<double>(random, 7, 7), wave<double>()}}, 7);
    check_layer_contract("Residual",
                         Residual{Sequential{linear<double>(random, 3, 3), GELU<double>{}}}, 3);
    check_layer_contract("Residual",
                         Residual{Sequential{linear<double>(random, 19, 19), GELU<double>{}}}, 19);
    check_layer_contract("Residual", Residual{Softmax<double>{}}, 6);
    check_layer_contract("Residual", Residual{Tanh<double>{}}, 6);
    check_layer_contract("Residual", Residual{Identity<double>{}}, 6);
    check_layer_contract("Residual", Residual{Stack{std::vector<Linear<double>>{}}}, 6);
    check_layer_contract("Residual",
                         Residual{linear<double>(random, 4, 9), linear<double>(random, 4, 9)}, 4);
    check_layer_contract("Residual",
                         Residual{Sequential{linear<double>(random, 4, 5), Tanh<double>{},
                                             linear<double>(random, 5, 3)},
                                  Sequential{linear<double>(random, 4, 3), Softmax<double>{}}},
                         4);
    // Spelt out: of one argument of its own kind, a class template deduces a copy.
    using Once = Residual<Linear<double>>;
    const Residual<Once> twice{Once{linear<double>(random, 5, 5)}};
    check_layer_contract("Residual", twice, 5);
    check_layer_contract("Residual", Residual<Residual<Once>>{twice}, 5);
    check_layer_contract("Sequential",
                         Sequential{Residual{linear<double>(random, 5, 5)}, Tanh<double>{}}, 5);
    check_refuses_other_inputs(Residual{linear<double>(random, 5, 5)}, 5, "Linear");
}

TEST_CASE("StochasticDepth keeps the layer contract: without a mask, the layer runs",
          "[composite_contract]") {
    Philox random{5};
    const SurvivalProbability p{0.4};
    check_layer_contract("StochasticDepth", StochasticDepth{linear<double>(random, 5, 5), p}, 5);
    check_layer_contract("StochasticDepth", StochasticDepth{Tanh<double>{}, p}, 5);
    check_layer_contract(
        "StochasticDepth",
        StochasticDepth{Residual{Sequential{linear<double>(random, 6, 6), Tanh<double>{}}}, p}, 6);
    check_layer_contract(
        "StochasticDepth",
        StochasticDepth{Residual{linear<double>(random, 4, 7), linear<double>(random, 4, 7)}, p},
        4);
    check_layer_contract(
        "StochasticDepth",
        StochasticDepth{StochasticDepth{Residual{linear<double>(random, 4, 4)}, p}, p}, 4);
    check_refuses_other_inputs(StochasticDepth{Residual{linear<double>(random, 5, 5)}, p}, 5,
                               "Linear");
}

TEST_CASE("Composites keep the layer contract in float", "[composite_contract]") {
    Philox random{7};
    const Residual block{Sequential{linear<float>(random, 19, 19), GELU<float>{}}};
    check_layer_contract("Residual", block, 19);
    check_layer_contract("Residual",
                         Residual{Sequential{linear<float, 8, 8>(random, 8, 8), wave<float>()}}, 8);
    check_layer_contract(
        "Sequential",
        Sequential{linear<float>(random, 5, 19),
                   Stack{std::vector{StochasticDepth{block, SurvivalProbability{0.5}}}},
                   Tanh<float>{}, linear<float>(random, 19, 3), Softmax<float>{}},
        5);
}

TEST_CASE("Whole networks keep the layer contract", "[composite_contract]") {
    Philox random{6};
    using Branch = Sequential<Linear<double>, ReLU<double>, Linear<double>>;
    using Block = StochasticDepth<Residual<Branch>>;
    std::vector<Block> blocks;
    for (int l = 0; l < 3; ++l)
        blocks.emplace_back(Residual{Branch{linear<double>(random, 6, 9), ReLU<double>{},
                                            linear<double>(random, 9, 6)}},
                            SurvivalProbability{0.5});
    const Stack<Block> trunk{blocks};
    check_layer_contract("Stack", trunk, 6, Derivative::kinked);
    const Sequential network{linear<double>(random, 4, 6), trunk, ReLU<double>{},
                             linear<double>(random, 6, 3), Softmax<double>{}};
    check_layer_contract("Sequential", network, 4, Derivative::kinked);
    check_layer_contract("Residual", Residual{Sequential{trunk, Tanh<double>{}, trunk}}, 6,
                         Derivative::kinked);
}

TEST_CASE("Residual: branch and shortcut of different sizes are refused", "[composite_contract]") {
    Philox random{9};
    const Residual narrowing{Linear<double>{5, 3, random}};
    const std::string expected = "Residual: branch must have 5 outputs as the shortcut has, got 3";
    const Matrix<double> x = Matrix<double>::Ones(5, 2);
    Matrix<double> y = Matrix<double>::Constant(3, 2, 77);
    CHECK(refusal([&] { (void)narrowing.output_size(5); }) == expected);
    CHECK(refusal([&] { narrowing.forward(x, y); }) == expected);
    CHECK((y.array() == 77).all());
    const Sequential inside{Linear<double>{4, 5, random}, narrowing};
    CHECK(refusal([&] { (void)inside.output_size(4); }) == expected);
}

/// What backward says about a cache, given a batch x; gradients must be as before then.
template <class Layer>
[[nodiscard]] std::string refused_cache(const Layer& layer, const Matrix<double>& x,
                                        const typename Layer::Cache& cache) {
    const Matrix<double> dy = Matrix<double>::Ones(layer.output_size(x.rows()), x.cols());
    Matrix<double> dx = Matrix<double>::Constant(x.rows(), x.cols(), 77);
    typename Layer::Gradient gradient = layer.zero_gradient();
    const std::string message = refusal([&] { layer.backward(x, dy, cache, gradient, dx); });
    if (message != "accepted") {
        CHECK((dx.array() == 77).all());
        CHECK(flattened(layer, gradient).isZero(0));
    }
    return message;
}

/// Of a layer with 4 inputs.
template <class Layer>
void check_refused_caches(const std::string& name, const Layer& layer) {
    CAPTURE(name);
    const Matrix<double> three = Matrix<double>::Ones(4, 3), more = Matrix<double>::Ones(4, 90);
    const auto cache_of = [&](const Matrix<double>& x) {
        typename Layer::Cache cache;
        Matrix<double> y(layer.output_size(x.rows()), x.cols());
        layer.forward(x, y, cache);
        return cache;
    };
    CHECK(refused_cache(layer, three, {}) == name + ": cache must be of 3 columns, got 0");
    CHECK(refused_cache(layer, more, cache_of(three)) ==
          name + ": cache must be of 90 columns, got 3");
    CHECK(refused_cache(layer, three, cache_of(more)) ==
          name + ": cache must be of 3 columns, got 90");
    // A cache is as good as new after another forward pass.
    typename Layer::Cache cache = cache_of(more);
    Matrix<double> y(layer.output_size(4), 3);
    layer.forward(three, y, cache);
    CHECK(refused_cache(layer, three, cache) == "accepted");
}

TEST_CASE("backward refuses the cache of another batch, and one that no forward pass filled",
          "[composite_contract]") {
    Philox random{10};
    const auto dense = linear<double>(random, 4, 4);
    const Sequential branch{dense, Tanh<double>{}, LayerNorm<double>{4}};
    SECTION("Sequential") {
        check_refused_caches("Sequential", Sequential{dense, Tanh<double>{}});
        check_refused_caches("Sequential", Sequential{branch, BatchNorm<double>{4}});
    }
    SECTION("Residual") {
        check_refused_caches("Residual", Residual{branch});
        check_refused_caches("Residual", Residual{branch, dense});
    }
    SECTION("StochasticDepth") {
        check_refused_caches("StochasticDepth",
                             StochasticDepth{Residual{branch}, SurvivalProbability{0.5}});
        check_refused_caches("StochasticDepth", StochasticDepth{branch, SurvivalProbability{0.5}});
    }
    SECTION("Stack") { check_refused_caches("Stack", Stack{std::vector{branch, branch}}); }
    SECTION("Scaled") { check_refused_caches("Scaled", Scaled{branch, 0.5}); }
    SECTION("Concatenate") { check_refused_caches("Concatenate", Concatenate{branch, dense}); }
    SECTION("BatchNorm") { check_refused_caches("BatchNorm", BatchNorm<double>{4}); }
}

TEST_CASE("backward refuses the cache of a batch with other features", "[composite_contract]") {
    const Sequential layer{Tanh<double>{}, GELU<double>{}};
    decltype(layer)::Cache cache;
    Matrix<double> y(4, 3);
    layer.forward(Matrix<double>::Ones(4, 3), y, cache);
    const std::string message = refused_cache(layer, Matrix<double>::Ones(90, 3), cache);
    INFO(message);
    CHECK(message.starts_with("Sequential: cache must be of"));
    CHECK(message.find("90") != std::string::npos);
}

}  // namespace
