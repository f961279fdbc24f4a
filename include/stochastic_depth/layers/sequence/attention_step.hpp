// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/kernels/attention.hpp>
#include <stochastic_depth/kernels/attention_rotary.hpp>
#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/layers/sequence/attention_projections.hpp>
#include <stochastic_depth/layers/sequence/key_value_cache.hpp>
#include <stochastic_depth/layers/sequence/multi_head_attention_options.hpp>
#include <stochastic_depth/layers/sequence/token_list.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// A causal MultiHeadAttention over the next positions of sequences whose past a cache holds, of
/// sizes that have been checked.
template <class Scalar>
class AttentionStep {
public:
    /// Makes room in the cache.
    AttentionStep(const MultiHeadAttentionOptions& options, Index positions,
                  KeyValueCache<Scalar>& cache)
        : options_(options),
          positions_(positions),
          cache_(cache),
          angles_(options.width / options.heads, cache.shortest(),
                  options.rotary ? cache.longest() + positions - cache.shortest() : 0),
          terms_(2 * positions) {
        cache.reserve(cache.longest() + positions);
    }

    /// \param x, y  [width positions x sequences].
    template <class X, class Y>
    void run(const AttentionProjections<Scalar>& projections, const X& x, Y& y) const {
        const Index width = options_.width, count = positions_ * x.cols();
        const ScratchArray<Scalar> projected(3 * width * count), context(width * count);
        for_each_run_of_tokens(width, positions_, x, [&](Index first, const auto& tokens) {
            projections.in().forward_fused(
                tokens, dense(3 * width, tokens.cols(), projected.data() + 3 * width * first),
                AsIs{});
        });
        for (Index j = 0; j < x.cols(); ++j)
            attend(j, projected.data() + 3 * width * positions_ * j,
                   context.data() + width * positions_ * j);
        for_each_run_of_tokens(width, positions_, y, [&](Index first, const auto& tokens) {
            const Scalar* const from = context.data() + width * first;
            projections.out().forward_fused(dense(width, tokens.cols(), from), view(tokens),
                                            AsIs{});
        });
    }

private:
    /// The heads, for sequence j, whose cache then holds these positions too.
    /// \param projected  Queries, keys and values, [3 width x positions]; turned where they are.
    /// \param context    [width x positions], written.
    void attend(Index j, Scalar* projected, Scalar* context) const {
        const Index width = options_.width, head_width = width / options_.heads;
        const Index past = cache_.length(j);
        for (Index t = 0; t < positions_; ++t) {
            Scalar* const token = projected + 3 * width * t;
            if (options_.rotary) angles_.turn(past + t, 2 * options_.heads, token);
            cache_.append(j, token + width, token + 2 * width);
        }
        for (Index row = 0; row < width; row += head_width)
            detail::attend(head_width,
                           {cache_.keys_of(j) + row * cache_.capacity_, cache_.capacity_,
                            cache_.values_of(j) + row, width},
                           score_scale<Scalar>(head_width), projected + row, 3 * width, positions_,
                           {past + 1, true}, context + row, width, terms_.data(),
                           terms_.data() + positions_);
    }

    MultiHeadAttentionOptions options_;
    Index positions_;
    KeyValueCache<Scalar>& cache_;
    RotaryAngles<Scalar> angles_;
    ScratchArray<Scalar> terms_;
};

}  // namespace stochastic_depth::detail
