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
#include <stochastic_depth/layers/sequence/attention_tokens.hpp>
#include <stochastic_depth/layers/sequence/key_value_cache.hpp>
#include <stochastic_depth/layers/sequence/sequence_past.hpp>
#include <stochastic_depth/pass/layer_base.hpp>

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
        /// Of each sequence's, head's and query's softmax, the largest score and 1 / sum.
        const Scalar* maxima = nullptr;
        const Scalar* inverses = nullptr;
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

    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        check(gradient);
        const detail::TokenList& tokens = record.tokens;
        const Index count = tokens.size(), rows = batch.rows();
        const detail::Team& team = batch.team();
        const auto dy = batch.current();
        const bool all = count * width() == dy.size() && (dy.outerStride() == rows || dy.cols() < 2);
        const detail::ScratchArray<Scalar> gathered(all ? 0 : count * width()),
            by_context(count * width()), by_projected(3 * count * width());
        if (!all)
            team.split(count, 1, detail::work_of_moving * width_in_double(),
                       [&](Index from, Index some) {
                           tokens.gather(dy, width(), from, some, gathered.data() + from * width());
                       });
        out_.backward_fused(team, matrix(width(), count, record.context),
                            matrix(width(), count, all ? dy.data() : gathered.data()), gradient.out,
                            room(width(), count, by_context.data()), detail::AsIs{});
        for_each_head(team, tokens, 3, [&](Index j, Index h) {
            const Index terms_at = heads() * tokens.first[j] + h * tokens.length(j);
            const Index row = h * head_width();
            Scalar* const to = by_projected.data() + 3 * width() * tokens.first[j] + row;
            detail::differentiate_attention(
                head(tokens, record.projected, j, h), record.maxima + terms_at,
                record.inverses + terms_at, by_context.data() + width() * tokens.first[j] + row,
                width(), {to, to + width(), to + 2 * width(), 3 * width()});
        });
        turn(team, tokens, by_projected.data(), true);
        const auto input = matrix(width(), count, record.input);
        const auto slopes = matrix(3 * width(), count, by_projected.data());
        if constexpr (detail::is_discarded<Epilogue>) {
            in_.add_gradient(team, input, slopes, gradient.in);
        } else {
            Batch result = batch.room(rows);
            detail::run_at_tokens<Scalar>(team, tokens, width(), result.writable(), epilogue,
                                          [&](const auto& at_tokens) {
                                              // by_context is not needed any more.
                                              in_.backward_fused(
                                                  team, input, slopes, gradient.in,
                                                  room(width(), count, by_context.data()),
                                                  at_tokens);
                                          });
            batch = std::move(result);
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

    /// The outputs of the next positions of sequences whose past a cache holds: what the layer makes
    /// of the whole sequences, bit for bit, of these positions. The cache then holds them too.
    ///
    /// \param x  [width k x sequences], k positions of each sequence, k >= 1.
    /// \param y  [width k x sequences], overwritten; must not overlap x.
    /// \throws std::invalid_argument  if the layer is not causal, or sizes don't match; the cache is
    ///                                as it was then.
    void step(const ConstMatrixRef<Scalar>& x, KeyValueCache<Scalar>& cache,
              MatrixRef<Scalar> y) const {
        if (!options_.causal)
            detail::refuse("MultiHeadAttention: only a causal layer takes steps");
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
        const detail::RotaryAngles<Scalar> angles(
            head_width(), options_.rotary ? cache.longest() + positions : 0);
        for (Index j = 0; j < x.cols(); ++j) {
            Scalar* const to = projected.data() + 3 * width() * positions * j;
            in_.forward_fused(matrix(width(), positions, x.data() + j * x.outerStride()),
                              room(3 * width(), positions, to), detail::AsIs{});
            const Index past = cache.length(j);
            for (Index t = 0; t < positions; ++t) {
                Scalar* const token = to + 3 * width() * t;
                if (options_.rotary) angles.turn(past + t, 2 * heads(), token);
                cache.append(j, token + width(), token + 2 * width());
            }
            for (Index h = 0; h < heads(); ++h) {
                const Index row = h * head_width();
                detail::attend(head_width(),
                               {cache.keys_of(j) + row * cache.capacity_, cache.capacity_,
                                cache.values_of(j) + row, width()},
                               detail::score_scale<Scalar>(head_width()), to + row, 3 * width(), positions, {past + 1, true},
                               context.data() + width() * positions * j + row, width(),
                               terms.data(), terms.data() + positions);
            }
            out_.forward_fused(matrix(width(), positions, context.data() + width() * positions * j),
                               room(width(), positions, y.data() + j * y.outerStride()),
                               detail::AsIs{});
        }
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

    [[nodiscard]] detail::Head<Scalar> head(const detail::TokenList& tokens,
                                            const Scalar* projected, Index j, Index h) const {
        const Scalar* const queries =
            projected + 3 * width() * tokens.first[j] + h * head_width();
        return {queries,
                queries + width(),
                queries + 2 * width(),
                3 * width(),
                head_width(),
                tokens.length(j),
                options_.causal};
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
        const bool all = count * width() == rows * columns && (x.outerStride() == rows || columns < 2);
        const auto gathered = batch.template array<Scalar>(all ? 0 : count * width());
        const auto projected = batch.template array<Scalar>(3 * width() * count);
        const auto context = batch.template array<Scalar>(width() * count);
        const auto terms = batch.template array<Scalar>(2 * heads() * count);
        if constexpr (Batch::records)
            if (all) (void)batch.keep();
        const Scalar* const input = all ? x.data() : gathered.data();
        const detail::Team& team = batch.team();
        Batch result = batch.room(rows);
        team.split(count, detail::columns_of_member, in_.work(), [&](Index from, Index some) {
            if (!all) tokens.gather(x, width(), from, some, gathered.data() + from * width());
            in_.forward_fused(matrix(width(), some, input + from * width()),
                              room(3 * width(), some, projected.data() + 3 * width() * from),
                              detail::AsIs{});
        });
        turn(team, tokens, projected.data(), false);
        for_each_head(team, tokens, 1, [&](Index j, Index h) {
            const Index terms_at = heads() * tokens.first[j] + h * tokens.length(j);
            detail::attend(head(tokens, projected.data(), j, h),
                           context.data() + width() * tokens.first[j] + h * head_width(), width(),
                           terms.data() + terms_at, terms.data() + heads() * count + terms_at);
        });
        detail::run_at_tokens<Scalar>(
            team, tokens, width(), result.writable(), epilogue, [&](const auto& at_tokens) {
                team.split(count, detail::columns_of_member, out_.work(),
                           [&](Index from, Index some) {
                               const detail::ScratchArray<Scalar> sums(width() * some);
                               out_.forward_fused(
                                   matrix(width(), some, context.data() + from * width()),
                                   room(width(), some, sums.data()), at_tokens, {0, from});
                           });
            });
        if constexpr (Batch::records)
            record = {tokens, input, projected.data(), context.data(), terms.data(),
                      terms.data() + heads() * count};
        batch = std::move(result);
    }

    /// Calls run(j, h) for each sequence and head, shared by a team: a member has those whose first
    /// token falls to it, counted head by head.
    template <class Run>
    void for_each_head(const detail::Team& team, const detail::TokenList& tokens, double passes,
                       const Run& run) const {
        if (tokens.size() == 0) return;
        const double keys =
            static_cast<double>(tokens.size()) / static_cast<double>(tokens.columns);
        team.split(tokens.size() * heads(), 1,
                   passes * keys * (2 * static_cast<double>(head_width()) + 16),
                   [&](Index from, Index some) {
                       const auto* const place =
                           std::upper_bound(tokens.first, tokens.first + tokens.columns,
                                            from / heads());
                       for (Index j = std::max<Index>(place - tokens.first - 1, 0);
                            j < tokens.columns && tokens.first[j] * heads() < from + some; ++j)
                           for (Index h = 0; h < heads(); ++h) {
                               const Index at =
                                   heads() * tokens.first[j] + h * tokens.length(j);
                               if (at >= from && at < from + some && tokens.length(j) > 0)
                                   run(j, h);
                           }
                   });
    }

    /// Turns queries and keys by their positions, or back.
    void turn(const detail::Team& team, const detail::TokenList& tokens, Scalar* projected,
              bool back) const {
        if (!options_.rotary) return;
        const detail::RotaryAngles<Scalar> angles(head_width(), tokens.longest());
        team.split(tokens.size(), 1, 8 * width_in_double(), [&](Index from, Index some) {
            for (Index k = from; k < from + some; ++k) {
                const Index t = tokens.places[k].position;
                Scalar* const token = projected + 3 * width() * k;
                if (back)
                    angles.turn_back(t, 2 * heads(), token);
                else
                    angles.turn(t, 2 * heads(), token);
            }
        });
    }

    MultiHeadAttentionOptions options_;
    Linear<Scalar> in_;
    Linear<Scalar> out_;
};

}  // namespace stochastic_depth
