// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/image/conv2d.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/elementwise/relu.hpp>
#include <stochastic_depth/layers/elementwise/tanh.hpp>
#include <stochastic_depth/threads/thread_team.hpp>
#include <stochastic_depth/training/gradient_error.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>

#include "support/images.hpp"
#include "support/layer_contract.hpp"
#include "support/product.hpp"
#include "support/recorded_pass.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

/// A convolution and its way back by their definition.
template <class Scalar>
struct PlainConvolution {
    const Sliding& s;
    const Conv2d<Scalar>& layer;

    /// Of each output one chain of multiply-adds, in the order that is promised.
    [[nodiscard]] Matrix<Scalar> forward(const Matrix<Scalar>& x) const {
        const ImageShape out = layer.output_shape();
        Matrix<Scalar> y(out.size(), x.cols());
        for (Index i = 0; i < y.rows(); ++i)
            y.row(i).setConstant(layer.options().bias ? layer.bias()(i % out.channels) : Scalar(0));
        each(out, [&](Index o, Index column, Index to, Index from) {
            for (Index j = 0; j < x.cols(); ++j)
                y(to, j) = test::multiply_add(layer.weights()(o, column), x(from, j), y(to, j));
        });
        return y;
    }

    void backward(const Matrix<Scalar>& x, const Matrix<Scalar>& dy, Matrix<Scalar>& dw,
                  Matrix<Scalar>& db, Matrix<Scalar>& dx) const {
        const ImageShape out = layer.output_shape();
        dw = Matrix<Scalar>::Zero(out.channels, layer.weights().cols());
        db = Matrix<Scalar>::Zero(layer.options().bias ? out.channels : 0, 1);
        dx = Matrix<Scalar>::Zero(x.rows(), x.cols());
        for (Index i = 0; i < dy.rows() && db.size() > 0; ++i)
            db(i % out.channels) += dy.row(i).sum();
        each(out, [&](Index o, Index column, Index to, Index from) {
            dw(o, column) += dy.row(to).dot(x.row(from));
            dx.row(from) += layer.weights()(o, column) * dy.row(to);
        });
    }

private:
    /// Calls visit(output channel, column of the weights, row of y, row of x).
    template <class Visit>
    void each(const ImageShape& out, const Visit& visit) const {
        const Index groups = layer.options().groups;
        const Index inputs = s.input.channels / groups, outputs = out.channels / groups;
        s.for_each_tap([&](Index u, Index v, Index from_u, Index from_v, Index tap) {
            for (Index c = 0; c < inputs; ++c)
                for (Index o = 0; o < out.channels; ++o)
                    visit(o, c + inputs * tap, row_of(out, o, u, v),
                          row_of(s.input, c + o / outputs * inputs, from_u, from_v));
        });
    }
};

/// Compares a layer and its way back with their definition.
void check_definition(Philox& random, const Sliding& s, const Conv2d<double>& layer, Index batch) {
    CAPTURE(layer.description(), batch);
    const Matrix<double> x = random_matrix<double>(random, s.input.size(), batch);
    REQUIRE(layer.output_shape() == s.output(layer.options().channels));
    const PlainConvolution<double> plain{s, layer};
    const Matrix<double> y = plain.forward(x);
    REQUIRE(same_bits(run(layer, x), y));

    const Matrix<double> dy = random_matrix<double>(random, y.rows(), x.cols());
    Matrix<double> dw, db, dx, by_input = dy, h = x;
    plain.backward(x, dy, dw, db, dx);
    RecordedPass<Conv2d<double>> pass;
    auto gradient = layer.zero_gradient();
    pass.forward(layer, h, detail::EveryLayer{});
    pass.backward(layer, by_input, gradient);
    REQUIRE(largest_difference(by_input, dx) <= 1e-12);
    REQUIRE(largest_difference(gradient.weights, dw) <= 1e-12);
    REQUIRE(gradient.bias.size() == db.size());
    REQUIRE(largest_difference(gradient.bias, db) <= 1e-12);
}

/// Any window, and groups: of one channel, of several, and one for each channel.
struct Grouped {
    Sliding s;
    Index groups, channels;

    explicit Grouped(Philox& random) : s(random_sliding(random, 4)) {
        const Index kind = whole(random, 0, 2);
        groups = kind == 0 ? whole(random, 2, 40) : whole(random, 2, 4);
        const Index inputs = kind == 0 ? 1 : whole(random, 1, 5);
        channels = groups * (kind == 0   ? 1
                             : kind == 1 ? whole(random, 1, 4)
                                         : whole(random, 5, 18));
        s.input.channels = groups * inputs;
    }
};

TEST_CASE("Conv2d is the convolution of its definition, forward and back, for 500 random shapes",
          "[conv2d]") {
    Philox random{1};
    for (int trial = 0; trial < 500; ++trial) {
        const Sliding s = random_sliding(random, 6);
        // Now and then so many that a tile of one packet overlaps the one before it.
        const Index channels = trial % 25 == 1  ? whole(random, 65, 71)
                               : trial % 4 == 0 ? 8 * whole(random, 1, 4)
                                                : whole(random, 1, 19);
        CAPTURE(trial);
        check_definition(random, s, convolution<double>(random, s, channels, trial % 3 != 0),
                         trial % 4);
    }
}

TEST_CASE("Conv2d in groups is that of its definition, forward and back, for 300 random shapes",
          "[conv2d]") {
    Philox random{8};
    for (int trial = 0; trial < 300; ++trial) {
        const Grouped of(random);
        CAPTURE(trial);
        check_definition(random, of.s,
                         convolution<double>(random, of.s, of.channels, trial % 3 != 0, of.groups),
                         trial % 4);
    }
}

TEST_CASE("Conv2d: bits are those of multiply-adds in the order promised, whatever the packet",
          "[conv2d]") {
    Philox random{9};
    for (int trial = 0; trial < 60; ++trial) {
        const bool in_groups = trial % 2 == 1;
        const Grouped of(random);
        const Index channels = in_groups ? of.channels : whole(random, 1, 70);
        const auto layer =
            convolution<float>(random, of.s, channels, true, in_groups ? of.groups : 1);
        const Matrix<float> x = random_matrix<float>(random, of.s.input.size(), 2);
        CAPTURE(trial, layer.description());
        REQUIRE(same_bits(run(layer, x), PlainConvolution<float>{of.s, layer}.forward(x)));
    }
}

TEMPLATE_TEST_CASE("Conv2d keeps the layer contract", "[conv2d]", float, double) {
    using Scalar = TestType;
    Philox random{2};
    const auto check = [&](const Sliding& s, Index channels, bool bias) {
        check_layer_contract("Conv2d", convolution<Scalar>(random, s, channels, bias),
                             s.input.size());
    };
    check({{3, 5, 4}, 3, 1, 1}, 7, true);
    check({{2, 6, 5}, 3, 2, 1}, 16, false);
    check({{3, 3, 4}, 1, 1, 0}, 5, true);
    check({{1, 2, 2}, 4, 1, 2}, 3, true);
    const Sliding wide{{20, 4, 3}, 3, 2, 1};
    for (const Index groups : {2, 20})
        check_layer_contract("Conv2d", convolution<Scalar>(random, wide, 20, true, groups), 240);
    check_refuses_other_inputs(convolution<Scalar>(random, {{2, 3, 3}, 3, 1, 1}, 4), 18, "Conv2d");
    static_assert(DifferentiableLayer<Conv2d<Scalar>>);
}

TEST_CASE("Conv2d: what follows runs in its registers, with the bits of two passes", "[conv2d]") {
    Philox random{3};
    const Sliding s{{16, 9, 7}, 3, 1, 1};
    const auto layer = convolution<float>(random, s, 16);
    const Matrix<float> x = random_matrix<float>(random, s.input.size(), 5);
    const Matrix<float> y = run(layer, x);
    CHECK(same_bits(run(Sequential{layer, ReLU<float>{}}, x), y.cwiseMax(0.0f)));
    // y + x, where rounding is the same.
    CHECK(same_bits(run(Residual{layer}, x), y + x));
    CHECK(same_bits(run(Residual{Sequential{layer, ReLU<float>{}}}, x), y.cwiseMax(0.0f) + x));
    for (const Index groups : {2, 16}) {
        const auto grouped = convolution<float>(random, s, 16, true, groups);
        const Matrix<float> z = run(grouped, x);
        CHECK(
            same_bits(run(Residual{Sequential{grouped, ReLU<float>{}}}, x), z.cwiseMax(0.0f) + x));
    }
}

TEST_CASE("Conv2d: a step's gradient is that of its loss, for 120 random shapes", "[conv2d]") {
    Philox random{4};
    for (int trial = 0; trial < 120; ++trial) {
        Sliding s = random_sliding(random, 2);
        const Index groups = trial % 3 == 0 ? s.input.channels : 1;
        const auto first =
            convolution<double>(random, s, groups * whole(random, 1, 3), true, groups);
        const Sliding then{first.output_shape(), 1, 1, 0};
        const Sequential network{first, Tanh<double>{},
                                 Residual{convolution<double>(random, then, then.input.channels)}};
        CAPTURE(trial, first.description());
        const Matrix<double> x = random_matrix<double>(random, s.input.size(), 2);
        const Matrix<double> targets =
            random_matrix<double>(random, network.output_size(x.rows()), 2);
        const auto error =
            gradient_error(network, x, SurvivalMask::all(0), MeanSquaredError<double>{}, targets);
        CAPTURE(error.where);
        CHECK(error.largest < 1e-8);
    }
}

TEST_CASE("Conv2d: the same bits for any number of threads", "[conv2d]") {
    Philox random{5};
    const Sliding s{{24, 12, 12}, 3, 2, 1};
    const Index groups = GENERATE(1, 3, 24);
    const auto layer = convolution<float>(random, s, 24, true, groups);
    const Matrix<float> x = random_matrix<float>(random, s.input.size(), 40);
    const Matrix<float> dy = random_matrix<float>(random, layer.output_shape().size(), 40);
    const auto pass_of = [&](unsigned threads) {
        const detail::ThreadTeam team{threads};
        RecordedPass<Conv2d<float>> pass{team};
        Matrix<float> y = x, dx = dy;
        auto gradient = layer.zero_gradient();
        pass.forward(layer, y, detail::EveryLayer{});
        pass.backward(layer, dx, gradient);
        Matrix<float> all(y.size() + dx.size() + gradient.weights.size() + gradient.bias.size(), 1);
        all << y.reshaped(), dx.reshaped(), gradient.weights.reshaped(), gradient.bias;
        return all;
    };
    const Matrix<float> alone = pass_of(1);
    CHECK(same_bits(pass_of(2), alone));
    CHECK(same_bits(pass_of(3), alone));
}

TEST_CASE("Conv2d: taps outside of the image are left out, whatever their weights", "[conv2d]") {
    const double infinite = std::numeric_limits<double>::infinity();
    Matrix<double> weights = Matrix<double>::Ones(1, 9);
    weights(0, 0) = infinite;
    const Conv2d<double> layer{
        {1, 2, 2}, {.channels = 1, .padding = 1}, weights, Vector<double>::Zero(1)};
    const Matrix<double> y = run(layer, Matrix<double>::Ones(4, 1));
    // The upper left tap exists for the lower right output alone.
    CHECK(y(0) == 4);
    CHECK(y(1) == 4);
    CHECK(y(2) == 4);
    CHECK(y(3) == infinite);
}

TEST_CASE("Conv2d: a NaN stays in its group", "[conv2d]") {
    Philox random{10};
    for (const Index groups : {2, 4}) {
        const auto layer = convolution<double>(random, {{4, 3, 3}, 3, 1, 1}, 4, true, groups);
        Matrix<double> x = random_matrix<double>(random, 36, 1);
        const Matrix<double> healthy = run(layer, x);
        x(row_of({4, 3, 3}, 0, 1, 1)) = test::nan;
        const Matrix<double> y = run(layer, x);
        for (Index i = 0; i < 36; ++i)
            if (i % 4 >= 4 / groups)
                CHECK(y(i) == healthy(i));
            else
                CHECK(std::isnan(y(i)));
    }
}

TEST_CASE("Conv2d: initial weights have the variance of the gain", "[conv2d]") {
    Philox random{6};
    const Conv2d<double> layer{{16, 8, 8}, {.channels = 64, .padding = 1}, random, 1.0};
    const double variance =
        layer.weights().squaredNorm() / static_cast<double>(layer.weights().size());
    CHECK(std::abs(variance * 144 - 1) < 0.05);
    CHECK(layer.bias().isZero(0));
    CHECK(layer.weights().cwiseAbs().maxCoeff() <= std::sqrt(3.0 / 144));
    // In groups an output has fewer inputs, and takes less work.
    const Conv2d<double> grouped{
        {16, 8, 8}, {.channels = 64, .padding = 1, .groups = 4}, random, 1.0};
    CHECK(grouped.weights().cols() == 36);
    CHECK(grouped.work() == layer.work() / 4);
    CHECK(grouped.weights().cwiseAbs().maxCoeff() > std::sqrt(3.0 / 144));
    CHECK(grouped.weights().cwiseAbs().maxCoeff() <= std::sqrt(3.0 / 36));
    CHECK(grouped.description() ==
          "Conv2d 16 x 8 x 8 -> 64 x 8 x 8, kernel 3, stride 1, padding 1, "
          "groups 4");
    const TensorForm form = grouped.tensor_form({"weights", {}, {}});
    CHECK(form.shape == std::vector<Index>{64, 4, 3, 3});
    CHECK(form.strides == std::vector<Index>{1, 64, 64 * 4 * 3, 64 * 4});
}

TEST_CASE("bad input: Conv2d refuses shapes, options and matrices that don't fit", "[conv2d]") {
    Philox random{7};
    const Philox before = random;
    const auto unchanged = [&] { return random == before; };
    const auto build = [&](const ImageShape& shape, const Conv2dOptions& options, double gain = 1) {
        return
            [&random, shape, options, gain] { (void)Conv2d<double>(shape, options, random, gain); };
    };
    const Index huge = Index{1} << 40;
    refuses(build({0, 4, 4}, {}), {"Conv2d: input", "0 x 4 x 4"}, unchanged);
    refuses(build({1, -1, 4}, {}), {"Conv2d: input", "1 x -1 x 4"}, unchanged);
    refuses(build({huge, huge, 4}, {}), {"Conv2d: input", "2^40"}, unchanged);
    refuses(build({1, 4, 4}, {.channels = 0}), {"Conv2d: channels", "got 0"}, unchanged);
    refuses(build({1, 4, 4}, {.kernel = 0}), {"Conv2d: kernel", "got 0"}, unchanged);
    refuses(build({1, 4, 4}, {.kernel = 5}), {"Conv2d: kernel", "at most 4", "got 5"}, unchanged);
    refuses(build({4, 4, 4}, {.channels = 4, .groups = 0}), {"Conv2d: groups", "got 0"}, unchanged);
    refuses(build({4, 4, 4}, {.channels = 4, .groups = -2}), {"Conv2d: groups", "got -2"},
            unchanged);
    refuses(build({4, 4, 4}, {.channels = 6, .groups = 4}),
            {"Conv2d: groups", "4 input channels and 6 channels", "got 4"}, unchanged);
    refuses(build({6, 4, 4}, {.channels = 4, .groups = 4}), {"Conv2d: groups", "got 4"}, unchanged);
    refuses(build({1, 4, 4}, {.stride = 0}), {"Conv2d: stride", "got 0"}, unchanged);
    refuses(build({1, 4, 4}, {.padding = -1}), {"Conv2d: padding", "got -1"}, unchanged);
    refuses(build({1, 4, 4}, {.padding = huge}), {"Conv2d: padding", "got"}, unchanged);
    refuses(build({1, 4, 4}, {.channels = huge, .padding = 1}), {"Conv2d: output", "2^40"},
            unchanged);
    refuses(build({1, 4, 4}, {}, -1.0), {"Conv2d: gain", "got -1"}, unchanged);
    refuses(build({1, 4, 4}, {}, test::nan), {"Conv2d: gain", "got nan"}, unchanged);
    const auto given = [](bool bias, Index rows, Index columns, Index entries) {
        return [=] {
            (void)Conv2d<double>({2, 4, 4}, {.channels = 3, .bias = bias},
                                 Matrix<double>::Zero(rows, columns),
                                 Vector<double>::Zero(entries));
        };
    };
    refuses(given(true, 2, 18, 3), {"Conv2d: weights", "[3 x 18]", "got [2 x 18]"});
    refuses(given(true, 3, 9, 3), {"Conv2d: weights", "[3 x 18]", "got [3 x 9]"});
    refuses(given(true, 3, 18, 2), {"Conv2d: bias", "3 entries", "got 2"});
    refuses(given(false, 3, 18, 3), {"Conv2d: bias", "0 entries", "got 3"});
    refuses(
        [] {
            (void)Conv2d<double>({2, 4, 4}, {.channels = 4, .groups = 2},
                                 Matrix<double>::Zero(4, 18), Vector<double>::Zero(4));
        },
        {"Conv2d: weights", "[4 x 9]", "got [4 x 18]"});
    const Conv2d<double> layer{{2, 4, 4}, {.channels = 3}, random};
    Conv2d<double>::Cache cache;
    const Matrix<double> x = Matrix<double>::Zero(32, 1), dy = Matrix<double>::Zero(12, 1);
    Matrix<double> y = dy, dx = x;
    layer.forward(x, y, cache);
    Conv2d<double>::Gradient wrong;
    refuses([&] { layer.backward(x, dy, cache, wrong, dx); }, {"Conv2d: gradient", "[3 x 18]"});
}

}  // namespace
