// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include <stochastic_depth/kernels/attention.hpp>
#include <stochastic_depth/kernels/packet.hpp>
#include <stochastic_depth/kernels/small_product.hpp>
#include <stochastic_depth/kernels/softmax_columns.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Slopes by the queries, keys and values of a head, as these stand.
template <class Scalar>
struct HeadSlopes {
    Scalar* queries;
    Scalar* keys;
    Scalar* values;
    Index stride;
};

/// The way back through attend(head, ...), given the slopes by what it wrote.
template <class Scalar>
void differentiate_attention(const Head<Scalar>& head, const Scalar* maxima, const Scalar* inverses,
                             const Scalar* slopes, Index slope_stride,
                             const HeadSlopes<Scalar>& to) {
    const Index width = head.width, length = head.length, rows = padded_keys(length);
    const Scalar scale = score_scale<Scalar>(width);
    const ScratchArray<Scalar> keys(rows * width), values(rows * width);
    transpose_keys(width, length, head.keys, head.stride, keys.data(), rows);
    transpose_keys(width, length, head.values, head.stride, values.data(), rows);
    const ScratchArray<Scalar> probabilities(rows * length), by_scores(rows * length);
    for (Index from = 0; from < length; from += queries_at_once) {
        const Index columns = std::min(queries_at_once, length - from);
        const KeysSeen here{head.seen().by(from), head.causal};
        const Index seen = here.by(columns - 1), seen_rows = padded_keys(seen);
        Scalar* const p = probabilities.data() + from * rows;
        Scalar* const by_p = by_scores.data() + from * rows;
        write_scores(width, keys.data(), rows, head.queries + from * head.stride, head.stride,
                     columns, here, p, rows);
        small_product<Scalar>(seen_rows, {{values.data(), rows},
                                          {nullptr},
                                          {by_p, rows},
                                          {slopes + from * slope_stride, 1, slope_stride},
                                          width,
                                          {},
                                          {},
                                          columns});
        in_steps(columns, [&](Index c, auto n) {
            differentiate_softmax<widest_lanes<Scalar>, n>(seen_rows, scale, maxima + from + c,
                                                           inverses + from + c, p + c * rows,
                                                           by_p + c * rows, rows);
        });
        small_product<Scalar>(width, {{head.keys, head.stride},
                                      {nullptr},
                                      {to.queries + from * to.stride, to.stride},
                                      {by_p, 1, rows},
                                      seen,
                                      {},
                                      {},
                                      columns});
    }
    // A key is seen by all queries, or by those from its own block on.
    const Index keys_at_once = head.causal ? queries_at_once : length;
    for (Index from = 0; from < length; from += keys_at_once) {
        const Index columns = std::min(keys_at_once, length - from);
        const Index skipped = head.causal ? from : 0, offset = from + skipped * rows;
        const auto sum_queries = [&](const Scalar* left, Index stride, const Scalar* right,
                                     Scalar* out) {
            small_product<Scalar>(width, {{left + skipped * stride, stride},
                                          {nullptr},
                                          {out + from * to.stride, to.stride},
                                          {right + offset, rows, 1},
                                          length - skipped,
                                          {},
                                          {},
                                          columns});
        };
        sum_queries(head.queries, head.stride, by_scores.data(), to.keys);
        sum_queries(slopes, slope_stride, probabilities.data(), to.values);
    }
}

}  // namespace stochastic_depth::detail
