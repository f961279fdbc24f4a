// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include <stochastic_depth/kernels/packet.hpp>
#include <stochastic_depth/kernels/small_product.hpp>
#include <stochastic_depth/kernels/softmax_columns.hpp>
#include <stochastic_depth/kernels/transpose.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/types.hpp>

/// Attention of one head in one sequence. Scores stand as [keys x queries], keys on lanes.
///
/// Every sum has one order: a score's over the head's features, a softmax's over `sum_lanes` partial
/// sums and then in a tree, an output's over the keys; so neither packets, nor the number of queries
/// that are done together, nor padding behind the last key changes a bit.
namespace stochastic_depth::detail {

/// Columns of scores are padded to a multiple of sum_lanes, by keys that no query sees.
[[nodiscard]] constexpr Index padded_keys(Index keys) {
    return (keys + sum_lanes - 1) / sum_lanes * sum_lanes;
}

/// Queries that are done together.
inline constexpr Index queries_at_once = 16;

/// Keys and values of a head, for any queries.
template <class Scalar>
struct HeadMemory {
    /// Keys on lanes: [padded_keys(keys) x width], columns `key_stride` apart, with anything behind
    /// the last key.
    const Scalar* keys;
    Index key_stride;
    /// [width x keys].
    const Scalar* values;
    Index value_stride;
};

/// How many keys queries see: all the same, or each one more than that before it.
struct KeysSeen {
    Index by_first;
    bool causal;

    [[nodiscard]] Index by(Index query) const { return causal ? by_first + query : by_first; }
};

/// Scores of `columns` queries, [padded_keys(seen.by(columns - 1)) x columns] without gaps: keys
/// that a query doesn't see, which may be anything, have -infinity.
template <class Scalar>
void write_scores(Index width, const Scalar* keys, Index key_stride, const Scalar* queries,
                  Index query_stride, Index columns, const KeysSeen& seen, Scalar* scores,
                  Index stride) {
    const Index rows = padded_keys(seen.by(columns - 1));
    small_product<Scalar>(rows, {{keys, key_stride},
                                 {nullptr},
                                 {scores, stride},
                                 {queries, 1, query_stride},
                                 width,
                                 {},
                                 {},
                                 columns});
    for (Index c = 0; c < columns; ++c)
        std::fill(scores + c * stride + seen.by(c), scores + c * stride + rows,
                  -std::numeric_limits<Scalar>::infinity());
}

/// Whether all numbers of a matrix are finite.
template <int Lanes, class Scalar>
[[nodiscard]] bool all_finite(Index rows, Index columns, const Scalar* data, Index stride) {
    using P = Packet<Scalar, Lanes>;
    if constexpr (Lanes > 1)
        if (rows < Lanes) return all_finite<P::narrower>(rows, columns, data, stride);
    const P zero = P::broadcast(Scalar(0));
    P sum = zero;
    for (Index j = 0; j < columns; ++j)
        for (Index i = 0; i < rows; i += Lanes)
            sum = multiply_add(zero, P::load(data + std::min(i, rows - Lanes) + j * stride), sum);
    alignas(64) Array<Scalar, Lanes> sums;
    sum.store(sums);
    return std::all_of(sums, sums + Lanes, [](Scalar z) { return z == 0; });
}

/// out = values softmax(scale keys^T queries), for `count` queries.
///
/// \param seen      Of the first query.
/// \param maxima    Of the queries' scores, [count], written.
/// \param inverses  1 / sum of their exponentials, [count], written.
template <class Scalar>
void attend(Index width, const HeadMemory<Scalar>& memory, Scalar scale, const Scalar* queries,
            Index query_stride, Index count, const KeysSeen& seen, Scalar* out, Index out_stride,
            Scalar* maxima, Scalar* inverses) {
    const Index most = padded_keys(seen.by(count - 1));
    const ScratchArray<Scalar> scores(most * std::min(count, queries_at_once));
    for (Index from = 0; from < count; from += queries_at_once) {
        const Index columns = std::min(queries_at_once, count - from);
        const KeysSeen here{seen.by(from), seen.causal};
        const Index keys = here.by(columns - 1), rows = padded_keys(keys);
        write_scores(width, memory.keys, memory.key_stride, queries + from * query_stride,
                     query_stride, columns, here, scores.data(), rows);
        constexpr int lanes = widest_lanes<Scalar>;
        in_steps(columns, [&](Index c, auto n) {
            find_maxima<lanes, n>(rows, scores.data() + c * rows, rows, maxima + from + c);
        });
        in_steps(columns, [&](Index c, auto n) {
            exponentiate<lanes, n>(rows, scores.data() + c * rows, rows, scale, maxima + from + c,
                                   inverses + from + c);
        });
        const auto sum_values = [&](Index c, Index some, Index over) {
            small_product<Scalar>(width,
                                  {{memory.values, memory.value_stride},
                                   {nullptr},
                                   {out + (from + c) * out_stride, out_stride},
                                   {scores.data() + c * rows, 1, rows},
                                   over,
                                   {},
                                   {},
                                   some},
                                  inverses + from + c);
        };
        // 0 times what a query doesn't see adds nothing, unless that is no number.
        if (here.by_first == keys ||
            all_finite<widest_lanes<Scalar>>(width, keys - here.by_first,
                                             memory.values + here.by_first * memory.value_stride,
                                             memory.value_stride))
            sum_values(0, columns, keys);
        else
            for (Index c = 0; c < columns; ++c) sum_values(c, 1, here.by(c));
    }
}

/// 1 / sqrt(width), by which scores are multiplied.
template <class Scalar>
[[nodiscard]] Scalar score_scale(Index width) {
    return static_cast<Scalar>(1 / std::sqrt(static_cast<double>(width)));
}

/// to = the transposed of [width x count] keys or values, zero behind the last.
template <class Scalar>
void transpose_keys(Index width, Index count, const Scalar* from, Index stride, Scalar* to,
                    Index to_stride) {
    transpose(width, count, from, stride, to, to_stride);
    const Index padding = padded_keys(count) - count;
    if (padding == 0) return;
    for (Index i = 0; i < width; ++i) std::fill_n(to + i * to_stride + count, padding, Scalar(0));
}

/// Queries, keys and values of one head in one sequence, [width x length] each, columns `stride`
/// apart.
template <class Scalar>
struct Head {
    const Scalar* queries;
    const Scalar* keys;
    const Scalar* values;
    Index stride;
    Index width;
    Index length;
    bool causal;

    [[nodiscard]] KeysSeen seen() const { return {causal ? 1 : length, causal}; }
};

template <class Scalar>
void attend(const Head<Scalar>& head, Scalar* out, Index out_stride, Scalar* maxima,
            Scalar* inverses) {
    const Index rows = padded_keys(head.length);
    const ScratchArray<Scalar> keys(rows * head.width);
    transpose_keys(head.width, head.length, head.keys, head.stride, keys.data(), rows);
    attend(head.width, {keys.data(), rows, head.values, head.stride},
           score_scale<Scalar>(head.width), head.queries, head.stride, head.length, head.seen(),
           out, out_stride, maxima, inverses);
}

}  // namespace stochastic_depth::detail
