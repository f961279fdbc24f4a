// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/sequence/multi_head_attention.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <stochastic_depth/random/philox.hpp>

#include "support/layer_contract.hpp"
#include "support/recorded_pass.hpp"
#include "support/refusals.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;

template <class Scalar>
MultiHeadAttention<Scalar> attention(Philox& random, const MultiHeadAttentionOptions& options) {
    const Index d = options.width;
    const Scalar size = Scalar(1) / static_cast<Scalar>(std::sqrt(static_cast<double>(d)));
    const Matrix<Scalar> w = 2 * size * random_matrix<Scalar>(random, 3 * d, d);
    const Matrix<Scalar> v = size * random_matrix<Scalar>(random, d, d);
    const Vector<Scalar> b = random_matrix<Scalar>(random, options.bias ? 3 * d : 0, 1);
    const Vector<Scalar> a = random_matrix<Scalar>(random, options.bias ? d : 0, 1);
    return {options, w, b, v, a};
}

[[nodiscard]] Index whole(Philox& random, Index low, Index high) {
    return low + static_cast<Index>(random() % static_cast<std::uint64_t>(high - low + 1));
}

/// One sequence by the definition, forward and back.
struct PlainAttention {
    const MultiHeadAttention<double>& layer;
    Matrix<double> q, k, v, context;
    std::vector<Matrix<double>> p;

    [[nodiscard]] Matrix<double> turned(const Matrix<double>& x, double sign) const {
        const Index width = layer.head_width();
        Matrix<double> y = x;
        for (Index t = 0; t < x.cols(); ++t)
            for (Index h = 0; h < layer.heads(); ++h)
                for (Index i = 0; i < width / 2; ++i) {
                    const double angle =
                        sign * static_cast<double>(t) *
                        std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(width));
                    const Index a = h * width + i, b = a + width / 2;
                    y(a, t) = x(a, t) * std::cos(angle) - x(b, t) * std::sin(angle);
                    y(b, t) = x(a, t) * std::sin(angle) + x(b, t) * std::cos(angle);
                }
        return y;
    }

    /// \param x  [width x T].
    [[nodiscard]] Matrix<double> forward(const Matrix<double>& x) {
        const Index d = layer.width(), width = layer.head_width(), length = x.cols();
        const Matrix<double> all = (layer.in_weights() * x).colwise() + layer.in_bias();
        q = all.topRows(d);
        k = all.middleRows(d, d);
        v = all.bottomRows(d);
        if (layer.options().rotary) {
            q = turned(q, 1);
            k = turned(k, 1);
        }
        context = Matrix<double>::Zero(d, length);
        p.assign(static_cast<std::size_t>(layer.heads()), Matrix<double>::Zero(length, length));
        for (Index h = 0; h < layer.heads(); ++h) {
            Matrix<double>& of_head = p[static_cast<std::size_t>(h)];
            for (Index t = 0; t < length; ++t) {
                const Index keys = layer.options().causal ? t + 1 : length;
                double sum = 0;
                for (Index s = 0; s < keys; ++s) {
                    of_head(s, t) = std::exp(q.col(t).segment(h * width, width).dot(
                                                 k.col(s).segment(h * width, width)) /
                                             std::sqrt(static_cast<double>(width)));
                    sum += of_head(s, t);
                }
                of_head.col(t) /= sum;
                for (Index s = 0; s < keys; ++s)
                    context.col(t).segment(h * width, width) +=
                        of_head(s, t) * v.col(s).segment(h * width, width);
            }
        }
        return (layer.out_weights() * context).colwise() + layer.out_bias();
    }

    /// After forward: adds to the gradients, and returns that by x.
    [[nodiscard]] Matrix<double> backward(const Matrix<double>& x, const Matrix<double>& dy,
                                          MultiHeadAttention<double>::Gradient& gradient) const {
        const Index d = layer.width(), width = layer.head_width(), length = x.cols();
        gradient.out.weights += dy * context.transpose();
        gradient.out.bias += dy.rowwise().sum();
        const Matrix<double> dc = layer.out_weights().transpose() * dy;
        Matrix<double> dq = Matrix<double>::Zero(d, length), dk = dq, dv = dq;
        const double scale = 1 / std::sqrt(static_cast<double>(width));
        for (Index h = 0; h < layer.heads(); ++h) {
            const Matrix<double>& of_head = p[static_cast<std::size_t>(h)];
            const Index row = h * width;
            const Matrix<double> dp =
                v.middleRows(row, width).transpose() * dc.middleRows(row, width);
            Matrix<double> ds(length, length);
            for (Index t = 0; t < length; ++t)
                for (Index s = 0; s < length; ++s)
                    ds(s, t) =
                        of_head(s, t) * (dp(s, t) - of_head.col(t).dot(dp.col(t))) * scale;
            dv.middleRows(row, width) = dc.middleRows(row, width) * of_head.transpose();
            dq.middleRows(row, width) = k.middleRows(row, width) * ds;
            dk.middleRows(row, width) = q.middleRows(row, width) * ds.transpose();
        }
        if (layer.options().rotary) {
            dq = turned(dq, -1);
            dk = turned(dk, -1);
        }
        Matrix<double> all(3 * d, length);
        all << dq, dk, dv;
        gradient.in.weights += all * x.transpose();
        gradient.in.bias += all.rowwise().sum();
        return layer.in_weights().transpose() * all;
    }
};

TEST_CASE("MultiHeadAttention equals its definition, forward and back, for 200 random shapes",
          "[multi_head_attention]") {
    Philox random{1};
    for (int trial = 0; trial < 200; ++trial) {
        const Index head_width = trial % 3 == 0 ? 2 * whole(random, 1, 10) : whole(random, 1, 9);
        const Index heads = whole(random, 1, 4), d = heads * head_width;
        const bool rotary = head_width % 2 == 0 && trial % 2 == 0;
        const Index positions = trial % 10 == 0 ? whole(random, 40, 70) : whole(random, 1, 20);
        const Index columns = trial % 10 == 0 ? 1 : trial % 4;
        const auto layer = attention<double>(random, {.width = d,
                                                      .heads = heads,
                                                      .causal = trial % 5 < 2,
                                                      .rotary = rotary,
                                                      .bias = trial % 7 != 0});
        CAPTURE(trial, layer.description(), positions, columns);
        const Matrix<double> x = random_matrix<double>(random, d * positions, columns);
        const Matrix<double> dy = random_matrix<double>(random, d * positions, columns);
        Matrix<double> y(x.rows(), columns), dx(x.rows(), columns);
        auto plain_gradient = layer.zero_gradient();
        for (Index j = 0; j < columns; ++j) {
            PlainAttention plain{layer, {}, {}, {}, {}, {}};
            const Matrix<double> sequence = x.col(j).reshaped(d, positions);
            y.col(j) = plain.forward(sequence).reshaped();
            dx.col(j) =
                plain.backward(sequence, dy.col(j).reshaped(d, positions), plain_gradient)
                    .reshaped();
        }
        REQUIRE(largest_difference(run(layer, x), y) <= 1e-12);
        RecordedPass<MultiHeadAttention<double>> pass;
        auto gradient = layer.zero_gradient();
        Matrix<double> h = x, by_input = dy;
        pass.forward(layer, h, detail::EveryLayer{});
        REQUIRE(largest_difference(h, y) <= 1e-12);
        pass.backward(layer, by_input, gradient);
        REQUIRE(largest_difference(by_input, dx) <= 1e-12);
        REQUIRE(largest_difference(gradient.in.weights, plain_gradient.in.weights) <= 1e-12);
        REQUIRE(largest_difference(gradient.out.weights, plain_gradient.out.weights) <= 1e-12);
        REQUIRE(largest_difference(gradient.in.bias, plain_gradient.in.bias) <= 1e-12);
        REQUIRE(largest_difference(gradient.out.bias, plain_gradient.out.bias) <= 1e-12);
    }
}

TEST_CASE("MultiHeadAttention keeps the layer contract", "[multi_head_attention]") {
    Philox random{2};
    const auto check = [&](const MultiHeadAttentionOptions& options, Index positions) {
        check_layer_contract("MultiHeadAttention", attention<double>(random, options),
                             positions * options.width);
        check_layer_contract("MultiHeadAttention", attention<float>(random, options),
                             positions * options.width);
    };
    check({.width = 4, .heads = 2}, 3);
    check({.width = 6, .heads = 1, .causal = true, .rotary = true}, 4);
    static_assert(DifferentiableLayer<MultiHeadAttention<float>>);
}

TEST_CASE("MultiHeadAttention: steps with a cache have the bits of the whole sequences",
          "[multi_head_attention]") {
    Philox random{3};
    for (const Index positions : {1, 5, 33}) {
        const auto layer = attention<float>(
            random, {.width = 24, .heads = 3, .causal = true, .rotary = true});
        const Index columns = 3, d = layer.width();
        const Matrix<float> x = random_matrix<float>(random, d * positions, columns);
        const Matrix<float> y = run(layer, x);
        KeyValueCache<float> cache = layer.empty_cache(columns);
        Matrix<float> stepped(x.rows(), columns);
        const Index prompt = positions / 3;
        if (prompt > 0) layer.step(x.topRows(d * prompt), cache, stepped.topRows(d * prompt));
        for (Index t = prompt; t < positions; ++t)
            layer.step(x.middleRows(d * t, d), cache, stepped.middleRows(d * t, d));
        CHECK(same_bits(stepped, y));
    }
}

}  // namespace
