// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/kernels/attention.hpp>
#include <stochastic_depth/kernels/attention_rotary.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/sequence/key_value_cache.hpp>
#include <stochastic_depth/layers/sequence/sequence_past.hpp>
#include <stochastic_depth/layers/sequence/token_list.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>

namespace stochastic_depth {

struct MultiHeadAttentionOptions {
    /// Numbers of a position, at least 1.
    Index width = 1;
    /// At least 1; must divide the width.
    Index heads = 1;
    /// Whether a position sees those before it and itself alone.
    bool causal = false;
    /// Whether queries and keys are turned by their positions; the width of a head must then be
    /// even.
    bool rotary = false;
    bool bias = true;
};

/// Self-attention of several heads, on sequences [width T x batch], position after position:
///
///     (q, k, v)(t) = W x(t) + b,
///     y(t) = V c(t) + a,  c_h(t) = sum over s of p_h(s, t) v_h(s),
///     p_h(s, t) = exp(q_h(t) . k_h(s) / sqrt(width / heads)) / sum over s of the same,
///
/// where a head has its rows of q, k, v and c, and s runs over the sequence's positions; if causal,
/// over those up to t. Positions past a sequence's end take no part, and their outputs are 0. T is
/// any, and may differ from batch to batch.
///
/// W is [3 width x width], of queries, keys and values, and V [width x width], as
/// torch.nn.MultiheadAttention's in_proj_weight and out_proj.weight.
///
/// Rotary positions turn the pair of features i and i + h / 2 of a head of width h, of queries and
/// keys, at position t by the angle t 10000^(-2 i / h).
///
/// A sequence has the same bits alone and in any batch, whatever its padding, and for any number of
/// threads.
///
/// \source Vaswani et al. 2017, Attention Is All You Need, Eq. (1) and 3.2.2; Su et al. 2021,
///         RoFormer, Eq. (34), but for the order of the features.
template <class Scalar_>
class MultiHeadAttention : public LayerBase<MultiHeadAttention<Scalar_>, Scalar_> {
public:
    using Scalar = Scalar_;

    /// By the parameters, in their shapes.
    struct Gradient {
        typename Linear<Scalar>::Gradient in;
        typename Linear<Scalar>::Gradient out;
        void set_zero() {
            in.set_zero();
            out.set_zero();
        }
    };

    /// Weights drawn uniformly from +-gain sqrt(3 / width), biases 0.
    /// \param random  A uniform random bit generator; it advances.
    /// \param gain    As Linear's.
    /// \throws std::invalid_argument  if an option or the gain lies outside its range; nothing is
    ///                                drawn then.
    template <RandomBitGenerator Random>
    MultiHeadAttention(const MultiHeadAttentionOptions& options, Random& random, double gain = 1)
        : options_(checked(options)),
          in_(options.width, 3 * options.width, random, checked(gain)),
          out_(options.width, options.width, random, gain) {}

    /// \param in_weights   W, [3 width x width].
    /// \param in_bias      b, [3 width]; empty where options.bias is false.
    /// \param out_weights  V, [width x width].
    /// \param out_bias     a, [width]; empty where options.bias is false.
    /// \throws std::invalid_argument  if an option lies outside its range, or sizes don't match.
    MultiHeadAttention(const MultiHeadAttentionOptions& options,
                       const ConstMatrixRef<Scalar>& in_weights,
                       const Eigen::Ref<const Vector<Scalar>>& in_bias,
                       const ConstMatrixRef<Scalar>& out_weights,
                       const Eigen::Ref<const Vector<Scalar>>& out_bias)
        : options_(checked(options)),
          in_(projection("in", 3 * options.width, in_weights, in_bias)),
          out_(projection("out", options.width, out_weights, out_bias)) {}

    [[nodiscard]] const MultiHeadAttentionOptions& options() const { return options_; }
    [[nodiscard]] Index width() const { return options_.width; }
    [[nodiscard]] Index heads() const { return options_.heads; }
    [[nodiscard]] Index head_width() const { return options_.width / options_.heads; }
    /// W, [3 width x width], and V, [width x width].
    [[nodiscard]] const Matrix<Scalar>& in_weights() const { return in_.weights(); }
    [[nodiscard]] const Matrix<Scalar>& out_weights() const { return out_.weights(); }
    /// b, [3 width], and a, [width]; zeros without a bias.
    [[nodiscard]] const Vector<Scalar>& in_bias() const { return in_.bias(); }
    [[nodiscard]] const Vector<Scalar>& out_bias() const { return out_.bias(); }

    [[nodiscard]] std::string description() const {
        return detail::message("MultiHeadAttention ", width(), ", heads ", heads(),
                               options_.causal ? ", causal" : "", options_.rotary ? ", rotary" : "",
                               options_.bias ? "" : ", no bias");
    }

    /// \throws std::invalid_argument  unless input_size is a multiple of width(), and not 0.
    [[nodiscard]] Index output_size(Index input_size) const {
        if (input_size < 1 || input_size % width() != 0)
            detail::refuse("MultiHeadAttention: input must have a multiple of ", width(),
                           " rows, got ", input_size);
        return input_size;
    }

    /// Multiply-adds for a column of one position; those of longer ones grow faster than they.
    [[nodiscard]] double work() const { return work(width()); }
    /// Multiply-adds for a column of so many rows.
    [[nodiscard]] double work(Index rows) const {
        const double positions = static_cast<double>(rows / width()), d = width_in_double();
        return positions * d * (4 * d + 2 * positions);
    }

    /// Queries, keys and values, turned where they are, and what the heads make of them, of real
    /// tokens alone.
    template <class Memory>
    struct Record {
        detail::TokenList tokens;
        /// [width x tokens].
        const Scalar* input = nullptr;
        /// [3 width x tokens].
        const Scalar* projected = nullptr;
        /// [width x tokens].
        const Scalar* context = nullptr;
        /// Of each sequence's and head's softmaxes, the largest scores and then 1 / sums.
        const Scalar* terms = nullptr;
    };

    [[nodiscard]] Gradient zero_gradient() const {
        return {in_.zero_gradient(), out_.zero_gradient()};
    }

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
             const Epilogue& epilogue) const {
        if constexpr (detail::HasPast<Mask>) {
            Batch result = batch.room(output_size(batch.rows()));
            step(batch.current(), mask.past().cache_of(this, width()), result.writable());
            batch = std::move(result);
            return batch.apply(epilogue);
        } else {
            run_whole(batch, record, epilogue);
        }
    }

    /// With slopes of scores, ds = p (dp - sum of p dp) / sqrt(h), head by head:
    ///
    ///     dc = V^T dy,  dv = dc p^T,  dp = v^T dc,  dq = k ds,  dk = q ds^T,
    ///     dx = W^T (dq, dk, dv),  dW += (dq, dk, dv) x^T,  dV += dy c^T.
    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        check(gradient);
        constexpr bool wants_slopes = !detail::is_discarded<Epilogue>;
        const detail::TokenList& tokens = record.tokens;
        const Index count = tokens.size(), rows = batch.rows();
        const auto dy = batch.current();
        const bool all = tokens.stand_side_by_side(dy, width());
        // One thread adds to the gradients while it has the slopes at hand; several share the
        // gradients' entries, and not the tokens.
        const bool is_shared = batch.team().size() > 1;
        const Index kept = is_shared ? count : 0;
        const detail::ScratchArray<Scalar> gathered(all ? 0 : kept * width()),
            by_projected(3 * width() * kept),
            in_transposed(wants_slopes ? in_.weights().size() : 0),
            out_transposed(out_.weights().size());
        detail::transpose(width(), width(), out_.weights().data(), width(), out_transposed.data(),
                          width());
        if constexpr (wants_slopes)
            detail::transpose(3 * width(), width(), in_.weights().data(), 3 * width(),
                              in_transposed.data(), width());
        const detail::RotaryAngles<Scalar> angles(head_width(), 0,
                                                  options_.rotary ? tokens.longest() : 0);
        const auto add_gradients = [&](const detail::Team& team, Index from, Index some,
                                       const Scalar* slopes, const Scalar* slopes_inside) {
            out_.add_gradient(team, matrix(width(), some, record.context + from * width()),
                              matrix(width(), some, slopes), gradient.out);
            in_.add_gradient(team, matrix(width(), some, record.input + from * width()),
                             matrix(3 * width(), some, slopes_inside), gradient.in);
        };
        const auto run_columns = [&](const detail::Team& team, Index j, Index end,
                                     const auto& at_tokens) {
            const Index from = tokens.first[j], some = tokens.first[end] - from;
            const detail::ScratchArray<Scalar> scratch(some * (is_shared ? 1 : 5) * width());
            Scalar* const by_context = scratch.data();
            Scalar* const inside =
                is_shared ? by_projected.data() + 3 * width() * from : by_context + some * width();
            const Scalar* slopes = dy.data() + from * width();
            if (!all) {
                Scalar* const to =
                    is_shared ? gathered.data() + from * width() : by_context + 4 * some * width();
                tokens.gather(team, dy, width(), from, some, to);
                slopes = to;
            }
            team.split(some, detail::columns_of_member, out_.work(), [&](Index k, Index part) {
                detail::product<Scalar>(width(), width(), part, {out_transposed.data(), width()},
                                        nullptr, {slopes + k * width(), 1, width()},
                                        {by_context + k * width(), width()}, detail::AsIs{});
            });
            for_each_head(team, tokens, j, end, 3, [&](Index column, Index h) {
                const Index at = tokens.first[column], length = tokens.length(column);
                const Index row = h * head_width();
                const Scalar* const terms = record.terms + 2 * (heads() * at + h * length);
                Scalar* const to = inside + 3 * width() * (at - from) + row;
                detail::differentiate_attention(
                    head(record.projected + 3 * width() * at, length, h), terms, terms + length,
                    by_context + width() * (at - from) + row, width(),
                    {to, to + width(), to + 2 * width(), 3 * width()});
            });
            if (options_.rotary)
                turn(team, tokens, from, some, inside,
                     [&](Index t, Scalar* token) { angles.turn_back(t, 2 * heads(), token); });
            if constexpr (wants_slopes)
                team.split(some, detail::columns_of_member, in_.work(), [&](Index k, Index part) {
                    // The slopes by the context are not needed any more: sums may wait there.
                    detail::product<Scalar>(
                        width(), 3 * width(), part, {in_transposed.data(), width()}, nullptr,
                        {inside + 3 * k * width(), 1, 3 * width()},
                        {by_context + k * width(), width()}, at_tokens, {0, from + k});
                });
            if (!is_shared) add_gradients(team, from, some, slopes, inside);
        };
        const auto run_all = [&](const auto& at_tokens) {
            tokens.in_groups(batch.team(), 2 * work(rows) / static_cast<double>(rows / width()),
                             [&](const detail::Team& team, Index j, Index end) {
                                 run_columns(team, j, end, at_tokens);
                             });
            if (is_shared)
                add_gradients(batch.team(), 0, count, all ? dy.data() : gathered.data(),
                              by_projected.data());
        };
        if constexpr (wants_slopes) {
            Batch result = batch.room(rows);
            detail::run_at_tokens<Scalar>(batch.team(), tokens, width(), result.writable(),
                                          epilogue, run_all);
            batch = std::move(result);
        } else {
            run_all(detail::AsIs{});
        }
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        const auto visit_one = [&](const char* weights, const char* bias, auto& part,
                                   auto&... slopes) {
            std::remove_cvref_t<decltype(part)>::visit_parameters(
                part,
                [&](const char* name, auto& parameter, auto&... slope) {
                    const bool is_bias = name[0] == 'b';
                    if (!is_bias || self.options_.bias)
                        visit(is_bias ? bias : weights, parameter, slope...);
                },
                slopes...);
        };
        visit_one("in_weights", "in_bias", self.in_, gradients.in...);
        visit_one("out_weights", "out_bias", self.out_, gradients.out...);
    }

    /// As torch.nn.MultiheadAttention's.
    [[nodiscard]] TensorForm tensor_form(TensorForm form) const {
        return std::move(form)
            .renamed("in_weights", "in_proj_weight")
            .renamed("in_bias", "in_proj_bias")
            .renamed("out_weights", "out_proj.weight")
            .renamed("out_bias", "out_proj.bias");
    }

    /// The outputs of the next positions of sequences whose past a cache holds: what the layer makes
    /// of the whole sequences, bit for bit, of these positions. The cache then holds them too.
    ///
    /// \param x  [width k x sequences], k positions of each sequence, k >= 1.
    /// \param y  [width k x sequences], overwritten; must not overlap x.
    /// \throws std::invalid_argument  if the layer is not causal, or sizes don't match; the cache is
    ///                                as it was then.
    void step(const ConstMatrixRef<Scalar>& x, KeyValueCache<Scalar>& cache,
              MatrixRef<Scalar> y) const {
        if (!options_.causal) detail::refuse("MultiHeadAttention: only a causal layer takes steps");
        detail::check_forward("MultiHeadAttention", *this, x, y);
        if (cache.width() != width())
            detail::refuse("MultiHeadAttention: cache must be of width ", width(), ", got ",
                           cache.width());
        if (cache.sequences() != x.cols())
            detail::refuse("MultiHeadAttention: cache must be of ", x.cols(), " sequences, got ",
                           cache.sequences());
        if (x.cols() == 0) return;
        const Index positions = x.rows() / width(), count = positions * x.cols();
        cache.reserve(cache.longest() + positions);
        const detail::ScratchArray<Scalar> projected(3 * width() * count), context(width() * count),
            terms(2 * positions);
        const Index shortest = cache.shortest();
        const detail::RotaryAngles<Scalar> angles(
            head_width(), shortest, options_.rotary ? cache.longest() + positions - shortest : 0);
        for_each_run(positions, x, [&](Index first, const auto& tokens) {
            in_.forward_fused(
                tokens, room(3 * width(), tokens.cols(), projected.data() + 3 * width() * first),
                detail::AsIs{});
        });
        for (Index j = 0; j < x.cols(); ++j) {
            Scalar* const of_sequence = projected.data() + 3 * width() * positions * j;
            const Index past = cache.length(j);
            for (Index t = 0; t < positions; ++t) {
                Scalar* const token = of_sequence + 3 * width() * t;
                if (options_.rotary) angles.turn(past + t, 2 * heads(), token);
                cache.append(j, token + width(), token + 2 * width());
            }
            for (Index h = 0; h < heads(); ++h) {
                const Index row = h * head_width();
                detail::attend(head_width(),
                               {cache.keys_of(j) + row * cache.capacity_, cache.capacity_,
                                cache.values_of(j) + row, width()},
                               detail::score_scale<Scalar>(head_width()), of_sequence + row,
                               3 * width(), positions, {past + 1, true},
                               context.data() + width() * positions * j + row, width(),
                               terms.data(), terms.data() + positions);
            }
        }
        for_each_run(positions, y, [&](Index first, const auto& tokens) {
            out_.forward_fused(matrix(width(), tokens.cols(), context.data() + width() * first),
                               detail::view(tokens), detail::AsIs{});
        });
    }

    /// A cache of sequences without a past.
    [[nodiscard]] KeyValueCache<Scalar> empty_cache(Index sequences) const {
        return {sequences, width()};
    }

private:
    [[nodiscard]] static const MultiHeadAttentionOptions& checked(
        const MultiHeadAttentionOptions& options) {
        if (options.width < 1)
            detail::refuse("MultiHeadAttention: width must be at least 1, got ", options.width);
        if (options.heads < 1)
            detail::refuse("MultiHeadAttention: heads must be at least 1, got ", options.heads);
        if (options.width % options.heads != 0)
            detail::refuse("MultiHeadAttention: heads must divide the width ", options.width,
                           ", got ", options.heads);
        if (options.rotary && options.width / options.heads % 2 != 0)
            detail::refuse("MultiHeadAttention: rotary positions need heads of even width, got ",
                           options.width / options.heads);
        return options;
    }
    [[nodiscard]] static double checked(double gain) {
        if (!(gain >= 0 && std::isfinite(gain)))
            detail::refuse("MultiHeadAttention: gain must be finite and at least 0, got ", gain);
        return gain;
    }
    [[nodiscard]] Linear<Scalar> projection(const char* name, Index outputs,
                                            const ConstMatrixRef<Scalar>& weights,
                                            const Eigen::Ref<const Vector<Scalar>>& bias) const {
        if (weights.rows() != outputs || weights.cols() != width())
            detail::refuse("MultiHeadAttention: ", name, "_weights must be [", outputs, " x ",
                           width(), "], got [", weights.rows(), " x ", weights.cols(), "]");
        const Index entries = options_.bias ? outputs : 0;
        if (bias.size() != entries)
            detail::refuse("MultiHeadAttention: ", name, "_bias must have ", entries,
                           " entries, got ", bias.size());
        if (options_.bias) return {weights, bias};
        return {weights, Vector<Scalar>::Zero(outputs)};
    }

    void check(const Gradient& gradient) const {
        if (gradient.in.weights.rows() != 3 * width() || gradient.in.weights.cols() != width())
            detail::refuse("MultiHeadAttention: gradient must be of width ", width(), ", got ",
                           gradient.in.weights.cols());
    }

    [[nodiscard]] double width_in_double() const { return static_cast<double>(width()); }

    [[nodiscard]] static detail::ConstView<Scalar> matrix(Index rows, Index columns,
                                                          const Scalar* data) {
        return {data, rows, columns, Eigen::OuterStride<>(rows)};
    }
    [[nodiscard]] static detail::View<Scalar> room(Index rows, Index columns, Scalar* data) {
        return {data, rows, columns, Eigen::OuterStride<>(rows)};
    }

    /// Calls run(number of the first token, tokens) for the tokens of x, [width positions x
    /// sequences], all at once where they stand at equal distances.
    template <class X, class Run>
    void for_each_run(Index positions, const X& x, const Run& run) const {
        if (positions == 1) return run(Index{0}, detail::const_view(x));
        if (x.outerStride() == x.rows() || x.cols() == 1)
            return run(Index{0}, matrix(width(), positions * x.cols(), x.data()));
        for (Index j = 0; j < x.cols(); ++j)
            run(positions * j, matrix(width(), positions, x.data() + j * x.outerStride()));
    }

    /// \param projected  Of the sequence.
    [[nodiscard]] detail::Head<Scalar> head(const Scalar* projected, Index length, Index h) const {
        const Scalar* const queries = projected + h * head_width();
        return {queries, queries + width(), queries + 2 * width(), 3 * width(), head_width(),
                length,  options_.causal};
    }

    /// What a pass knows of some tokens that follow each other.
    struct TokenMemory {
        Index first;
        Index count;
        const Scalar* input;
        Scalar* projected;
        Scalar* context;
        Scalar* terms;
    };

    /// From the input of sequences j, ..., end - 1 to what their heads make of them.
    void attend(const detail::Team& team, const detail::TokenList& tokens, Index j, Index end,
                const TokenMemory& memory, const detail::RotaryAngles<Scalar>& angles) const {
        team.split(memory.count, detail::columns_of_member, in_.work(), [&](Index k, Index count) {
            in_.forward_fused(matrix(width(), count, memory.input + k * width()),
                              room(3 * width(), count, memory.projected + 3 * width() * k),
                              detail::AsIs{});
        });
        if (options_.rotary)
            turn(team, tokens, memory.first, memory.count, memory.projected,
                 [&](Index t, Scalar* token) { angles.turn(t, 2 * heads(), token); });
        for_each_head(team, tokens, j, end, 1, [&](Index column, Index h) {
            const Index at = tokens.first[column] - memory.first, length = tokens.length(column);
            Scalar* const terms = memory.terms + 2 * (heads() * at + h * length);
            detail::attend(head(memory.projected + 3 * width() * at, length, h),
                           memory.context + width() * at + h * head_width(), width(), terms,
                           terms + length);
        });
    }

    /// Whole sequences.
    template <class Batch, class Epilogue>
    void run_whole(Batch& batch, Record<typename Batch::Memory>& record,
                   const Epilogue& epilogue) const {
        const Index rows = output_size(batch.rows()), columns = batch.columns();
        const auto x = batch.current();
        const auto first = batch.template array<Index>(columns + 1);
        detail::TokenList::count(batch.lengths(), rows / width(), columns, first.data());
        const Index count = first[columns];
        const auto places = batch.template array<detail::TokenPlace>(count);
        detail::TokenList::place(columns, first.data(), places.data());
        const detail::TokenList tokens{first.data(), places.data(), columns};
        const bool all = tokens.stand_side_by_side(x, width());
        // What a record keeps is of all tokens; else a few sequences at a time need it.
        const Index kept = Batch::records ? count : 0;
        const auto gathered = batch.template array<Scalar>(all ? 0 : kept * width());
        const auto projected = batch.template array<Scalar>(3 * width() * kept);
        const auto context = batch.template array<Scalar>(width() * kept);
        const auto terms = batch.template array<Scalar>(2 * heads() * kept);
        if constexpr (Batch::records) {
            if (all) (void)batch.keep();
            record = {tokens, all ? x.data() : gathered.data(), projected.data(), context.data(),
                      terms.data()};
        }
        const detail::RotaryAngles<Scalar> angles(head_width(), 0,
                                                  options_.rotary ? tokens.longest() : 0);
        Batch result = batch.room(rows);
        const auto run_columns = [&](const detail::Team& team, Index j, Index end,
                                     const auto& at_tokens) {
            const Index from = tokens.first[j], some = tokens.first[end] - from;
            const detail::ScratchArray<Scalar> scratch(
                Batch::records ? 0 : some * (5 * width() + 2 * heads()));
            Scalar* const here = scratch.data();
            const auto place = [&](Index size, Scalar* whole, Index before) {
                return Batch::records ? whole + from * size : here + some * before;
            };
            const TokenMemory memory{
                from,
                some,
                all ? x.data() + from * width() : place(width(), gathered.data(), 0),
                place(3 * width(), projected.data(), width()),
                place(width(), context.data(), 4 * width()),
                place(2 * heads(), terms.data(), 5 * width())};
            if (!all)
                tokens.gather(team, x, width(), from, some, place(width(), gathered.data(), 0));
            attend(team, tokens, j, end, memory, angles);
            team.split(some, detail::columns_of_member, out_.work(), [&](Index k, Index part) {
                // Where the width is large, sums wait there.
                const detail::ScratchArray<Scalar> sums(width() * part);
                out_.forward_fused(matrix(width(), part, memory.context + k * width()),
                                   room(width(), part, sums.data()), at_tokens, {0, from + k});
            });
        };
        detail::run_at_tokens<Scalar>(
            batch.team(), tokens, width(), result.writable(), epilogue, [&](const auto& at_tokens) {
                tokens.in_groups(batch.team(), work(rows) / static_cast<double>(rows / width()),
                                 [&](const detail::Team& team, Index j, Index end) {
                                     run_columns(team, j, end, at_tokens);
                                 });
            });
        batch = std::move(result);
    }

    /// Calls run(column, h) for each of some sequences and each head, shared by a team: a member has
    /// those whose first token falls to it, counted head by head.
    template <class Run>
    void for_each_head(const detail::Team& team, const detail::TokenList& tokens, Index column,
                       Index end, double passes, const Run& run) const {
        const Index first = tokens.first[column], count = tokens.first[end] - first;
        if (count == 0) return;
        const double keys = static_cast<double>(count) / static_cast<double>(end - column);
        team.split(count * heads(), 1, passes * keys * (2 * static_cast<double>(head_width()) + 16),
                   [&](Index from, Index some) {
                       for (Index j = column; j < end; ++j) {
                           const Index at = heads() * (tokens.first[j] - first);
                           const Index length = tokens.length(j);
                           if (length == 0 || at + heads() * length <= from) continue;
                           if (at >= from + some) break;
                           for (Index h = 0; h < heads(); ++h)
                               if (at + h * length >= from && at + h * length < from + some)
                                   run(j, h);
                       }
                   });
    }

    /// Calls turn(position, token) for the queries and keys of some tokens.
    template <class Turn>
    void turn(const detail::Team& team, const detail::TokenList& tokens, Index first, Index count,
              Scalar* projected, const Turn& turn_token) const {
        team.split(count, 1, 8 * width_in_double(), [&](Index from, Index some) {
            for (Index k = from; k < from + some; ++k)
                turn_token(tokens.places[first + k].position, projected + 3 * width() * k);
        });
    }

    MultiHeadAttentionOptions options_;
    Linear<Scalar> in_;
    Linear<Scalar> out_;
};

}  // namespace stochastic_depth
