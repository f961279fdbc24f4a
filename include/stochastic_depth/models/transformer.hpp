// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/elementwise/dropout.hpp>
#include <stochastic_depth/layers/elementwise/gelu.hpp>
#include <stochastic_depth/layers/normalisation/layer_norm.hpp>
#include <stochastic_depth/layers/sequence/embedding.hpp>
#include <stochastic_depth/layers/sequence/multi_head_attention.hpp>
#include <stochastic_depth/layers/sequence/per_position.hpp>
#include <stochastic_depth/layers/sequence/sequence_pool.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/stochastic_depth.hpp>
#include <stochastic_depth/survival/schedules.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>

namespace stochastic_depth {

struct TransformerOptions {
    /// Number of tokens, at least 1.
    Index vocabulary = 256;
    /// The longest sequence, at least 1.
    Index positions = 64;
    /// Numbers of a position; the heads must divide it.
    Index width = 64;
    Index heads = 4;
    /// Numbers inside the feed-forward sublayers, at least 1.
    Index feed_forward = 256;
    /// At least 0.
    Index blocks = 6;
    /// Outputs of a classifier: scores of the classes, before the softmax.
    Index classes = 2;
    /// p_L of the last skippable layer; earlier ones by linear decay. 1: all are always kept.
    double final_survival = 0.5;
    /// p of each skippable layer, in place of linear decay (survival/schedules.hpp has others);
    /// empty: linear decay.
    Eigen::VectorXd survival = {};
    /// Chance that an entry is dropped behind the embedding and at the end of each sublayer.
    double dropout = 0;
    PositionEncoding encoding = PositionEncoding::learned;
    /// Whether queries and keys are turned by their positions; `encoding` is mostly none then.
    bool rotary = false;
    /// What of a classifier's sequence the scores are of.
    SequencePooling pooling = SequencePooling::mean;
};

/// Where a sublayer normalises: its input, or its sum with that.
/// \source Xiong et al. 2020, On Layer Normalization in the Transformer Architecture, Figure 1.
enum class NormOrder { pre, post };

/// What a mask's bit skips: each of a block's two sublayers, or the block.
enum class SkippedUnit { sublayer, block };

/// What of a transformer is part of its type.
struct TransformerStyle {
    NormOrder norm = NormOrder::pre;
    SkippedUnit unit = SkippedUnit::sublayer;
};

namespace detail {

/// The layers of a transformer, as its style has them.
template <class Scalar, TransformerStyle style>
struct TransformerParts {
    static constexpr bool is_pre = style.norm == NormOrder::pre;
    static constexpr bool skips_sublayers = style.unit == SkippedUnit::sublayer;

    [[nodiscard]] static auto norm(Index width) {
        return PerPosition{width, LayerNorm<Scalar>{width}};
    }

    template <class Random>
    [[nodiscard]] static auto attention(const TransformerOptions& options, bool causal,
                                        Random& random) {
        MultiHeadAttention<Scalar> attention{{.width = options.width,
                                              .heads = options.heads,
                                              .causal = causal,
                                              .rotary = options.rotary},
                                             random};
        Dropout<Scalar> dropout{options.dropout};
        if constexpr (is_pre)
            return Residual{Sequential{norm(options.width), std::move(attention), dropout}};
        else
            return Residual{Sequential{std::move(attention), dropout}};
    }

    template <class Random>
    [[nodiscard]] static auto feed_forward(const TransformerOptions& options, Random& random) {
        const Index width = options.width, inside = options.feed_forward;
        Linear<Scalar> first{width, inside, random}, second{inside, width, random, 1.0};
        Dropout<Scalar> dropout{options.dropout};
        if constexpr (is_pre)
            return Residual{PerPosition{
                width, Sequential{LayerNorm<Scalar>{width}, std::move(first), GELU<Scalar>{},
                                  std::move(second), dropout}}};
        else
            return Residual{PerPosition{
                width, Sequential{std::move(first), GELU<Scalar>{}, std::move(second), dropout}}};
    }

    /// A sublayer, skippable by itself where the style says so; behind it, with what stands in for
    /// a skipped one, its normalisation.
    template <class Layer>
    [[nodiscard]] static auto sublayer(Layer layer, Index width, double survival) {
        const auto skippable = [&] {
            if constexpr (skips_sublayers)
                return StochasticDepth{std::move(layer), SurvivalProbability{survival}};
            else
                return std::move(layer);
        };
        if constexpr (is_pre)
            return skippable();
        else
            return Sequential{skippable(), norm(width)};
    }

    /// \param survival  Of the block, or of its two sublayers.
    template <class Random>
    [[nodiscard]] static auto block(const TransformerOptions& options, bool causal,
                                    const double* survival, Random& random) {
        auto first = sublayer(attention(options, causal, random), options.width, survival[0]);
        auto second =
            sublayer(feed_forward(options, random), options.width, survival[skips_sublayers]);
        Sequential both{std::move(first), std::move(second)};
        if constexpr (skips_sublayers)
            return both;
        else
            return StochasticDepth{std::move(both), SurvivalProbability{survival[0]}};
    }

    /// Token ids in, positions of `width` numbers out.
    template <class Random>
    [[nodiscard]] static auto body(const TransformerOptions& options, bool causal, Random& random) {
        Embedding<Scalar> embedding{{.vocabulary = options.vocabulary,
                                     .positions = options.positions,
                                     .width = options.width,
                                     .encoding = options.encoding},
                                    random};
        constexpr Index of_block = skips_sublayers ? 2 : 1;
        const Eigen::VectorXd p =
            options.survival.size() > 0
                ? options.survival
                : linear_decay(of_block * options.blocks, options.final_survival);
        std::vector<decltype(block(options, causal, p.data(), random))> blocks;
        blocks.reserve(static_cast<std::size_t>(options.blocks));
        for (Index b = 0; b < options.blocks; ++b)
            blocks.push_back(block(options, causal, p.data() + of_block * b, random));
        return Sequential{std::move(embedding), Dropout<Scalar>{options.dropout},
                          Stack{std::move(blocks)}, norm(options.width)};
    }

    static void check(std::string_view who, const TransformerOptions& options) {
        const auto at_least_one = [&](const char* name, Index value) {
            if (value < 1) refuse(who, ": ", name, " must be at least 1, got ", value);
        };
        if (options.vocabulary < 1 || options.vocabulary > Index{1} << 24)
            refuse(who, ": vocabulary must lie in [1, 2^24], got ", options.vocabulary);
        at_least_one("positions", options.positions);
        at_least_one("width", options.width);
        at_least_one("heads", options.heads);
        if (options.width % options.heads != 0)
            refuse(who, ": heads must divide the width ", options.width, ", got ", options.heads);
        if (options.rotary && options.width / options.heads % 2 != 0)
            refuse(who, ": rotary needs heads of even width, got ", options.width / options.heads);
        at_least_one("feed_forward", options.feed_forward);
        if (options.blocks < 0)
            refuse(who, ": blocks must be at least 0, got ", options.blocks);
        at_least_one("classes", options.classes);
        if (!(options.final_survival > 0 && options.final_survival <= 1))
            refuse(who, ": final_survival must lie in (0, 1], got ", options.final_survival);
        const Index skippable = (skips_sublayers ? 2 : 1) * options.blocks;
        if (options.survival.size() != 0 && options.survival.size() != skippable)
            refuse(who, ": survival must be empty or have one entry for each of ", skippable,
                   " skippable layers, got ", options.survival.size());
        check_survival_probabilities(who, options.survival);
        if (!(options.dropout >= 0 && options.dropout < 1))
            refuse(who, ": dropout must lie in [0, 1), got ", options.dropout);
    }
};

}  // namespace detail

/// A classifier of token sequences, [positions x batch] with -1 behind the end of a shorter one:
///
///     auto network = transformer_classifier<float>(
///         {.vocabulary = 8000, .positions = 40, .blocks = 3, .classes = 6}, random);
///
/// Each block has two residual sublayers, attention and feed-forward, each skippable by itself: a
/// depth of 2 blocks. Sequences may have any length up to `positions`, and lengths don't matter to
/// each other.
///
/// \param options  See there.
/// \param random   Draws the weights (as Embedding, MultiHeadAttention and Linear do); it advances.
/// \throws std::invalid_argument  if an option lies outside its range; nothing is drawn then.
/// \source Vaswani et al. 2017, Attention Is All You Need; Fan et al. 2020, Reducing Transformer
///         Depth on Demand with Structured Dropout, for the sublayers that are skipped.
template <class Scalar, TransformerStyle style = TransformerStyle{}, RandomBitGenerator Random>
[[nodiscard]] auto transformer_classifier(const TransformerOptions& options, Random& random) {
    using Parts = detail::TransformerParts<Scalar, style>;
    Parts::check("transformer_classifier", options);
    auto body = Parts::body(options, false, random);
    Linear<Scalar> head{options.width, options.classes, random, 1.0};
    return Sequential{std::move(body), SequencePool<Scalar>{options.width, options.pooling},
                      std::move(head)};
}

/// The type of such a network.
template <class Scalar, TransformerStyle style = TransformerStyle{}>
using TransformerClassifier = decltype(transformer_classifier<Scalar, style>(
    std::declval<const TransformerOptions&>(), std::declval<Philox&>()));

/// A causal language model: for token sequences, [positions x batch], the scores of the token that
/// comes next behind each position, [vocabulary positions x batch]. `classes` and `pooling` are of
/// no meaning.
/// \throws std::invalid_argument  as transformer_classifier.
template <class Scalar, TransformerStyle style = TransformerStyle{}, RandomBitGenerator Random>
[[nodiscard]] auto transformer_language_model(const TransformerOptions& options, Random& random) {
    using Parts = detail::TransformerParts<Scalar, style>;
    Parts::check("transformer_language_model", options);
    auto body = Parts::body(options, true, random);
    Linear<Scalar> head{options.width, options.vocabulary, random, 1.0};
    return Sequential{std::move(body), PerPosition{options.width, std::move(head)}};
}

/// The type of such a network.
template <class Scalar, TransformerStyle style = TransformerStyle{}>
using TransformerLanguageModel = decltype(transformer_language_model<Scalar, style>(
    std::declval<const TransformerOptions&>(), std::declval<Philox&>()));

}  // namespace stochastic_depth
