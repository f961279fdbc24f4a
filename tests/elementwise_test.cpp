// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/elementwise/dropout.hpp>
#include <stochastic_depth/layers/elementwise/elementwise.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/silu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/probability/softmax.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/layer_contract.hpp"
#include "support/layers.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// A function with a packet of its own, whose last operation is a product.
template <class Scalar_>
struct ShiftedSquare {
    using Scalar = Scalar_;
    Scalar value(Scalar z) const { return (z + Scalar(1)) * z; }
    template <class Packet>
    Packet packet(Packet z) const {
        return (z + Packet::broadcast(Scalar(1))) * z;
    }
    Scalar derivative(Scalar z) const { return 2 * z + 1; }
};

TEMPLATE_TEST_CASE("elementwise: from a lambda, from two, from a function with packets",
                   "[elementwise]", float, double) {
    using Scalar = TestType;
    Philox random{1};
    const auto cube = elementwise<Scalar>([](Scalar z) { return z * z * z; });
    static_assert(ElementwiseLayer<std::remove_const_t<decltype(cube)>>);
    static_assert(!DifferentiableLayer<std::remove_const_t<decltype(cube)>>);
    for (const Index rows : {1, 2, 3, 8, 21}) {
        const Matrix<Scalar> x = random_matrix<Scalar>(random, rows, 5);
        const Matrix<Scalar> y = run(cube, x);
        for (Index k = 0; k < x.size(); ++k) {
            const Scalar z = x.data()[k];
            CHECK(y.data()[k] == z * z * z);
        }
    }
    check_layer_contract("Elementwise", Elementwise{ShiftedSquare<Scalar>{}}, 21);
    Matrix<Scalar> in_place = random_matrix<Scalar>(random, 13, 3);
    const Matrix<Scalar> apart = run(cube, in_place);
    cube.forward(in_place, in_place);
    CHECK(same_bits(in_place, apart));
}

/// Calls check(x) for batches of many shapes: x of 7 features, for products of 1 to 70 outputs.
template <class Scalar, class Check>
void for_each_shape(const Check& check) {
    Philox random{2};
    for (const Index outputs : {1, 2, 3, 4, 5, 8, 9, 16, 17, 21, 33, 64, 70})
        for (const Index batch : {1, 2, 5, 6, 7, 13}) {
            CAPTURE(outputs, batch);
            check(linear<Scalar>(random, 7, outputs), linear<Scalar>(random, outputs, outputs),
                  random_matrix<Scalar>(random, 7, batch));
        }
}

/// All of a batch at once, column by column, and recorded for backward: the same bits.
template <class Layer, class Scalar = typename Layer::Scalar>
void check_company(const Layer& layer, const Matrix<Scalar>& x, const Matrix<Scalar>& expected) {
    const Matrix<Scalar> y = run(layer, x);
    for (Index j = 0; j < x.cols(); ++j) REQUIRE(same_bits(run(layer, x.col(j)), y.col(j)));
    REQUIRE(same_bits(y, expected));
    if constexpr (DifferentiableLayer<Layer>) {
        Matrix<Scalar> recorded(expected.rows(), expected.cols());
        typename Layer::Cache cache;
        layer.forward(x, recorded, cache);
        REQUIRE(same_bits(recorded, expected));
    }
}

/// A product and a residual addition with an element-wise layer in between.
template <class Layer>
void check_fusion(const char* name, const Layer& activation) {
    using Scalar = typename Layer::Scalar;
    INFO(name);
    for_each_shape<Scalar>([&](const auto& product, const auto& square, const auto& x) {
        const Matrix<Scalar> h = run(activation, run(product, x));
        check_company(Sequential{product, activation}, x, h);
        const Matrix<Scalar> sum = h + run(activation, run(square, h));
        check_company(Residual{Sequential{square, activation}}, h, sum);
    });
    // Widths known at compile time.
    Philox random{3};
    const auto square = linear<Scalar, 8, 8>(random, 8, 8);
    for (const Index batch : {1, 2, 5, 6, 7, 13}) {
        CAPTURE(batch);
        const Matrix<Scalar> x = random_matrix<Scalar>(random, 8, batch);
        const Matrix<Scalar> sum = x + run(activation, run(square, x));
        check_company(Residual{Sequential{square, activation}}, x, sum);
    }
}

// The bits of one pass are those of separate passes: nothing is rounded differently on the way.
// Compilers like to contract a product and a sum that they see side by side, so most of these end
// in a product.
TEMPLATE_TEST_CASE("elementwise: fused into a product and a residual addition, the same bits",
                   "[elementwise]", float, double) {
    using Scalar = TestType;
    check_fusion("ReLU", ReLU<Scalar>{});
    check_fusion("Tanh", Tanh<Scalar>{});
    check_fusion("GELU", GELU<Scalar>{});
    check_fusion("SiLU", SiLU<Scalar>{});
    check_fusion("a lambda", elementwise<Scalar>([](Scalar z) { return z * z; }));
    check_fusion("packets", Elementwise{ShiftedSquare<Scalar>{}});
}

/// Gradient by x of a layer whose output has the gradient dy.
template <class Layer, class Scalar = typename Layer::Scalar>
Matrix<Scalar> way_back(const Layer& layer, const Matrix<Scalar>& x, const Matrix<Scalar>& dy) {
    typename Layer::Cache cache;
    Matrix<Scalar> y(layer.output_size(x.rows()), x.cols()), dx(x.rows(), x.cols());
    layer.forward(x, y, cache);
    auto gradient = layer.zero_gradient();
    layer.backward(x, dy, cache, gradient, dx);
    return dx;
}

/// dy * derivative(z), entry by entry, by itself and in the product before it on the way back.
template <class Layer>
void check_way_back(const char* name, const Layer& activation) {
    using Scalar = typename Layer::Scalar;
    INFO(name);
    Philox random{4};
    for_each_shape<Scalar>([&](const auto& product, const auto& square, const auto& x) {
        Matrix<Scalar> z = run(product, x);
        for (Index i = 0; i < z.rows(); ++i)
            z(i, i % z.cols()) = i % 3 == 0   ? Scalar(0)
                                 : i % 3 == 1 ? -std::numeric_limits<Scalar>::min() / 4
                                              : Scalar(-0.0);
        const Matrix<Scalar> dy = random_matrix<Scalar>(random, z.rows(), z.cols());
        Matrix<Scalar> by_entry = dy;
        for (Index k = 0; k < z.size(); ++k) by_entry.data()[k] *= activation.derivative(z.data()[k]);
        REQUIRE(same_bits(way_back(activation, z, dy), by_entry));

        const Matrix<Scalar> by_square = way_back(square, run(activation, z), dy);
        const Matrix<Scalar> apart = way_back(activation, z, by_square);
        REQUIRE(same_bits(way_back(Sequential{activation, square}, z, dy), apart));
        const Matrix<Scalar> h = run(activation, z);
        const Matrix<Scalar> by_h = way_back(activation, h, way_back(square, run(activation, h), dy));
        REQUIRE(same_bits(way_back(Sequential{activation, activation, square}, z, dy),
                          way_back(activation, z, by_h)));
    });
}

TEMPLATE_TEST_CASE("elementwise: the way back, by itself and fused into a product, the same bits",
                   "[elementwise]", float, double) {
    using Scalar = TestType;
    check_way_back("ReLU", ReLU<Scalar>{});
    check_way_back("Tanh", Tanh<Scalar>{});
    check_way_back("GELU", GELU<Scalar>{});
    check_way_back("SiLU", SiLU<Scalar>{});
    check_way_back("two lambdas", elementwise<Scalar>([](Scalar z) { return z * z; },
                                                      [](Scalar z) { return 2 * z; }));
    check_way_back("packets", Elementwise{ShiftedSquare<Scalar>{}});
    const Scalar nan = std::numeric_limits<Scalar>::quiet_NaN();
    CHECK(ReLU<Scalar>{}.derivative(nan) == 0);
    const Matrix<Scalar> z = Matrix<Scalar>::Constant(21, 2, nan);
    CHECK(way_back(ReLU<Scalar>{}, z, Matrix<Scalar>(Matrix<Scalar>::Ones(21, 2))).isZero(0));
}

TEMPLATE_TEST_CASE("elementwise: several in a row and around a residual layer, the same bits",
                   "[elementwise]", float, double) {
    using Scalar = TestType;
    const auto lambda = elementwise<Scalar>([](Scalar z) { return z * z + Scalar(0.5) * z; });
    const Elementwise packets{ShiftedSquare<Scalar>{}};
    for_each_shape<Scalar>([&](const auto& product, const auto& square, const auto& x) {
        const Matrix<Scalar> h = run(packets, run(lambda, run(packets, run(product, x))));
        check_company(Sequential{product, packets, lambda, packets}, x, h);
        const Matrix<Scalar> sum = h + run(lambda, run(square, h));
        const Matrix<Scalar> y = run(packets, sum);
        check_company(Sequential{Residual{Sequential{square, lambda}}, packets}, h, y);
    });
}

TEST_CASE("elementwise: a product and what follows it are one step of a Sequential",
          "[elementwise]") {
    using L = Linear<double>;
    using T = Tanh<double>;
    using R = Residual<L>;
    using Skippable = StochasticDepth<R>;
    const auto wave = elementwise<double>([](double z) { return std::sin(z); });
    using W = std::remove_const_t<decltype(wave)>;

    using D = Dropout<double>;
    const auto end = []<class... Layers>(std::type_identity<Sequential<Layers...>>,
                                         std::size_t begin) {
        return detail::end_of_step<false, Layers...>(begin, sizeof...(Layers));
    };
    const auto recorded_end = []<class... Layers>(std::type_identity<Sequential<Layers...>>,
                                                  std::size_t begin) {
        return detail::end_of_step<true, Layers...>(begin, sizeof...(Layers));
    };
    const std::type_identity<Sequential<L, T, W, T, L, Softmax<double>, T, T, L>> plain;
    REQUIRE(end(plain, 0) == 4);  // Linear and three element-wise layers.
    REQUIRE(end(plain, 4) == 5);  // Softmax is none.
    REQUIRE(end(plain, 5) == 8);  // What is behind a Softmax goes with it.
    REQUIRE(end(plain, 6) == 7);  // Nothing goes with an element-wise layer.
    REQUIRE(end(plain, 8) == 9);
    REQUIRE(end(std::type_identity<Sequential<R, T, L>>{}, 0) == 2);  // Composites take epilogues,
    REQUIRE(end(std::type_identity<Sequential<Sequential<L, T>, T, L>>{}, 0) == 2);
    REQUIRE(end(std::type_identity<Sequential<Stack<L>, T, L>>{}, 0) == 2);
    // a skippable layer too, but not what has some inside.
    REQUIRE(end(std::type_identity<Sequential<Skippable, T, L>>{}, 0) == 2);
    REQUIRE(recorded_end(std::type_identity<Sequential<Skippable, T, L>>{}, 0) == 2);
    REQUIRE(end(std::type_identity<Sequential<Stack<Skippable>, T, L>>{}, 0) == 1);
    // A dropout draws in a recorded pass, which no epilogue does.
    REQUIRE(end(std::type_identity<Sequential<L, T, D, T>>{}, 0) == 4);
    REQUIRE(recorded_end(std::type_identity<Sequential<L, T, D, T>>{}, 0) == 2);
}

/// Counts how often its value is asked for.
struct Asking {
    using Scalar = double;
    long* times;
    Index output_size(Index input_size) const { return input_size; }
    double value(double z) const {
        ++*times;
        return z + 1;
    }
    /// Only reached where the layer is not fused.
    void forward(const ConstMatrixRef<double>&, MatrixRef<double>) const {
        throw std::logic_error("the layer ran by itself");
    }
};

TEST_CASE("elementwise: a user's layer with a value runs in the product's pass, never by itself",
          "[elementwise]") {
    static_assert(ElementwiseLayer<Asking>);
    Philox random{3};
    long times = 0;
    const Asking asking{&times};
    const Linear<double> product = linear<double>(random, 16, 16);
    const SurvivalProbability half{0.5};
    const Matrix<double> x = random_matrix<double>(random, 16, 6);
    const Matrix<double> once = run(product, x);

    CHECK(largest_difference(run(Sequential{product, asking}, x), once.array() + 1) == 0);
    CHECK(times == 16 * 6);
    times = 0;
    CHECK(largest_difference(run(Sequential{product, asking, asking, product}, x),
                             run(product, (once.array() + 2).matrix())) <= 1e-13);
    CHECK(times == 2 * 16 * 6);
    times = 0;
    const Sequential network{StochasticDepth{Residual{Sequential{product, asking}}, half},
                             StochasticDepth{Sequential{product, asking}, half}, product, asking};
    SurvivalMasks masks{2, 6};
    for (const Index j : {1, 2, 5}) masks.keep(0, j);
    masks.keep(1, 4);
    (void)network(x, masks);
    CHECK(times == (3 + 1 + 6) * 16);
    times = 0;
    (void)network(x, SurvivalMask{0, 0});
    CHECK(times == 6 * 16);
}

TEST_CASE("elementwise: tanh of floats goes by whole packets, where the target has such",
          "[elementwise]") {
    constexpr bool vectorized =
        Eigen::internal::packet_traits<float>::HasTanh != 0 && detail::widest_lanes < float >> 1;
    Matrix<float> x(64, 9);
    for (Index k = 0; k < x.size(); ++k) x.data()[k] = 0.02F * static_cast<float>(k - 288);
    const Matrix<float> y = run(Tanh<float>{}, x);
    // Eigen's function by packets and the standard library's differ in last bits.
    Index apart = 0;
    for (Index k = 0; k < x.size(); ++k) {
        CHECK(std::abs(y.data()[k] - std::tanh(x.data()[k])) <= 4e-7F);
        if (y.data()[k] != std::tanh(x.data()[k])) ++apart;
    }
    CHECK((apart > 0) == vectorized);
}

}  // namespace
