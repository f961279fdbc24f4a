// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <limits>
#include <numbers>
#include <type_traits>
#include <utility>

#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/kernels/exponential.hpp>
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
inline constexpr Index queries_at_once = 16;

/// x[k] becomes exp(x[k]), for x[k] <= 0, and 0 below the logarithm of the smallest normal number,
/// so that masked scores of -infinity, and those that are as good as that, take no longer than
/// others. At most 1.0 ulp off where the target has a fused multiply-add. NaN of NaN.
///
/// Several packets go step by step together: each alone would mostly wait for its last step.
template <class P, std::size_t n>
EIGEN_ALWAYS_INLINE void softmax_terms(P (&x)[n]) {
    using Scalar = typename P::Scalar;
    using Constants = ExponentialConstants<Scalar>;
    // What stands in the low bits of a sum with the rounder is the biased exponent of the power of
    // two; of the lowest x that is 0, and then the power is 0 too.
    constexpr Scalar bias = Scalar(std::numeric_limits<Scalar>::max_exponent - 1);
    constexpr Scalar rounder = Scalar(1.5) / std::numeric_limits<Scalar>::epsilon() + bias;
    const auto in_step = [](const auto& step) {
        STOCHASTIC_DEPTH_UNROLL for (std::size_t k = 0; k < n; ++k) step(k);
    };
    const P round = P::broadcast(rounder);
    P power[n], count[n], value[n];
    in_step([&](std::size_t k) {
        x[k] = max(x[k], P::broadcast(-bias * std::numbers::ln2_v<Scalar>));
    });
    in_step([&](std::size_t k) {
        power[k] = multiply_add(x[k], P::broadcast(std::numbers::log2e_v<Scalar>), round);
    });
    in_step([&](std::size_t k) { count[k] = power[k] - round; });
    in_step([&](std::size_t k) {
        x[k] = multiply_add(count[k], P::broadcast(-Constants::ln2_high), x[k]);
    });
    in_step([&](std::size_t k) {
        x[k] = multiply_add(count[k], P::broadcast(-Constants::ln2_low), x[k]);
    });
    in_step([&](std::size_t k) { value[k] = P::broadcast(Constants::coefficients[0]); });
    unroll<static_cast<int>(std::size(Constants::coefficients)) - 1>([&](auto i) {
        in_step([&](std::size_t k) {
            value[k] = multiply_add(value[k], x[k], P::broadcast(Constants::coefficients[i + 1]));
        });
    });
    in_step([&](std::size_t k) {
        x[k] = value[k] * power[k].template shift_bits_up<Constants::significand_bits>();
    });
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

/// A tile of a product whose sums are stored, times a factor for each column, if there are some.
template <int Lanes, int Packets, int Columns, class Scalar>
[[gnu::noinline]] void store_tile(Index row, Index last, Index column, const Operands<Scalar>& f,
                                  const Scalar* factors) {
    using P = Packet<Scalar, Lanes>;
    run_tile<Lanes, Packets, Columns>(row, last, column, f, [&] {
        return [&](const P& sum, int p, int c) {
            Scalar* const to = f.out.data + row + (p + 1 < Packets ? Index{p * Lanes} : last) +
                               (column + c) * f.out.stride;
            if (factors)
                (sum * P::broadcast(factors[column + c])).store(to);
            else
                sum.store(to);
        };
    });
}

/// Columns of the widest tile of so many packets: powers of two, of which queries_at_once are made.
template <int Packets>
inline constexpr int widest_tile = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32
                                       ? (Packets == 1  ? 16
                                          : Packets < 4 ? 8
                                                        : 4)
                                       : (Packets == 1 ? 8 : 4);

template <int Lanes, int Packets, int Columns, class Scalar>
Index store_tiles(Index row, Index last, Index column, const Operands<Scalar>& f,
                  const Scalar* factors) {
    for (; column + Columns <= f.columns; column += Columns)
        store_tile<Lanes, Packets, Columns>(row, last, column, f, factors);
    if constexpr (Columns > 1)
        return store_tiles<Lanes, Packets, Columns / 2>(row, last, column, f, factors);
    return column;
}

/// The product that `f` describes, of `rows` rows, with a factor for each column (null: none): one of
/// those many small ones that attention is made of. Rows of the widest packet, or of its half, have
/// tiles of their own.
template <class Scalar, int Lanes = widest_lanes<Scalar>>
void small_product(Index rows, const Operands<Scalar>& f, const Scalar* factors = nullptr) {
    if constexpr (Lanes == 1 || !fuses_epilogue<Scalar, Lanes>) {
        if (factors)
            product_onto<Scalar>(rows, f.inner, f.columns, f.left, f.start, f.right, f.out,
                                 MultiplyColumns<Scalar>{factors});
        else
            product_onto<Scalar>(rows, f.inner, f.columns, f.left, f.start, f.right, f.out, AsIs{});
    } else {
        if (rows < Lanes)
            return small_product<Scalar, Packet<Scalar, Lanes>::narrower>(rows, f, factors);
        constexpr int tall = max_packets<Scalar, Lanes>;
        for (Index row = 0; row < rows;) {
            const Index packets = std::min<Index>((rows - row + Lanes - 1) / Lanes, tall);
            const Index last = std::min((packets - 1) * Lanes, rows - row - Lanes);
            unroll<tall>([&](auto p) {
                if (packets == p + 1)
                    store_tiles<Lanes, p + 1, widest_tile<p + 1>>(row, last, 0, f, factors);
            });
            row += packets * Lanes;
        }
    }
}

// As in packet.hpp.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif

/// Lanes from, from + 1, ... of a packet, half of them.
template <int from, class Scalar, int Lanes>
[[nodiscard]] EIGEN_ALWAYS_INLINE Packet<Scalar, Lanes / 2> half_from(
    Packet<Scalar, Lanes> packet) {
    using Half = Packet<Scalar, Lanes / 2>;
    return [&]<int... lane>(std::integer_sequence<int, lane...>) {
        return Half{static_cast<typename Half::Register>(
            __builtin_shufflevector(packet.value(), packet.value(), (from + lane)...))};
    }
    (std::make_integer_sequence<int, Lanes / 2>{});
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/// Combines sum_lanes numbers, in the packets' lanes, into one: number i with i + 8, and then with
/// i + 4, i + 2, i + 1.
template <class P, std::size_t n, class Combine>
[[nodiscard]] EIGEN_ALWAYS_INLINE typename P::Scalar combine_lanes(P (&packets)[n],
                                                                   const Combine& combine) {
    using Scalar = typename P::Scalar;
    for (std::size_t half = n / 2; half > 0; half /= 2)
        for (std::size_t k = 0; k < half; ++k) packets[k] = combine(packets[k], packets[k + half]);
    if constexpr (P::lanes > 4) {
        Packet<Scalar, P::lanes / 2> halves[] = {
            combine(half_from<0>(packets[0]), half_from<P::lanes / 2>(packets[0]))};
        return combine_lanes(halves, combine);
    } else {
        using One = Packet<Scalar, 1>;
        alignas(64) Array<Scalar, P::lanes> numbers;
        packets[0].store(numbers);
        for (int half = P::lanes / 2; half > 0; half /= 2)
            for (int k = 0; k < half; ++k)
                numbers[k] = combine(One{numbers[k]}, One{numbers[k + half]}).first();
        return numbers[0];
    }
}

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

/// Columns whose softmaxes are taken together.
inline constexpr int columns_in_step = 4;

/// Calls run(first column, integral_constant of how many) for columns 0, ..., columns - 1.
template <class Run>
EIGEN_ALWAYS_INLINE void in_steps(Index columns, const Run& run) {
    Index c = 0;
    for (; c + columns_in_step <= columns; c += columns_in_step)
        run(c, std::integral_constant<int, columns_in_step>{});
    for (; c < columns; ++c) run(c, std::integral_constant<int, 1>{});
}

/// The largest of each of n columns of scores.
/// \param rows  A multiple of sum_lanes.
template <int Lanes, int n, class Scalar>
EIGEN_ALWAYS_INLINE void find_maxima(Index rows, const Scalar* scores, Index stride,
                                     Scalar* maxima) {
    using P = Packet<Scalar, Lanes>;
    constexpr int packets = static_cast<int>(sum_lanes) / Lanes;
    STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) {
        const Scalar* const column = scores + c * stride;
        Array<P, packets> part;
        STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < packets; ++p) part[p] =
            P::load(column + p * Lanes);
        for (Index i = sum_lanes; i < rows; i += sum_lanes)
            STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < packets; ++p) part[p] =
                max(part[p], P::load(column + i + p * Lanes));
        maxima[c] = combine_lanes(part, [](auto a, auto b) { return max(a, b); });
    }
}

/// The softmaxes of n columns of scores before their divisions: entries become
/// exp(scale (entry - max)), and inverses[c] is 1 / sum of these.
template <int Lanes, int n, class Scalar>
EIGEN_ALWAYS_INLINE void exponentiate(Index rows, Scalar* scores, Index stride, Scalar scale,
                                      const Scalar* maxima, Scalar* inverses) {
    using P = Packet<Scalar, Lanes>;
    constexpr int packets = static_cast<int>(sum_lanes) / Lanes;
    const P factor = P::broadcast(scale);
    Array<P, n> shift;
    STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) shift[c] = P::broadcast(maxima[c]);
    Array<Array<P, packets>, n> sum;
    STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < packets; ++p) {
        STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) sum[c][p] = P::broadcast(Scalar(0));
        for (Index i = p * Lanes; i < rows; i += sum_lanes) {
            Array<P, n> terms;
            STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) terms[c] =
                (P::load(scores + i + c * stride) - shift[c]) * factor;
            softmax_terms(terms);
            STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) {
                terms[c].store(scores + i + c * stride);
                sum[c][p] = sum[c][p] + terms[c];
            }
        }
    }
    STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) inverses[c] =
        Scalar(1) / combine_lanes(sum[c], [](auto a, auto b) { return a + b; });
}

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

/// On the way back through the softmaxes of n columns of `scale` times scores: the scores become
/// probabilities p, and the slopes by these those by scores, scale p (slope - sum of p slope).
/// \param rows  A multiple of sum_lanes.
template <int Lanes, int n, class Scalar>
EIGEN_ALWAYS_INLINE void differentiate_softmax(Index rows, Scalar scale, const Scalar* maxima,
                                               const Scalar* inverses, Scalar* scores,
                                               Scalar* slopes, Index stride) {
    using P = Packet<Scalar, Lanes>;
    constexpr int packets = static_cast<int>(sum_lanes) / Lanes;
    const P factor = P::broadcast(scale);
    Array<Array<P, packets>, n> sum;
    STOCHASTIC_DEPTH_UNROLL for (int p = 0; p < packets; ++p) {
        STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) sum[c][p] = P::broadcast(Scalar(0));
        for (Index i = p * Lanes; i < rows; i += sum_lanes) {
            Array<P, n> terms;
            STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) terms[c] =
                (P::load(scores + i + c * stride) - P::broadcast(maxima[c])) * factor;
            softmax_terms(terms);
            STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) {
                terms[c] = terms[c] * P::broadcast(inverses[c]);
                terms[c].store(scores + i + c * stride);
                sum[c][p] = multiply_add(terms[c], P::load(slopes + i + c * stride), sum[c][p]);
            }
        }
    }
    STOCHASTIC_DEPTH_UNROLL for (int c = 0; c < n; ++c) {
        const P mean = P::broadcast(combine_lanes(sum[c], [](auto a, auto b) { return a + b; }));
        const Scalar* const from = scores + c * stride;
        Scalar* const to = slopes + c * stride;
        for (Index i = 0; i < rows; i += Lanes)
            (P::load(from + i) * ((P::load(to + i) - mean) * factor)).store(to + i);
    }
}

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
