// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/image/batch_norm2d.hpp>

#include <cmath>
#include <limits>
#include <string>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/layers/image/average_pool2d.hpp>
#include <stochastic_depth/layers/image/max_pool2d.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/threads/thread_team.hpp>
#include <stochastic_depth/training/gradient_error.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include "support/images.hpp"
#include "support/layer_contract.hpp"
#include "support/recorded_pass.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// With random gain, bias and running statistics.
template <class Scalar>
BatchNorm2d<Scalar> batch_norm(Philox& random, const ImageShape& shape,
                               BatchNormOptions options = {}) {
    const auto numbers = [&] {
        return Vector<Scalar>(random_matrix<Scalar>(random, shape.channels, 1));
    };
    const Vector<Scalar> gain = numbers(), bias = numbers(), mean = numbers();
    const Vector<Scalar> variance = numbers().array().square() + Scalar(0.1);
    return {shape, BatchNorm<Scalar>{gain, bias, mean, variance, options}};
}

/// The images as one column for each of their positions: what BatchNorm takes.
template <class Scalar>
[[nodiscard]] Matrix<Scalar> positions(const Matrix<Scalar>& x, const ImageShape& shape) {
    return Eigen::Map<const Matrix<Scalar>>(x.data(), shape.channels, x.cols() * shape.positions());
}

/// A step's forward and backward pass.
template <class Layer, class Scalar>
typename Layer::Gradient step_through(const Layer& layer, Matrix<Scalar>& x, Matrix<Scalar>& dy,
                                      const detail::Team& team = detail::Team::alone()) {
    const detail::StepContext draw;
    const SurvivalMask mask = SurvivalMask::all(0);
    RecordedPass<Layer> pass{team};
    auto gradient = layer.zero_gradient();
    pass.forward(layer, x, detail::MaskView{mask, &draw});
    pass.backward(layer, dy, gradient);
    return gradient;
}

TEMPLATE_TEST_CASE("BatchNorm2d is BatchNorm over positions, for 120 random shapes",
                   "[batch_norm2d]", float, double) {
    using Scalar = TestType;
    Philox random{1};
    const double epsilon = 32 * static_cast<double>(std::numeric_limits<Scalar>::epsilon());
    for (int trial = 0; trial < 120; ++trial) {
        const ImageShape shape{trial % 3 == 0 ? 8 * whole(random, 1, 3) : whole(random, 1, 19),
                               whole(random, 1, 5), whole(random, 1, 5)};
        const auto layer = batch_norm<Scalar>(random, shape);
        CAPTURE(trial, layer.description());
        const Index batch = whole(random, 0, 5);
        const Matrix<Scalar> x = random_matrix<Scalar>(random, shape.size(), batch);
        const Matrix<Scalar> dy = random_matrix<Scalar>(random, shape.size(), batch);
        REQUIRE(largest_difference(positions<Scalar>(run(layer, x), shape),
                                   run(layer.channels(), positions<Scalar>(x, shape))) <=
                4 * epsilon);

        Matrix<Scalar> y = x, dx = dy;
        const auto gradient = step_through(layer, y, dx);
        Matrix<Scalar> expected = positions<Scalar>(x, shape),
                       by_input = positions<Scalar>(dy, shape);
        const auto plain = step_through(layer.channels(), expected, by_input);
        // A channel of a few positions may be nearly constant.
        const double size =
            batch == 0 ? 1 : 1 + static_cast<double>(by_input.cwiseAbs().maxCoeff());
        REQUIRE(largest_difference(positions<Scalar>(y, shape), expected) <= epsilon * size);
        REQUIRE(largest_difference(positions<Scalar>(dx, shape), by_input) <=
                4 * epsilon * size * size);
        REQUIRE(largest_difference(gradient.gain, plain.gain) <= 4 * epsilon * size);
        REQUIRE(largest_difference(gradient.bias, plain.bias) <= 4 * epsilon);
    }
}

TEST_CASE("BatchNorm2d is what its definition says, forward and back, for 500 random shapes",
          "[batch_norm2d]") {
    Philox random{8};
    for (int trial = 0; trial < 500; ++trial) {
        const ImageShape shape{whole(random, 1, 9), whole(random, 1, 4), whole(random, 1, 4)};
        const Index batch = whole(random, 1, 3), n = batch * shape.positions();
        const double epsilon = 0.1;
        const auto layer = batch_norm<double>(random, shape, {.epsilon = epsilon});
        const BatchNorm<double>& of = layer.channels();
        CAPTURE(trial, layer.description(), batch);
        Matrix<double> x = random_matrix<double>(random, shape.size(), batch);
        Matrix<double> dy = random_matrix<double>(random, shape.size(), batch);
        Matrix<double> in_use = x, y = x, dx = x, dgain(shape.channels, 1),
                       dbias(shape.channels, 1);
        for (Index c = 0; c < shape.channels; ++c) {
            const auto sum = [&](const auto& number) {
                double total = 0;
                for (Index j = 0; j < batch; ++j)
                    for (Index i = c; i < shape.size(); i += shape.channels) total += number(i, j);
                return total;
            };
            // One number of a channel has no variance: the running statistics stand in.
            const auto numbers = static_cast<double>(n);
            const double mean = n > 1 ? sum([&](Index i, Index j) { return x(i, j); }) / numbers
                                      : of.running_mean()(c);
            const double variance =
                n > 1 ? sum([&](Index i, Index j) { return std::pow(x(i, j) - mean, 2); }) / numbers
                      : of.running_variance()(c);
            const double scale = of.gain()(c) / std::sqrt(variance + epsilon);
            const auto normal = [&](Index i, Index j) {
                return (x(i, j) - mean) / std::sqrt(variance + epsilon);
            };
            dbias(c) = sum([&](Index i, Index j) { return dy(i, j); });
            dgain(c) = sum([&](Index i, Index j) { return dy(i, j) * normal(i, j); });
            for (Index j = 0; j < batch; ++j)
                for (Index i = c; i < shape.size(); i += shape.channels) {
                    in_use(i, j) = (x(i, j) - of.running_mean()(c)) * of.gain()(c) /
                                       std::sqrt(of.running_variance()(c) + epsilon) +
                                   of.bias()(c);
                    y(i, j) = scale * (x(i, j) - mean) + of.bias()(c);
                    dx(i, j) = scale * dy(i, j);
                    if (n > 1) dx(i, j) -= scale * (dbias(c) + normal(i, j) * dgain(c)) / numbers;
                }
        }
        REQUIRE(largest_difference(run(layer, x), in_use) <= 1e-12);
        const auto gradient = step_through(layer, x, dy);
        REQUIRE(largest_difference(x, y) <= 1e-12);
        REQUIRE(largest_difference(dy, dx) <= 1e-12);
        REQUIRE(largest_difference(gradient.gain, dgain) <= 1e-12);
        REQUIRE(largest_difference(gradient.bias, dbias) <= 1e-12);
    }
}

TEST_CASE("BatchNorm2d keeps the layer contract, by its running statistics", "[batch_norm2d]") {
    Philox random{2};
    for (const ImageShape& shape : {ImageShape{1, 1, 1}, {3, 2, 3}, {16, 2, 2}, {19, 1, 2}})
        check_layer_contract("BatchNorm2d", batch_norm<double>(random, shape), shape.size());
    check_layer_contract("BatchNorm2d", batch_norm<float>(random, {9, 2, 1}), 18);
    check_refuses_other_inputs(batch_norm<double>(random, {3, 2, 2}), 12, "BatchNorm2d");
}

TEST_CASE("BatchNorm2d: a step's gradient is that of its loss, for 90 random shapes and pools",
          "[batch_norm2d]") {
    Philox random{3};
    for (int trial = 0; trial < 90; ++trial) {
        // Enough numbers for each channel: of two, one sign is all that a normalisation leaves.
        const ImageShape shape{whole(random, 1, 9), whole(random, 2, 4), whole(random, 2, 4)};
        const Index batch = whole(random, 1, 3);
        const Sliding one{shape, 1, 1, 0};
        const Pool2dOptions window{.kernel = 2,
                                   .stride = whole(random, 1, 2),
                                   .padding = whole(random, 0, 1)};
        const MaxPool2d<double> largest{shape, window};
        const Sequential network{
            convolution<double>(random, one, shape.channels),
            StochasticDepth{
                Residual{Sequential{batch_norm<double>(random, shape), Tanh<double>{},
                                    convolution<double>(random, one, shape.channels),
                                    batch_norm<double>(random, shape)}},
                SurvivalProbability{0.5}},
            largest,
            AveragePool2d<double>{largest.output_shape(), {.kernel = 1, .stride = 2}}};
        const Matrix<double> x = random_matrix<double>(random, shape.size(), batch);
        const Matrix<double> targets =
            random_matrix<double>(random, network.output_size(x.rows()), batch);
        const auto error =
            gradient_error(network, x, SurvivalMask::all(1), MeanSquaredError<double>{}, targets);
        CAPTURE(trial, detail::text_of(shape), batch, error.where, error.slope, error.difference);
        CHECK(error.largest < 1e-6);
    }
}

TEST_CASE("BatchNorm2d: a step's statistics are taken over, of all positions", "[batch_norm2d]") {
    Philox random{4};
    // Positions: one block, and more, of which the last one is not full.
    const ImageShape shape = GENERATE(ImageShape{5, 3, 2}, ImageShape{17, 19, 31});
    using Network = StochasticDepth<BatchNorm2d<double>>;
    const auto layer = batch_norm<double>(random, shape, {.momentum = 0.25});
    Network network{layer, SurvivalProbability{0.5}};
    const Matrix<double> x = random_matrix<double>(random, shape.size(), 4).array() + 40;
    // Samples 1 and 3 skip the layer.
    SurvivalMasks masks{1, 4};
    for (Index j = 0; j < 4; ++j)
        masks.set_mask(j, j % 2 == 0 ? SurvivalMask::all(1) : SurvivalMask::none(1));
    TrainingStep step{network, MeanSquaredError<double>{}};
    step.differentiate(network, x, x, masks);
    step.finish(network);
    Matrix<double> kept(shape.size(), 2);
    kept << x.col(0), x.col(2);
    const Matrix<double> all = positions<double>(kept, shape);
    for (Index c = 0; c < shape.channels; ++c) {
        const double mean = all.row(c).mean();
        const double variance = (all.row(c).array() - mean).square().sum() / static_cast<double>(all.cols() - 1);
        const auto& before = layer.channels();
        const auto& after = network.layer().channels();
        CHECK(std::abs(after.running_mean()(c) - (0.75 * before.running_mean()(c) + 0.25 * mean)) <=
              1e-12);
        CHECK(std::abs(after.running_variance()(c) -
                       (0.75 * before.running_variance()(c) + 0.25 * variance)) <= 1e-12);
    }
}

TEST_CASE("BatchNorm2d: a large common offset costs no more digits than it has itself",
          "[batch_norm2d]") {
    Philox random{5};
    const ImageShape shape{16, 4, 4};
    const BatchNorm2d<float> layer{shape};
    const Matrix<float> x = random_matrix<float>(random, shape.size(), 8).array() + 1000.0f;
    Matrix<double> expected = positions<double>(x.cast<double>(), shape);
    expected.colwise() -= expected.rowwise().mean().eval();
    for (Index c = 0; c < shape.channels; ++c)
        expected.row(c) /= std::sqrt(expected.row(c).squaredNorm() / 128 + 1e-5);
    Matrix<float> y = x, dy = x;
    step_through(layer, y, dy);
    CHECK(largest_difference(positions<float>(y, shape), expected) <= 3e-4);
}

TEST_CASE("BatchNorm2d: bits of a step don't depend on the number of threads", "[batch_norm2d]") {
    Philox random{6};
    const ImageShape shape{24, 16, 16};
    const auto layer = batch_norm<float>(random, shape);
    const Matrix<float> x = random_matrix<float>(random, shape.size(), 12);
    const Matrix<float> slopes = random_matrix<float>(random, shape.size(), 12);
    Matrix<float> y = x, dx = slopes;
    const auto alone = step_through(layer, y, dx);
    for (const unsigned threads : {2u, 3u}) {
        const detail::ThreadTeam team{threads};
        Matrix<float> y_again = x, dx_again = slopes;
        const auto gradient = step_through(layer, y_again, dx_again, team);
        CHECK(same_bits(y_again, y));
        CHECK(same_bits(dx_again, dx));
        CHECK(same_bits(gradient.gain, alone.gain));
    }
}

TEST_CASE("bad input: BatchNorm2d refuses what is no shape, option or channel", "[batch_norm2d]") {
    refuses([] { (void)BatchNorm2d<double>({0, 2, 2}); }, {"BatchNorm2d: shape", "0 x 2 x 2"});
    refuses([] { (void)BatchNorm2d<double>({2, 2, -2}); }, {"BatchNorm2d: shape", "2 x 2 x -2"});
    refuses(
        [] {
            (void)BatchNorm2d<double>({2, 2, 2}, {.epsilon = 0});
        },
        {"BatchNorm: epsilon", "got 0"});
    refuses(
        [] {
            (void)BatchNorm2d<double>({2, 2, 2}, BatchNorm<double>{3});
        },
        {"BatchNorm2d: channels", "must be 2", "got 3"});
    const BatchNorm2d<double> layer{{2, 2, 2}};
    BatchNorm2d<double>::Cache cache;
    BatchNorm2d<double>::Gradient wrong;
    Matrix<double> x = Matrix<double>::Zero(8, 1), y = x;
    layer.forward(x, y, cache);
    refuses([&] { layer.backward(x, x, cache, wrong, y); }, {"BatchNorm2d: gradient", "2"});
}

}  // namespace
