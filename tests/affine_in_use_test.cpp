// SPDX-License-Identifier: MIT
#include <stochastic_depth/pass/affine_in_use.hpp>

#include <limits>
#include <tuple>

#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/image/batch_norm2d.hpp>
#include <stochastic_depth/layers/image/max_pool2d.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

#include "support/catch.hpp"
#include "support/images.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

template <class Scalar>
BatchNorm<Scalar> batch_norm(Philox& random, Index features) {
    const auto numbers = [&] { return Vector<Scalar>(random_matrix<Scalar>(random, features, 1)); };
    const Vector<Scalar> gain = numbers(), bias = numbers(), mean = numbers();
    const Vector<Scalar> variance = numbers().array().square() + Scalar(0.1);
    return {gain, bias, mean, variance};
}

/// A layer of the library's user: x times its number, plus its number, for each of its channels.
template <class Scalar_>
struct Own {
    using Scalar = Scalar_;
    Vector<Scalar> factor;

    [[nodiscard]] Index output_size(Index inputs) const { return inputs; }
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        for (Index j = 0; j < x.cols(); ++j)
            for (Index i = 0; i < x.rows(); ++i) {
                const auto of = detail::Packet<Scalar, 1>::broadcast(factor(i % factor.size()));
                const auto number = detail::Packet<Scalar, 1>::broadcast(x(i, j));
                y(i, j) = multiply_add(of, number, of).first();
            }
    }
    [[nodiscard]] Index affine_channels() const { return factor.size(); }
    void write_affine(Scalar* scale, Scalar* shift) const {
        for (Index c = 0; c < factor.size(); ++c) scale[c] = shift[c] = factor(c);
    }
};

/// The layers one by one.
template <class Network>
auto in_turn(const Network& network, Matrix<typename Network::Scalar> x) {
    std::apply(
        [&](const auto&... layer) {
            const auto step = [&](const auto& one) {
                Matrix<typename Network::Scalar> y(one.output_size(x.rows()), x.cols());
                one.forward(x, y);
                x = y;
            };
            (step(layer), ...);
        },
        network.layers());
    return x;
}

TEMPLATE_TEST_CASE("AffineInUse: behind a product it has the bits of a pass of its own",
                   "[affine_in_use]", float, double) {
    using Scalar = TestType;
    Philox random{1};
    for (int trial = 0; trial < 60; ++trial) {
        const Sliding s = random_sliding(random, 3);
        const Index channels = trial % 4 == 0 ? 16 * whole(random, 1, 3) : whole(random, 1, 37);
        const ImageShape shape = s.output(channels);
        const Sequential network{
            convolution<Scalar>(random, s, channels, trial % 2 == 0),
            BatchNorm2d<Scalar>{shape, batch_norm<Scalar>(random, channels)},
            Tanh<Scalar>{},
            // A channel for each entry, and one for each of any divisor: other rows than the product's.
            batch_norm<Scalar>(random, shape.size()),
            Own<Scalar>{random_matrix<Scalar>(random, shape.positions(), 1)},
            ReLU<Scalar>{}};
        Matrix<Scalar> x = random_matrix<Scalar>(random, s.input.size(), whole(random, 0, 4));
        if (trial == 7 && x.size() > 0) x(0, 0) = std::numeric_limits<Scalar>::quiet_NaN();
        CAPTURE(trial, detail::text_of(s.input), detail::text_of(shape));
        REQUIRE(same_bits(network(x), in_turn(network, x)));
        for (Index j = 0; j < x.cols(); ++j)
            REQUIRE(same_bits(network(x.col(j)), network(x).col(j)));
    }
}

TEMPLATE_TEST_CASE("AffineInUse: behind a Linear, as long as its outputs or shorter",
                   "[affine_in_use]", float, double) {
    using Scalar = TestType;
    Philox random{2};
    for (const Index channels : {1, 2, 3, 7, 8, 16, 17, 33})
        for (const Index positions : {1, 2, 5})
            for (const Index batch : {0, 1, 2, 7, 30}) {
                const Sequential network{
                    Linear<Scalar>{3, channels * positions, random},
                    BatchNorm2d<Scalar>{{channels, positions, 1},
                                        batch_norm<Scalar>(random, channels)},
                    batch_norm<Scalar>(random, channels * positions), ReLU<Scalar>{}};
                const Matrix<Scalar> x = random_matrix<Scalar>(random, 3, batch);
                CAPTURE(channels, positions, batch);
                REQUIRE(same_bits(network(x), in_turn(network, x)));
            }
    // Of a width known to the compiler, whose packets hold several columns.
    Linear<Scalar, 4, 4> narrow{random};
    const Sequential network{narrow, batch_norm<Scalar>(random, 4), ReLU<Scalar>{}};
    const Matrix<Scalar> x = random_matrix<Scalar>(random, 4, 37);
    CHECK(same_bits(network(x), in_turn(network, x)));
}

TEST_CASE("AffineInUse: a branch that ends in a normalisation adds behind it", "[affine_in_use]") {
    Philox random{3};
    const Sliding s{{5, 3, 4}, 3, 1, 1};
    const Sequential branch{convolution<float>(random, s, 5, false),
                            BatchNorm2d<float>{s.input, batch_norm<float>(random, 5)}};
    const Sequential network{StochasticDepth{Residual{branch}, SurvivalProbability{0.5}}};
    const Matrix<float> x = random_matrix<float>(random, 60, 3);
    const Matrix<float> kept = x + in_turn(branch, x);
    CHECK(same_bits(network(x), kept));
    SurvivalMasks masks{1, 3};
    masks.set_mask(1, SurvivalMask{1});
    const Matrix<float> y = network(x, masks);
    CHECK(same_bits(y.col(0), x.col(0)));
    CHECK(same_bits(y.col(1), kept.col(1)));
    CHECK(same_bits(y.col(2), x.col(2)));
    // A recorded pass outside of a step normalises by the running statistics too.
    Sequential<Conv2d<float>, BatchNorm2d<float>>::Cache cache;
    Matrix<float> recorded(60, 3);
    branch.forward(x, recorded, cache);
    CHECK(same_bits(recorded, in_turn(branch, x)));
}

TEST_CASE("AffineInUse: it goes with products alone, and where nothing is recorded",
          "[affine_in_use]") {
    using Norm = BatchNorm2d<float>;
    using detail::end_of_step;
    STATIC_REQUIRE(AffineInUse<Norm> && AffineInUse<BatchNorm<double>> && AffineInUse<Own<float>>);
    STATIC_REQUIRE(!AffineInUse<ReLU<float>> && !AffineInUse<Linear<float>>);
    STATIC_REQUIRE(end_of_step<false, Conv2d<float>, Norm, ReLU<float>>(0, 3) == 3);
    STATIC_REQUIRE(end_of_step<true, Conv2d<float>, Norm, ReLU<float>>(0, 3) == 1);
    STATIC_REQUIRE(end_of_step<false, Linear<float>, ReLU<float>, BatchNorm<float>>(0, 3) == 3);
    STATIC_REQUIRE(end_of_step<false, MaxPool2d<float>, Norm, ReLU<float>>(0, 3) == 1);
    STATIC_REQUIRE(end_of_step<false, Norm, ReLU<float>, Norm>(0, 3) == 2);
}

}  // namespace
