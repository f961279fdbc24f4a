// SPDX-License-Identifier: MIT
#include <stochastic_depth/layers/sequence/multi_head_attention.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/threads/thread_team.hpp>
#include <stochastic_depth/training/gradient_error.hpp>
#include <stochastic_depth/training/mean_squared_error.hpp>

#include "support/layer_contract.hpp"
#include "support/refusals.hpp"
#include "support/whole.hpp"

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
                    const double angle = sign * static_cast<double>(t) *
                                         std::pow(10000.0, -2.0 * static_cast<double>(i) /
                                                               static_cast<double>(width));
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
                    of_head(s, t) = std::exp(
                        q.col(t).segment(h * width, width).dot(k.col(s).segment(h * width, width)) /
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
                    ds(s, t) = of_head(s, t) * (dp(s, t) - of_head.col(t).dot(dp.col(t))) * scale;
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

/// A pass over sequences of given lengths (empty: all are full), forward and back.
template <class Layer>
struct LengthsPass {
    using Scalar = typename Layer::Scalar;
    const Layer& layer;
    std::vector<Index> lengths;
    const detail::Team& team = detail::Team::alone();
    detail::Tape tape = {};
    detail::RecordOf<Layer, detail::Records> record = {};

    [[nodiscard]] detail::SequenceLengths view() const {
        if (lengths.empty()) return {};
        return {lengths.data(), static_cast<Index>(lengths.size())};
    }
    /// In use.
    [[nodiscard]] Matrix<Scalar> run(const Matrix<Scalar>& x) const {
        detail::SparePiece spare;
        detail::Batch<Scalar, detail::Forgets> batch(team, {&spare}, detail::const_view(x));
        batch.set_lengths(view());
        detail::RecordOf<Layer, detail::Forgets> none;
        detail::run(layer, batch, none, detail::EveryLayer{});
        return batch.current();
    }
    /// Recorded; x must outlive the way back.
    [[nodiscard]] Matrix<Scalar> forward(const Matrix<Scalar>& x) {
        tape.clear();
        detail::Batch<Scalar, detail::Records> batch(team, tape, detail::const_view(x));
        batch.set_lengths(view());
        detail::run(layer, batch, record, detail::EveryLayer{});
        return batch.current();
    }
    template <class Epilogue = detail::AsIs>
    [[nodiscard]] Matrix<Scalar> backward(const Matrix<Scalar>& dy,
                                          typename Layer::Gradient& gradient,
                                          const Epilogue& epilogue = {}) const {
        detail::SparePiece spare;
        detail::GradientBatch<Scalar> batch(team, {&spare}, detail::const_view(dy));
        detail::backpropagate(layer, batch, record, gradient, epilogue);
        return batch.current();
    }
};

/// Options for trial number so many, and a shape.
MultiHeadAttentionOptions random_options(Philox& random, int trial) {
    const Index head_width = trial % 11 == 0  ? whole(random, 30, 70)
                             : trial % 3 == 0 ? 2 * whole(random, 1, 10)
                                              : whole(random, 1, 9);
    const Index heads = trial % 11 == 0 ? 1 : whole(random, 1, 4);
    return {.width = heads * head_width,
            .heads = heads,
            .causal = trial % 5 < 2,
            .rotary = head_width % 2 == 0 && trial % 2 == 0,
            .bias = trial % 7 != 0};
}

TEST_CASE(
    "MultiHeadAttention equals its definition, forward and back, for 300 random shapes and "
    "lengths",
    "[multi_head_attention]") {
    Philox random{1};
    for (int trial = 0; trial < 300; ++trial) {
        const auto layer = attention<double>(random, random_options(random, trial));
        const Index d = layer.width();
        const Index positions = trial % 10 == 0 ? whole(random, 40, 70) : whole(random, 1, 20);
        const Index columns = trial % 10 == 0 ? 1 : trial % 4;
        std::vector<Index> lengths;
        if (trial % 3 > 0)
            for (Index j = 0; j < columns; ++j) lengths.push_back(whole(random, j % 2, positions));
        CAPTURE(trial, layer.description(), positions, columns);
        // Padding may hold anything.
        Matrix<double> x = random_matrix<double>(random, d * positions, columns);
        Matrix<double> dy = random_matrix<double>(random, d * positions, columns);
        Matrix<double> y = Matrix<double>::Zero(x.rows(), columns), dx = y;
        auto plain_gradient = layer.zero_gradient();
        for (Index j = 0; j < columns; ++j) {
            const Index length = lengths.empty() ? positions : lengths[static_cast<std::size_t>(j)];
            x.col(j).tail(d * (positions - length)).setConstant(test::nan);
            dy.col(j).tail(d * (positions - length)).setConstant(test::nan);
            if (length == 0) continue;
            const Matrix<double> sequence = x.col(j).head(d * length).reshaped(d, length);
            const Matrix<double> slopes = dy.col(j).head(d * length).reshaped(d, length);
            PlainAttention plain{layer, {}, {}, {}, {}, {}};
            y.col(j).head(d * length) = plain.forward(sequence).reshaped();
            dx.col(j).head(d * length) =
                plain.backward(sequence, slopes, plain_gradient).reshaped();
        }
        LengthsPass<MultiHeadAttention<double>> pass{layer, lengths};
        REQUIRE(largest_difference(pass.run(x), y) <= 1e-12);
        REQUIRE(largest_difference(pass.forward(x), y) <= 1e-12);
        auto gradient = layer.zero_gradient();
        REQUIRE(largest_difference(pass.backward(dy, gradient), dx) <= 1e-12);
        REQUIRE(largest_difference(gradient.in.weights, plain_gradient.in.weights) <= 1e-12);
        REQUIRE(largest_difference(gradient.out.weights, plain_gradient.out.weights) <= 1e-12);
        REQUIRE(largest_difference(gradient.in.bias, plain_gradient.in.bias) <= 1e-12);
        REQUIRE(largest_difference(gradient.out.bias, plain_gradient.out.bias) <= 1e-12);
        // Where nobody wants the slopes by the input, the gradient is the same.
        auto again = layer.zero_gradient();
        (void)pass.backward(dy, again, detail::Discard{});
        REQUIRE(same_bits(again.in.weights, gradient.in.weights));
        REQUIRE(same_bits(again.out.weights, gradient.out.weights));
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
    check({.width = 3, .heads = 3, .bias = false}, 1);
    static_assert(DifferentiableLayer<MultiHeadAttention<float>>);
}

TEST_CASE("MultiHeadAttention: gradients agree with differences of a loss",
          "[multi_head_attention]") {
    Philox random{3};
    for (const bool causal : {false, true}) {
        const auto layer =
            attention<double>(random, {.width = 8, .heads = 2, .causal = causal, .rotary = causal});
        const Matrix<double> x = random_matrix<double>(random, 8 * 5, 3);
        const Matrix<double> targets = random_matrix<double>(random, 8 * 5, 3);
        const auto error = gradient_error(Residual{layer}, x, SurvivalMask::all(0),
                                          MeanSquaredError<double>{}, targets);
        CAPTURE(error.where);
        CHECK(error.largest <= 1e-9);
    }
}

TEMPLATE_TEST_CASE(
    "MultiHeadAttention: a sequence has the same bits alone, in company, behind "
    "other padding and with two threads",
    "[multi_head_attention]", float, double) {
    using Scalar = TestType;
    Philox random{4};
    const detail::ThreadTeam two(2);
    for (const bool causal : {false, true}) {
        const auto layer =
            attention<Scalar>(random, {.width = 36, .heads = 3, .causal = causal, .rotary = true});
        const Index d = layer.width(), positions = 37;
        const std::vector<Index> lengths{37, 1, 16, 17, 30, 2};
        const auto columns = static_cast<Index>(lengths.size());
        const Matrix<Scalar> x = random_matrix<Scalar>(random, d * positions, columns);
        const Matrix<Scalar> dy = random_matrix<Scalar>(random, d * positions, columns);
        LengthsPass<MultiHeadAttention<Scalar>> together{layer, lengths};
        const Matrix<Scalar> y = together.run(x);
        auto gradient = layer.zero_gradient();
        CHECK(same_bits(together.forward(x), y));
        const Matrix<Scalar> dx = together.backward(dy, gradient);
        for (Index j = 0; j < columns; ++j) {
            const Index rows = d * lengths[static_cast<std::size_t>(j)];
            CHECK(same_bits(y.col(j).tail(y.rows() - rows), Vector<Scalar>::Zero(y.rows() - rows)));
            LengthsPass<MultiHeadAttention<Scalar>> alone{layer, {}};
            const Matrix<Scalar> sequence = x.col(j).head(rows), slopes = dy.col(j).head(rows);
            CHECK(same_bits(alone.run(sequence), y.col(j).head(rows)));
            auto other = layer.zero_gradient();
            (void)alone.forward(sequence);
            CHECK(same_bits(alone.backward(slopes, other), dx.col(j).head(rows)));
        }
        LengthsPass<MultiHeadAttention<Scalar>> shared{layer, lengths, two};
        CHECK(same_bits(shared.run(x), y));
        CHECK(same_bits(shared.forward(x), y));
        auto by_two = layer.zero_gradient();
        CHECK(same_bits(shared.backward(dy, by_two), dx));
        CHECK(same_bits(by_two.in.weights, gradient.in.weights));
        CHECK(same_bits(by_two.out.weights, gradient.out.weights));
        CHECK(same_bits(by_two.in.bias, gradient.in.bias));
    }
}

TEST_CASE("MultiHeadAttention: what follows runs in its registers, in the places of its tokens",
          "[multi_head_attention]") {
    Philox random{5};
    const auto layer = attention<float>(random, {.width = 20, .heads = 2});
    const Residual block{layer};
    const StochasticDepth sometimes{block, SurvivalProbability{0.5}};
    const std::vector<Index> lengths{4, 1, 3, 5};
    Matrix<float> x = random_matrix<float>(random, 20 * 5, 4);
    for (Index j = 0; j < 4; ++j)
        x.col(j).tail(20 * (5 - lengths[static_cast<std::size_t>(j)])).setZero();
    const Matrix<float> y = LengthsPass<MultiHeadAttention<float>>{layer, lengths}.run(x) + x;
    LengthsPass<Residual<MultiHeadAttention<float>>> pass{block, lengths};
    CHECK(same_bits(pass.run(x), y));
    CHECK(same_bits(pass.forward(x), y));
    // Stored elsewhere, and some columns alone.
    CHECK(same_bits(run(block, x.topRows(20)), run(layer, x.topRows(20)) + x.topRows(20)));
    const auto masks = SurvivalMasks::from_masks(
        {SurvivalMask{1}, SurvivalMask{0}, SurvivalMask{0}, SurvivalMask{1}});
    const Matrix<float> some = sometimes(x.topRows(40), masks);
    const Matrix<float> all = run(block, x.topRows(40));
    for (const Index j : {0, 3}) CHECK(same_bits(some.col(j), all.col(j)));
    for (const Index j : {1, 2}) CHECK(same_bits(some.col(j), x.col(j).head(40)));
}

TEST_CASE("MultiHeadAttention: a causal layer does not see what follows, whatever that is",
          "[multi_head_attention]") {
    Philox random{6};
    const auto layer = attention<float>(random, {.width = 32, .heads = 2, .causal = true});
    for (const Index positions : {5, 40}) {
        Matrix<float> x = random_matrix<float>(random, 32 * positions, 2);
        const Matrix<float> y = run(layer, x);
        for (const Index t : {Index{1}, positions / 2, positions - 1}) {
            Matrix<float> other = x;
            other.bottomRows(32 * (positions - t)).setConstant(static_cast<float>(test::nan));
            const Matrix<float> seen = run(layer, other);
            CHECK(same_bits(seen.topRows(32 * t), y.topRows(32 * t)));
            CHECK(std::isnan(seen(32 * t, 0)));
        }
    }
}

TEST_CASE("MultiHeadAttention: steps with a cache have the bits of the whole sequences",
          "[multi_head_attention]") {
    Philox random{7};
    const auto layer =
        attention<float>(random, {.width = 24, .heads = 3, .causal = true, .rotary = true});
    const Index d = layer.width(), columns = 3;
    for (const Index positions : {1, 5, 33, 70}) {
        const Matrix<float> x = random_matrix<float>(random, d * positions, columns);
        const Matrix<float> y = run(layer, x);
        KeyValueCache<float> cache = layer.empty_cache(columns);
        Matrix<float> stepped(x.rows(), columns);
        const Index prompt = positions / 3;
        if (prompt > 0) layer.step(x.topRows(d * prompt), cache, stepped.topRows(d * prompt));
        for (Index t = prompt; t < positions; ++t)
            layer.step(x.middleRows(d * t, d), cache, stepped.middleRows(d * t, d));
        CHECK(same_bits(stepped, y));
        CHECK(cache.length(2) == positions);
    }
    // Prompts of different lengths, padded; then both go on.
    const Matrix<float> x = random_matrix<float>(random, d * 20, 2);
    const Index lengths[] = {17, 4};
    KeyValueCache<float> cache = layer.empty_cache(2);
    Matrix<float> prompts = x.topRows(d * 17), y = prompts, next(d, 2), y_next = next;
    prompts.col(1).tail(d * 13).setConstant(static_cast<float>(test::nan));
    layer.step(prompts, cache, y);
    cache.truncate(1, 4);
    for (Index k = 0; k < 3; ++k) {
        for (Index j = 0; j < 2; ++j) next.col(j) = x.col(j).segment(d * (lengths[j] + k), d);
        layer.step(next, cache, y_next);
        for (Index j = 0; j < 2; ++j) {
            const Matrix<float> whole_sequence =
                run(layer, x.col(j).head(d * (lengths[j] + k + 1)));
            CHECK(same_bits(y_next.col(j), whole_sequence.bottomRows(d)));
        }
    }
}

TEST_CASE("MultiHeadAttention: refuses what is no layer, no input and no cache",
          "[multi_head_attention]") {
    Philox random{8};
    const auto refused = [&](const MultiHeadAttentionOptions& options) {
        return refusal([&] { MultiHeadAttention<float>(options, random); });
    };
    CHECK(refused({.width = 0}) == "MultiHeadAttention: width must be at least 1, got 0");
    CHECK(refused({.width = 4, .heads = 0}) ==
          "MultiHeadAttention: heads must be at least 1, got 0");
    CHECK(refused({.width = 4, .heads = 3}) ==
          "MultiHeadAttention: heads must divide the width 4, got 3");
    CHECK(refused({.width = 4, .heads = 8}) ==
          "MultiHeadAttention: heads must divide the width 4, got 8");
    CHECK(refused({.width = 6, .heads = 2, .rotary = true}) ==
          "MultiHeadAttention: rotary positions need heads of even width, got 3");
    CHECK(refusal([&] { MultiHeadAttention<float>({.width = 2}, random, -1.0); }) ==
          "MultiHeadAttention: gain must be finite and at least 0, got -1");
    const MultiHeadAttentionOptions options{.width = 2};
    const Matrix<float> w = Matrix<float>::Zero(6, 2), v = Matrix<float>::Zero(2, 2);
    const Vector<float> b = Vector<float>::Zero(6), a = Vector<float>::Zero(2);
    CHECK(refusal([&] { MultiHeadAttention<float>(options, v, b, v, a); }) ==
          "MultiHeadAttention: in_weights must be [6 x 2], got [2 x 2]");
    CHECK(refusal([&] { MultiHeadAttention<float>(options, w, a, v, a); }) ==
          "MultiHeadAttention: in_bias must have 6 entries, got 2");
    CHECK(refusal([&] { MultiHeadAttention<float>(options, w, b, w, a); }) ==
          "MultiHeadAttention: out_weights must be [2 x 2], got [6 x 2]");
    CHECK(refusal([&] { MultiHeadAttention<float>(options, w, b, v, b); }) ==
          "MultiHeadAttention: out_bias must have 2 entries, got 6");
    CHECK(refusal([&] { MultiHeadAttention<float>({.width = 2, .bias = false}, w, b, v, a); }) ==
          "MultiHeadAttention: in_bias must have 0 entries, got 6");

    const MultiHeadAttention<float> layer(options, w, b, v, a);
    for (const Index rows : {0, 1, 3})
        CHECK(refusal([&] { (void)layer.output_size(rows); }) ==
              detail::message("MultiHeadAttention: input must have a multiple of 2 rows, got ",
                              rows));
    Matrix<float> y(2, 1);
    KeyValueCache<float> cache = layer.empty_cache(1);
    CHECK(refusal([&] { layer.step(y, cache, y); }) ==
          "MultiHeadAttention: only a causal layer takes steps");
    const MultiHeadAttention<float> causal({.width = 2, .causal = true}, random);
    KeyValueCache<float> two(2, 2), wide(1, 3);
    CHECK(refusal([&] { causal.step(y, two, y); }) ==
          "MultiHeadAttention: cache must be of 1 sequences, got 2");
    CHECK(refusal([&] { causal.step(y, wide, y); }) ==
          "MultiHeadAttention: cache must be of width 2, got 3");
    CHECK(refusal([&] { KeyValueCache<float>(-1, 2); }) ==
          "KeyValueCache: sequences must be at least 0, got -1");
    CHECK(refusal([&] { KeyValueCache<float>(1, 0); }) ==
          "KeyValueCache: width must be at least 1, got 0");
    CHECK(refusal([&] { two.truncate(0, 1); }) ==
          "KeyValueCache: length must lie in [0, 0], got 1");
    CHECK(refusal([&] { (void)two.length(2); }) ==
          "KeyValueCache: sequence must lie in [0, 2), got 2");
}

TEST_CASE("MultiHeadAttention: says what it is", "[multi_head_attention]") {
    Philox random{9};
    const MultiHeadAttention<float> layer(
        {.width = 8, .heads = 2, .causal = true, .rotary = true, .bias = false}, random);
    CHECK(layer.description() == "MultiHeadAttention 8, heads 2, causal, rotary, no bias");
    std::string names;
    detail::visit_parameters(layer, [&](const char* name, const auto&) {
        names += name;
        names += ' ';
    });
    CHECK(names == "in_weights out_weights ");
    CHECK(layer.in_bias().isZero());
    // Of one position, 4 products of width x width, and two more numbers for each key and feature.
    CHECK(layer.work(8) == 4 * 64 + 2 * 8);
    CHECK(layer.work(8 * 10) == 10 * (4 * 64) + 2 * 10 * 10 * 8);
}

}  // namespace
