// SPDX-License-Identifier: MIT
#include <stochastic_depth/models/transformer.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/training/gradient_error.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/without_layers.hpp>

#include "support/catch.hpp"
#include "support/matrices.hpp"
#include "support/refusal.hpp"
#include "support/sequences.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::test;
using Columns = std::vector<Vector<double>>;  // of the positions of one sequence

/// Plain loops, layer by layer, for one sequence.
struct Oracle {
    const TransformerOptions& options;

    [[nodiscard]] Columns norm(const LayerNorm<double>& layer, Columns h) const {
        for (Vector<double>& x : h) {
            const double n = static_cast<double>(x.size());
            const double mean = x.sum() / n;
            double variance = 0;
            for (Index i = 0; i < x.size(); ++i) variance += (x(i) - mean) * (x(i) - mean) / n;
            for (Index i = 0; i < x.size(); ++i)
                x(i) = layer.gain()(i) * (x(i) - mean) / std::sqrt(variance + layer.epsilon()) +
                    layer.bias()(i);
        }
        return h;
    }
    [[nodiscard]] Columns linear(const Linear<double>& layer, Columns h) const {
        for (Vector<double>& x : h) x = layer.weights() * x + layer.bias();
        return h;
    }
    [[nodiscard]] Columns gelu(Columns h) const {
        for (Vector<double>& x : h)
            for (double& z : x) z = z * std::erfc(-z / std::sqrt(2.0)) / 2;
        return h;
    }
    [[nodiscard]] Columns attention(const MultiHeadAttention<double>& layer, const Columns& h) const {
        const Index d = options.width, width = d / options.heads;
        Columns projected, y;
        for (const Vector<double>& x : h)
            projected.emplace_back(layer.in_weights() * x + layer.in_bias());
        for (std::size_t t = 0; t < h.size(); ++t) {
            const std::size_t keys = layer.options().causal ? t + 1 : h.size();
            Vector<double> context = Vector<double>::Zero(d);
            for (Index head = 0; head < options.heads; ++head) {
                std::vector<double> terms;
                double sum = 0;
                for (std::size_t s = 0; s < keys; ++s) {
                    double score = 0;
                    for (Index i = head * width; i < (head + 1) * width; ++i)
                        score += projected[t](i) * projected[s](d + i);
                    terms.push_back(std::exp(score / std::sqrt(static_cast<double>(width))));
                    sum += terms.back();
                }
                for (std::size_t s = 0; s < keys; ++s)
                    for (Index i = head * width; i < (head + 1) * width; ++i)
                        context(i) += terms[s] / sum * projected[s](2 * d + i);
            }
            y.emplace_back(layer.out_weights() * context + layer.out_bias());
        }
        return y;
    }
    [[nodiscard]] static Columns add(Columns a, const Columns& b) {
        for (std::size_t t = 0; t < a.size(); ++t) a[t] += b[t];
        return a;
    }
};

template <class Layer>
const auto& at(const Layer& sequential, auto i) {
    return std::get<i>(sequential.layers());
}
template <std::size_t n>
using At = std::integral_constant<std::size_t, n>;

/// Sublayers of a pre-normalised network, each skippable.
template <class Body>
Columns body_of(const Oracle& oracle, const Body& body, const Vector<double>& tokens,
                const SurvivalMask& mask) {
    const auto& embedding = at(body, At<0>{});
    Columns h;
    for (Index t = 0; t < tokens.size(); ++t)
        h.emplace_back(embedding.tokens().col(static_cast<Index>(tokens(t))) +
                       embedding.positions().col(t));
    Index layer = 0;
    for (const auto& block : at(body, At<2>{}).layers()) {
        const auto& first = at(block, At<0>{}).layer().branch();
        const auto& second = at(block, At<1>{}).layer().branch().layer();
        if (mask[layer++])
            h = Oracle::add(h, oracle.attention(at(first, At<1>{}),
                                                oracle.norm(at(first, At<0>{}).layer(), h)));
        if (mask[layer++])
            h = Oracle::add(
                h, oracle.linear(at(second, At<3>{}),
                                 oracle.gelu(oracle.linear(at(second, At<1>{}),
                                                           oracle.norm(at(second, At<0>{}), h)))));
    }
    return oracle.norm(at(body, At<3>{}).layer(), h);
}

SurvivalMask random_mask(Philox& random, Index depth) {
    SurvivalMask mask = SurvivalMask::none(depth);
    for (Index l = 0; l < depth; ++l)
        if (uniform<double>(random) < 0.6) mask.keep(l);
    return mask;
}

TransformerOptions random_options(Philox& random) {
    const Index heads = whole(random, 1, 3);
    return {.vocabulary = 13,
            .positions = whole(random, 1, 12),
            .width = heads * whole(random, 1, 6),
            .heads = heads,
            .feed_forward = whole(random, 1, 20),
            .blocks = whole(random, 0, 3),
            .classes = whole(random, 1, 4)};
}

TEST_CASE("transformer_classifier: plain loops, for 300 random shapes, lengths and masks",
          "[transformer]") {
    Philox random{1};
    for (int trial = 0; trial < 300; ++trial) {
        const TransformerOptions options = random_options(random);
        const auto network = transformer_classifier<double>(options, random);
        REQUIRE(network.depth() == 2 * options.blocks);
        const Sequences x = random_sequences(random, options.positions, 3, options.vocabulary);
        const SurvivalMask mask = random_mask(random, network.depth());
        const Matrix<double> y = network(x.tokens, mask);
        for (Index j = 0; j < 3; ++j) {
            const Columns h =
                body_of(Oracle{options}, at(network, At<0>{}), x.alone(j).col(0), mask);
            Vector<double> mean = Vector<double>::Zero(options.width);
            for (const Vector<double>& position : h)
                mean += position / static_cast<double>(h.size());
            const auto& head = at(network, At<2>{});
            const Vector<double> expected = head.weights() * mean + head.bias();
            CAPTURE(trial, j);
            REQUIRE((y.col(j) - expected).cwiseAbs().maxCoeff() <= 1e-12 * (1 + expected.cwiseAbs().maxCoeff()));
        }
    }
}

TEST_CASE("transformer_language_model: a position sees what is before it, for 60 random shapes",
          "[transformer]") {
    Philox random{2};
    for (int trial = 0; trial < 60; ++trial) {
        const TransformerOptions options = random_options(random);
        const auto network = transformer_language_model<double>(options, random);
        const Sequences x = random_sequences(random, options.positions, 2, options.vocabulary);
        const SurvivalMask mask = random_mask(random, network.depth());
        const Matrix<double> y = network(x.tokens, mask);
        REQUIRE(y.rows() == options.vocabulary * options.positions);
        for (Index j = 0; j < 2; ++j) {
            const Columns h =
                body_of(Oracle{options}, at(network, At<0>{}), x.alone(j).col(0), mask);
            for (Index t = 0; t < options.positions; ++t) {
                const auto found = y.col(j).segment(t * options.vocabulary, options.vocabulary);
                if (t >= x.length(j)) {
                    REQUIRE((found.array() == 0).all());
                    continue;
                }
                const auto& head = at(network, At<1>{}).layer();
                const Vector<double> expected =
                    head.weights() * h[static_cast<std::size_t>(t)] + head.bias();
                REQUIRE((found - expected).cwiseAbs().maxCoeff() <= 1e-12 * (1 + expected.cwiseAbs().maxCoeff()));
            }
        }
    }
}

TEST_CASE("Transformers of every style: gradients, and sub-networks that equal the masked network",
          "[transformer]") {
    Philox random{3};
    const TransformerOptions options{.vocabulary = 7,
                                     .positions = 5,
                                     .width = 4,
                                     .heads = 2,
                                     .feed_forward = 6,
                                     .blocks = 2,
                                     .classes = 3,
                                     .final_survival = 0.5,
                                     .dropout = 0.2,
                                     .rotary = true,
                                     .pooling = SequencePooling::last};
    const Sequences x = random_sequences(random, 5, 4, 7);
    Eigen::VectorXi labels(4);
    labels << 0, 2, 1, 1;
    const auto check = [&](const auto& network, Index depth) {
        REQUIRE(network.depth() == depth);
        const SurvivalMasks masks =
            MaskSampler{network.survival_probabilities(), 6}.sample(0, 4);
        const GradientError error =
            gradient_error(network, x.tokens, masks, SoftmaxCrossEntropy<double>{}, labels);
        CAPTURE(error.where);
        CHECK(error.largest < 1e-7);
        for (int trial = 0; trial < 100; ++trial) {
            const SurvivalMask mask = random_mask(random, depth);
            CHECK(same_bits(without_layers(network, mask)(x.tokens), network(x.tokens, mask)));
        }
    };
    using enum NormOrder;
    using enum SkippedUnit;
    check(transformer_classifier<double>(options, random), 4);
    check(transformer_classifier<double, TransformerStyle{post, sublayer}>(options, random), 4);
    check(transformer_classifier<double, TransformerStyle{pre, block}>(options, random), 2);
    check(transformer_classifier<double, TransformerStyle{post, block}>(options, random), 2);
}

TEST_CASE("Transformers have the survival probabilities that are given, else linear decay",
          "[transformer]") {
    Philox random{5};
    TransformerOptions options{
        .vocabulary = 7, .width = 4, .heads = 2, .feed_forward = 6, .blocks = 2};
    CHECK(transformer_classifier<double>(options, random).survival_probabilities() ==
          linear_decay(4, 0.5));
    options.survival = Eigen::Vector4d{0.9, 0.3, 1.0, 0.6};
    CHECK(transformer_classifier<double>(options, random).survival_probabilities() ==
          options.survival);
}

TEST_CASE("Transformers refuse options that make none, and draw nothing then", "[transformer]") {
    Philox random{4};
    const Philox before = random;
    const auto of = [&](auto change) {
        TransformerOptions options;
        change(options);
        const std::string language =
            refusal([&] { (void)transformer_language_model<double>(options, random); });
        const std::string message =
            refusal([&] { (void)transformer_classifier<double>(options, random); });
        CHECK(language.substr(language.find(':')) == message.substr(message.find(':')));
        return message;
    };
    using Options = TransformerOptions;
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const std::string who = "transformer_classifier: ";
    CHECK(of([](Options& o) { o.vocabulary = 0; }) ==
          who + "vocabulary must lie in [1, 2^24], got 0");
    CHECK(of([](Options& o) { o.positions = 0; }) == who + "positions must be at least 1, got 0");
    CHECK(of([](Options& o) { o.width = -4; }) == who + "width must be at least 1, got -4");
    CHECK(of([](Options& o) { o.heads = 0; }) == who + "heads must be at least 1, got 0");
    CHECK(of([](Options& o) { o.heads = 5; }) == who + "heads must divide the width 64, got 5");
    CHECK(of([](Options& o) { o.heads = 64, o.rotary = true; }) ==
          who + "rotary needs heads of even width, got 1");
    CHECK(of([](Options& o) { o.feed_forward = 0; }) ==
          who + "feed_forward must be at least 1, got 0");
    CHECK(of([](Options& o) { o.blocks = -1; }) == who + "blocks must be at least 0, got -1");
    CHECK(of([](Options& o) { o.classes = 0; }) == who + "classes must be at least 1, got 0");
    CHECK(of([](Options& o) { o.final_survival = 0; }) ==
          who + "final_survival must lie in (0, 1], got 0");
    CHECK(of([&](Options& o) { o.final_survival = nan; }) ==
          who + "final_survival must lie in (0, 1], got nan");
    CHECK(of([](Options& o) { o.survival = Eigen::VectorXd::Ones(6); }) ==
          who + "survival must be empty or have one entry for each of 12 skippable layers, got 6");
    CHECK(of([](Options& o) {
              o.blocks = 1;
              o.survival = Eigen::Vector2d{1, 0};
          }) == who + "survival probability p(1) must lie in (0, 1], got 0");
    CHECK(of([](Options& o) { o.dropout = 1; }) == who + "dropout must lie in [0, 1), got 1");
    CHECK(random == before);
}

}  // namespace
