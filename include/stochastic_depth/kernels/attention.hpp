// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/kernels/matrix_kernel.hpp>
#include <stochastic_depth/kernels/packet.hpp>
#include <stochastic_depth/kernels/transpose.hpp>
#include <stochastic_depth/memory/scratch.hpp>

/// Attention of one head in one sequence. Scores stand as [keys x queries], keys on lanes.
///
/// Every sum has one order: a score's over the head's features, a softmax's over `sum_lanes` partial
/// sums and then in a tree, an output's over the keys; so neither packets, nor the number of queries
/// that are done together, nor padding behind the last key changes a bit.
namespace stochastic_depth::detail {

/// Partial sums of a softmax: key s belongs to number s mod sum_lanes. Columns of scores are padded
/// to a multiple of it, by keys that no query sees.
inline constexpr Index sum_lanes = 16;

[[nodiscard]] constexpr Index padded_keys(Index keys) {
    return (keys + sum_lanes - 1) / sum_lanes * sum_lanes;
}

/// Queries that are done together.
inline constexpr Index queries_at_once = 2 * tile_columns;

template <class Scalar>
[[gnu::noinline]] Scalar placeholder_exp(Scalar x) { return std::exp(x); }
template <class P>
EIGEN_ALWAYS_INLINE P attention_exponential(P x) {
    return x.on_each_lane([](auto z) { return placeholder_exp(z); });
}

/// What masked scores start from: zeros, and then -infinity. A score of key s and query c starts
/// from entry s - c of `seen(keys)`, or s where all queries see the same.
template <class Scalar>
class ScoreStarts {
public:
    explicit ScoreStarts(Index longest)
        : zeros_(longest + queries_at_once),
          numbers_(zeros_ + padded_keys(longest) + queries_at_once) {
        std::fill_n(numbers_.data(), zeros_, Scalar(0));
        std::fill_n(numbers_.data() + zeros_, padded_keys(longest) + queries_at_once,
                    -std::numeric_limits<Scalar>::infinity());
    }
    /// From here on so many zeros.
    [[nodiscard]] const Scalar* seen(Index keys) const { return numbers_.data() + zeros_ - keys; }

private:
    Index zeros_;
    ScratchArray<Scalar> numbers_;
};

/// Keys and values of a head, for any queries.
template <class Scalar>
struct HeadMemory {
    /// [padded_keys(count) x width], columns `key_stride` apart; zero behind the last key.
    const Scalar* keys;
    Index key_stride;
    /// [width x count].
    const Scalar* values;
    Index value_stride;
    Index count;
};

/// Softmax of a column of scores before its division: entry = exp(entry - max). Returns max and
/// 1 / sum.
template <class Scalar>
struct SoftmaxTerms {
    Scalar max;
    Scalar inverse;
};
template <int Lanes, class Scalar>
SoftmaxTerms<Scalar> exponentiate(Index rows, Scalar* column) {
    using P = Packet<Scalar, Lanes>;
    constexpr int packets = static_cast<int>(sum_lanes) / Lanes;
    alignas(64) Array<Scalar, sum_lanes> parts;
    Array<P, packets> largest, sum;
    for (int p = 0; p < packets; ++p) largest[p] = P::load(column + p * Lanes);
    for (Index i = sum_lanes; i < rows; i += sum_lanes)
        for (int p = 0; p < packets; ++p)
            largest[p] = max(largest[p], P::load(column + i + p * Lanes));
    for (int p = 0; p < packets; ++p) largest[p].store(parts + p * Lanes);
    Scalar top = parts[0];
    for (int k = 1; k < sum_lanes; ++k) top = std::max(top, parts[k]);
    const P shift = P::broadcast(top);
    for (int p = 0; p < packets; ++p) sum[p] = P::broadcast(Scalar(0));
    for (Index i = 0; i < rows; i += sum_lanes)
        for (int p = 0; p < packets; ++p) {
            const P term = attention_exponential(P::load(column + i + p * Lanes) - shift);
            term.store(column + i + p * Lanes);
            sum[p] = sum[p] + term;
        }
    for (int p = 0; p < packets; ++p) sum[p].store(parts + p * Lanes);
    for (int width = sum_lanes / 2; width > 0; width /= 2)
        for (int k = 0; k < width; ++k) parts[k] += parts[k + width];
    return {top, Scalar(1) / parts[0]};
}

/// Multiplies column j by factors[j].
template <class Scalar>
struct MultiplyColumns {
    const Scalar* factors;

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index, Index j) const {
        return value * Packet::broadcast(factors[j]);
    }
};

/// out = values softmax(keys^T queries), for `count` queries.
///
/// \param first    Where queries see the keys up to their own place alone, that of the first one;
///                 else -1.
/// \param terms    [count], written.
template <class Scalar>
void attend(Index width, const HeadMemory<Scalar>& memory, const ScoreStarts<Scalar>& starts,
            const Scalar* queries, Index query_stride, Index count, Index first, Scalar* out,
            Index out_stride, Scalar* maxima, Scalar* inverses) {
    const bool causal = first >= 0;
    const Index most = padded_keys(memory.count);
    const ScratchArray<Scalar> scores(most * queries_at_once);
    for (Index from = 0; from < count; from += queries_at_once) {
        const Index columns = std::min(queries_at_once, count - from);
        const Index keys = causal ? std::min(memory.count, first + from + columns) : memory.count;
        const Index rows = padded_keys(keys);
        product_onto<Scalar>(
            rows, width, columns, {memory.keys, memory.key_stride},
            causal ? Start<Scalar>{starts.seen(first + from + 1), -1}
                   : Start<Scalar>{starts.seen(keys), 0},
            {queries + from * query_stride, 1, query_stride}, {scores.data(), rows}, AsIs{});
        for (Index c = 0; c < columns; ++c) {
            const auto terms =
                exponentiate<widest_lanes<Scalar>>(rows, scores.data() + c * rows);
            maxima[from + c] = terms.max;
            inverses[from + c] = terms.inverse;
        }
        product<Scalar>(width, keys, columns, {memory.values, memory.value_stride}, nullptr,
                        {scores.data(), 1, rows}, {out + from * out_stride, out_stride},
                        MultiplyColumns<Scalar>{inverses + from});
    }
}

/// 1 / sqrt(width), by which scores are multiplied: the keys are.
template <class Scalar>
[[nodiscard]] Scalar score_scale(Index width) {
    return static_cast<Scalar>(1 / std::sqrt(static_cast<double>(width)));
}

/// to(0, i) = scale key(i), for one position of keys that stand as [keys x width].
template <class Scalar>
void scale_key(Index width, const Scalar* key, Scalar scale, Scalar* to, Index to_stride) {
    for (Index i = 0; i < width; ++i) to[i * to_stride] = scale * key[i];
}

/// to = scale times the transposed of the keys, zero behind the last.
template <class Scalar>
void transpose_keys(Index width, Index keys, const Scalar* from, Index stride, Scalar scale,
                    Scalar* to, Index to_stride) {
    transpose(width, keys, from, stride, to, to_stride);
    for (Index i = 0; i < width; ++i) {
        Scalar* const row = to + i * to_stride;
        for (Index s = 0; s < keys; ++s) row[s] *= scale;
        std::fill_n(row + keys, padded_keys(keys) - keys, Scalar(0));
    }
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

    [[nodiscard]] Scalar scale() const { return score_scale<Scalar>(width); }
};

template <class Scalar>
void attend(const Head<Scalar>& head, const ScoreStarts<Scalar>& starts, Scalar* out,
            Index out_stride, Scalar* maxima, Scalar* inverses) {
    const Index rows = padded_keys(head.length);
    const ScratchArray<Scalar> keys(rows * head.width);
    transpose_keys(head.width, head.length, head.keys, head.stride, head.scale(), keys.data(),
                   rows);
    attend(head.width, {keys.data(), rows, head.values, head.stride, head.length}, starts,
           head.queries, head.stride, head.length, head.causal ? Index{0} : Index{-1}, out,
           out_stride, maxima, inverses);
}

/// slopes of scores = p (by_p - sum of p by_p), over the probabilities.
template <int Lanes, class Scalar>
void differentiate_softmax(Index rows, Scalar max, Scalar inverse, Scalar* scores, Scalar* slopes) {
    using P = Packet<Scalar, Lanes>;
    constexpr int packets = static_cast<int>(sum_lanes) / Lanes;
    alignas(64) Array<Scalar, sum_lanes> parts;
    Array<P, packets> sum;
    for (int p = 0; p < packets; ++p) sum[p] = P::broadcast(Scalar(0));
    const P shift = P::broadcast(max), factor = P::broadcast(inverse);
    for (Index i = 0; i < rows; i += sum_lanes)
        for (int p = 0; p < packets; ++p) {
            const Index k = i + p * Lanes;
            const P probability = attention_exponential(P::load(scores + k) - shift) * factor;
            probability.store(scores + k);
            sum[p] = multiply_add(probability, P::load(slopes + k), sum[p]);
        }
    for (int p = 0; p < packets; ++p) sum[p].store(parts + p * Lanes);
    for (int width = sum_lanes / 2; width > 0; width /= 2)
        for (int k = 0; k < width; ++k) parts[k] += parts[k + width];
    const P mean = P::broadcast(parts[0]);
    for (Index i = 0; i < rows; i += Lanes)
        (P::load(scores + i) * (P::load(slopes + i) - mean)).store(slopes + i);
}

/// The way back: slopes by queries, keys and values, given those by the output.
template <class Scalar>
struct HeadSlopes {
    Scalar* queries;
    Scalar* keys;
    Scalar* values;
    Index stride;
};
template <class Scalar>
void differentiate_attention(const Head<Scalar>& head, const ScoreStarts<Scalar>& starts,
                             const Scalar* maxima, const Scalar* inverses, const Scalar* slopes,
                             Index slope_stride, const HeadSlopes<Scalar>& to) {
    const Index width = head.width, length = head.length, rows = padded_keys(length);
    const ScratchArray<Scalar> keys(rows * width), values(rows * width);
    transpose_keys(width, length, head.keys, head.stride, head.scale(), keys.data(), rows);
    transpose_keys(width, length, head.values, head.stride, Scalar(1), values.data(), rows);
    const ScratchArray<Scalar> probabilities(rows * length), by_scores(rows * length);
    const Multiply<Scalar> scaled{head.scale()};
    constexpr Index block = 4 * queries_at_once;
    for (Index from = 0; from < length; from += queries_at_once) {
        const Index columns = std::min(queries_at_once, length - from);
        const Index seen = head.causal ? std::min(from / block * block + block, length) : length;
        const Index seen_rows = padded_keys(seen);
        Scalar* const p = probabilities.data() + from * rows;
        Scalar* const by_p = by_scores.data() + from * rows;
        product_onto<Scalar>(seen_rows, width, columns, {keys.data(), rows},
                             head.causal ? Start<Scalar>{starts.seen(from + 1), -1}
                                         : Start<Scalar>{starts.seen(length), 0},
                             {head.queries + from * head.stride, 1, head.stride}, {p, rows},
                             AsIs{});
        product<Scalar>(seen_rows, width, columns, {values.data(), rows}, nullptr,
                        {slopes + from * slope_stride, 1, slope_stride}, {by_p, rows}, AsIs{});
        for (Index c = 0; c < columns; ++c)
            differentiate_softmax<widest_lanes<Scalar>>(seen_rows, maxima[from + c],
                                                        inverses[from + c], p + c * rows,
                                                        by_p + c * rows);
        product<Scalar>(width, seen, columns, {head.keys, head.stride}, nullptr, {by_p, 1, rows},
                        {to.queries + from * to.stride, to.stride}, scaled);
    }
    const Index keys_at_once = head.causal ? block : length;
    for (Index from = 0; from < length; from += keys_at_once) {
        const Index columns = std::min(keys_at_once, length - from);
        const Index skipped = head.causal ? from : 0, offset = from + skipped * rows;
        product<Scalar>(width, length - skipped, columns,
                        {head.queries + skipped * head.stride, head.stride}, nullptr,
                        {by_scores.data() + offset, rows, 1},
                        {to.keys + from * to.stride, to.stride}, scaled);
        product<Scalar>(width, length - skipped, columns,
                        {slopes + skipped * slope_stride, slope_stride}, nullptr,
                        {probabilities.data() + offset, rows, 1},
                        {to.values + from * to.stride, to.stride}, AsIs{});
    }
}

}  // namespace stochastic_depth::detail
