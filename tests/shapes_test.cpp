// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/composition/shapes.hpp>

#include <vector>

#include <stochastic_depth/layers/composition/any_layer.hpp>
#include <stochastic_depth/layers/composition/concatenate.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/scaled.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/image/average_pool2d.hpp>
#include <stochastic_depth/layers/image/batch_norm2d.hpp>
#include <stochastic_depth/layers/image/conv2d.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/refusal.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// Whether a call is refused.
template <class Call>
bool refuses(const Call& call) {
    return refusal(call) != "accepted";
}

constexpr ImageShape square{16, 8, 8}, tall{8, 16, 8};

/// A layer of the library's user.
struct Own {
    using Scalar = float;
    ImageShape input = square, output = square;

    [[nodiscard]] const ImageShape& input_shape() const { return input; }
    [[nodiscard]] const ImageShape& output_shape() const { return output; }
    [[nodiscard]] Index output_size(Index) const { return output.size(); }
    void forward(const ConstMatrixRef<float>& x, MatrixRef<float> y) const { y = x; }
};
/// One without shapes.
struct Shapeless {
    using Scalar = float;
    [[nodiscard]] Index output_size(Index inputs) const { return inputs; }
    void forward(const ConstMatrixRef<float>& x, MatrixRef<float> y) const { y = x; }
};

Conv2d<float> convolution(const ImageShape& input, Index channels) {
    Philox random{1};
    return {input, {.channels = channels, .kernel = 1}, random};
}

TEST_CASE("Shapes of neighbours must agree, sizes are not enough", "[shapes]") {
    const Conv2d<float> conv = convolution({3, 8, 8}, 16);
    const BatchNorm2d<float> fits{square}, turned{tall};
    const ReLU<float> relu;
    CHECK(refusal([&] { Sequential{conv, turned}; }) ==
          "Sequential: BatchNorm2d 8 x 16 x 8, epsilon 1e-05 must have shape 16 x 8 x 8 as Conv2d "
          "3 x 8 x 8 -> 16 x 8 x 8, kernel 1, stride 1, padding 0 has, got 8 x 16 x 8");
    CHECK(!refuses([&] { Sequential{conv, fits, relu}; }));
    // Through element-wise layers, and out of and into composites.
    CHECK(refuses([&] { Sequential{conv, relu, turned}; }));
    CHECK(refuses([&] { Sequential{Sequential{conv, relu}, turned}; }));
    CHECK(refuses([&] { Sequential{conv, Sequential{relu, turned}}; }));
    CHECK(refuses([&] { Sequential{conv, Stack{std::vector{relu, relu}}, turned}; }));
    CHECK(refuses([&] {
               Sequential{conv, StochasticDepth{Residual{Sequential{relu, turned}},
                                                SurvivalProbability{0.5}}};
           }));
    // What has no shape may change it.
    CHECK(!refuses([&] { Sequential{conv, Shapeless{}, turned}; }));
}

TEST_CASE("Shapes: layers of the user's own have them by two members", "[shapes]") {
    const Conv2d<float> conv = convolution({3, 8, 8}, 16);
    CHECK(!refuses([&] { Sequential{conv, Own{}, BatchNorm2d<float>{square}}; }));
    CHECK(refusal([&] { Sequential{conv, Own{tall, tall}}; })
              .ends_with("has, got 8 x 16 x 8"));
    CHECK(refusal([&] { Sequential{Own{square, tall}, conv}; })
              .find("Conv2d 3 x 8 x 8 -> 16 x 8 x 8, kernel 1, stride 1, padding 0 must have shape "
                    "8 x 16 x 8 as ") != std::string::npos);
}

TEST_CASE("Shapes: a Stack's layers, and both ways of a Residual", "[shapes]") {
    const BatchNorm2d<float> fits{square}, turned{tall};
    CHECK(refusal([&] { Stack{std::vector{fits, turned}}; }) ==
          "Stack: BatchNorm2d 8 x 16 x 8, epsilon 1e-05 must have shape 16 x 8 x 8 as BatchNorm2d "
          "16 x 8 x 8, epsilon 1e-05 has, got 8 x 16 x 8");
    CHECK(!refuses([&] { Stack{std::vector<BatchNorm2d<float>>{}}; }));
    // Two inputs, two outputs, and a branch beside the identity.
    CHECK(refusal([&] { Residual{fits, turned}; }) ==
          "Residual: BatchNorm2d 8 x 16 x 8, epsilon 1e-05 must have shape 16 x 8 x 8 as "
          "BatchNorm2d 16 x 8 x 8, epsilon 1e-05 has, got 8 x 16 x 8");
    CHECK(refuses([&] { Residual{Own{square, tall}, fits}; }));
    CHECK(refuses([&] { Residual{Own{square, tall}}; }));
    CHECK(!refuses([&] { Residual{Own{square, tall}, Own{square, tall}}; }));
    CHECK(!refuses([&] { Residual{Shapeless{}, fits}; }));
    // Behind the sum its shape is known, from either way.
    CHECK(refuses([&] { Sequential{Residual{fits}, turned}; }));
    CHECK(refuses([&] { Sequential{Residual{Shapeless{}, fits}, turned}; }));
    CHECK(!refuses([&] { Sequential{Residual{Shapeless{}}, turned}; }));
    const AveragePool2d<float> pool{{16, 16, 16}, {.kernel = 2}};
    CHECK(!refuses([&] { Sequential{Residual{convolution({16, 16, 16}, 16)}, pool, fits}; }));
}

TEST_CASE("Shapes go through a layer whose type is not known", "[shapes]") {
    using Any = AnyLayer<float>;
    const BatchNorm2d<float> fits{square}, turned{tall};
    const Conv2d<float> conv = convolution({3, 8, 8}, 16);
    CHECK(refusal([&] {
              Stack{std::vector<Any>{conv, turned}};
          }) ==
          "Stack: BatchNorm2d 8 x 16 x 8, epsilon 1e-05 must have shape 16 x 8 x 8 as Conv2d "
          "3 x 8 x 8 -> 16 x 8 x 8, kernel 1, stride 1, padding 0 has, got 8 x 16 x 8");
    CHECK(!refuses([&] { Stack{std::vector<Any>{conv, fits}}; }));
    // On both of its sides, and inside of what it holds; where that has no shape, too.
    CHECK(refuses([&] { Sequential{conv, Any{turned}}; }));
    CHECK(refuses([&] { Sequential{Any{Own{square, tall}}, fits}; }));
    CHECK(refuses([&] { Sequential{conv, Any{Sequential{ReLU<float>{}, turned}}}; }));
    CHECK(refuses([&] { Sequential{conv, Any{Any{turned}}}; }));
    CHECK(refuses([&] { Stack{std::vector<Any>{conv, ReLU<float>{}, turned}}; }));
    CHECK(!refuses([&] { Stack{std::vector<Any>{conv, Shapeless{}, turned}}; }));
    CHECK(!refuses([&] { Stack{std::vector<Any>{conv, Own{square, tall}, turned}}; }));
}

TEST_CASE("Shapes: each layer of a Concatenate takes the same images", "[shapes]") {
    const BatchNorm2d<float> fits{square}, turned{tall};
    const ReLU<float> relu;
    CHECK(refusal([&] {
              Concatenate{fits, turned};
          }) ==
          "Concatenate: BatchNorm2d 8 x 16 x 8, epsilon 1e-05 must have shape 16 x 8 x 8 as "
          "BatchNorm2d 16 x 8 x 8, epsilon 1e-05 has, got 8 x 16 x 8");
    CHECK(refuses([&] { Concatenate{relu, Sequential{relu, fits}, Scaled{turned, 2.0F}}; }));
    CHECK(!refuses([&] { Concatenate{fits, relu, Own{square, tall}}; }));
    CHECK(!refuses([&] { Concatenate{Shapeless{}, turned}; }));
    CHECK(refuses([&] { Sequential{convolution({3, 8, 8}, 16), Concatenate{relu, turned}}; }));
    CHECK(refuses([&] { Residual{fits, Concatenate{turned}}; }));
    // What comes out of it is no image.
    CHECK(!refuses([&] { Sequential{Concatenate{fits}, turned}; }));
}

TEST_CASE("Shapes go through a scaled layer", "[shapes]") {
    const BatchNorm2d<float> fits{square}, turned{tall};
    CHECK(refuses([&] { Sequential{fits, Scaled{turned, 2.0F}}; }));
    CHECK(refuses([&] { Sequential{Scaled{fits, 2.0F}, turned}; }));
    CHECK(!refuses([&] { Sequential{Scaled{fits, 2.0F}, fits}; }));
}

}  // namespace
