// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/kernels/attention.hpp>
#include <stochastic_depth/kernels/attention_rotary.hpp>
#include <stochastic_depth/kernels/attention_way_back.hpp>
#include <stochastic_depth/layers/sequence/multi_head_attention_options.hpp>
#include <stochastic_depth/layers/sequence/token_list.hpp>
#include <stochastic_depth/threads/team.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// What a pass leaves of a MultiHeadAttention: queries, keys and values, turned where they are, and
/// what the heads made of them, of real tokens alone.
template <class Scalar>
struct AttentionRecord {
    TokenList tokens;
    /// [width x tokens].
    const Scalar* input = nullptr;
    /// [3 width x tokens].
    const Scalar* projected = nullptr;
    /// [width x tokens].
    const Scalar* context = nullptr;
    /// [2 heads x tokens]: of each sequence's and head's softmaxes, the largest scores and then
    /// 1 / sums.
    const Scalar* terms = nullptr;
};

/// The heads of a MultiHeadAttention over the tokens of whole sequences, whose queries, keys and
/// values stand as [3 width x tokens].
template <class Scalar>
class AttentionHeads {
public:
    AttentionHeads(const MultiHeadAttentionOptions& options, const TokenList& tokens)
        : options_(options),
          tokens_(tokens),
          angles_(head_width(), 0, options.rotary ? tokens.longest() : 0) {}

    /// What the heads make of sequences j, ..., end - 1, as in a record, in memory that begins with
    /// the first token of these.
    /// \param projected       Queries and keys are turned where they are, if they are to be.
    /// \param context, terms  Written.
    void attend(const Team& team, Index j, Index end, Scalar* projected, Scalar* context,
                Scalar* terms) const {
        const Index first = tokens_.first[j];
        turn(team, j, end, projected,
             [&](Index t, Scalar* token) { angles_.turn(t, 2 * options_.heads, token); });
        for_each_head(team, j, end, 1, [&](Index column, Index h) {
            const Index at = tokens_.first[column] - first, length = tokens_.length(column);
            Scalar* const maxima = terms + 2 * (options_.heads * at + h * length);
            detail::attend(head(projected + 3 * width() * at, length, h),
                           context + width() * at + h * head_width(), width(), maxima,
                           maxima + length);
        });
    }

    /// The way back of these sequences, in memory that begins with their first token.
    /// \param record        Of all sequences.
    /// \param by_context    Slopes by what the heads made, [width x tokens].
    /// \param by_projected  [3 width x tokens], written.
    void backpropagate(const Team& team, Index j, Index end, const AttentionRecord<Scalar>& record,
                       const Scalar* by_context, Scalar* by_projected) const {
        const Index first = tokens_.first[j];
        for_each_head(team, j, end, 3, [&](Index column, Index h) {
            const Index at = tokens_.first[column], length = tokens_.length(column);
            const Index row = h * head_width();
            const Scalar* const maxima = record.terms + 2 * (options_.heads * at + h * length);
            Scalar* const to = by_projected + 3 * width() * (at - first) + row;
            differentiate_attention(head(record.projected + 3 * width() * at, length, h), maxima,
                                    maxima + length, by_context + width() * (at - first) + row,
                                    width(), {to, to + width(), to + 2 * width(), 3 * width()});
        });
        turn(team, j, end, by_projected,
             [&](Index t, Scalar* token) { angles_.turn_back(t, 2 * options_.heads, token); });
    }

private:
    [[nodiscard]] Index width() const { return options_.width; }
    [[nodiscard]] Index head_width() const { return options_.width / options_.heads; }

    /// \param projected  Of the sequence.
    [[nodiscard]] Head<Scalar> head(const Scalar* projected, Index length, Index h) const {
        const Scalar* const queries = projected + h * head_width();
        return {queries, queries + width(), queries + 2 * width(), 3 * width(), head_width(),
                length,  options_.causal};
    }

    /// Calls run(column, h) for each of some sequences and each head, shared by a team: a member has
    /// those whose first token falls to it, counted head by head.
    template <class Run>
    void for_each_head(const Team& team, Index column, Index end, double passes,
                       const Run& run) const {
        const Index heads = options_.heads;
        const Index first = tokens_.first[column], count = tokens_.first[end] - first;
        if (count == 0) return;
        const double keys = static_cast<double>(count) / static_cast<double>(end - column);
        team.split(count * heads, 1, passes * keys * (2 * static_cast<double>(head_width()) + 16),
                   [&](Index from, Index some) {
                       for (Index j = column; j < end; ++j) {
                           const Index at = heads * (tokens_.first[j] - first);
                           const Index length = tokens_.length(j);
                           if (length == 0 || at + heads * length <= from) continue;
                           if (at >= from + some) break;
                           for (Index h = 0; h < heads; ++h)
                               if (at + h * length >= from && at + h * length < from + some)
                                   run(j, h);
                       }
                   });
    }

    /// Calls turn_token(position, token) for the queries and keys of some sequences, if they are to
    /// be turned.
    template <class Turn>
    void turn(const Team& team, Index j, Index end, Scalar* projected,
              const Turn& turn_token) const {
        if (!options_.rotary) return;
        const Index first = tokens_.first[j];
        team.split(tokens_.first[end] - first, 1, 8 * static_cast<double>(width()),
                   [&](Index from, Index some) {
                       for (Index k = from; k < from + some; ++k)
                           turn_token(tokens_.places[first + k].position,
                                      projected + 3 * width() * k);
                   });
    }

    MultiHeadAttentionOptions options_;
    TokenList tokens_;
    RotaryAngles<Scalar> angles_;
};

}  // namespace stochastic_depth::detail
