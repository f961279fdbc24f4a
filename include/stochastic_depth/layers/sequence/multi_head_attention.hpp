// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/sequence/attention_heads.hpp>
#include <stochastic_depth/layers/sequence/attention_projections.hpp>
#include <stochastic_depth/layers/sequence/attention_step.hpp>
#include <stochastic_depth/layers/sequence/key_value_cache.hpp>
#include <stochastic_depth/layers/sequence/multi_head_attention_options.hpp>
#include <stochastic_depth/layers/sequence/sequence_past.hpp>
#include <stochastic_depth/layers/sequence/token_list.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/threads/team.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

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

    using Gradient = typename detail::AttentionProjections<Scalar>::Gradient;

    /// Weights drawn uniformly from +-gain sqrt(3 / width), biases 0.
    /// \param random  A uniform random bit generator; it advances.
    /// \param gain    As Linear's.
    /// \throws std::invalid_argument  if an option or the gain lies outside its range; nothing is
    ///                                drawn then.
    template <RandomBitGenerator Random>
    MultiHeadAttention(const MultiHeadAttentionOptions& options, Random& random, double gain = 1)
        : options_(detail::checked(options)), projections_(options, random, gain) {}

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
        : options_(detail::checked(options)),
          projections_(options, in_weights, in_bias, out_weights, out_bias) {}

    [[nodiscard]] const MultiHeadAttentionOptions& options() const { return options_; }
    [[nodiscard]] Index width() const { return options_.width; }
    [[nodiscard]] Index heads() const { return options_.heads; }
    [[nodiscard]] Index head_width() const { return options_.width / options_.heads; }
    /// W, [3 width x width], and V, [width x width].
    [[nodiscard]] const Matrix<Scalar>& in_weights() const { return projections_.in().weights(); }
    [[nodiscard]] const Matrix<Scalar>& out_weights() const { return projections_.out().weights(); }
    /// b, [3 width], and a, [width]; zeros without a bias.
    [[nodiscard]] const Vector<Scalar>& in_bias() const { return projections_.in().bias(); }
    [[nodiscard]] const Vector<Scalar>& out_bias() const { return projections_.out().bias(); }

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
        const double positions = static_cast<double>(rows / width()),
                     d = static_cast<double>(width());
        return positions * d * (4 * d + 2 * positions);
    }

    template <class Memory>
    using Record = detail::AttentionRecord<Scalar>;

    [[nodiscard]] Gradient zero_gradient() const { return projections_.zero_gradient(); }

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
        projections_.check(gradient);
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
            by_projected(3 * width() * kept);
        const detail::TransposedProjections<Scalar> transposed(projections_, wants_slopes);
        const detail::AttentionHeads<Scalar> attention(options_, tokens);
        const auto add_gradients = [&](const detail::Team& team, Index from, Index some,
                                       const Scalar* slopes, const Scalar* slopes_inside) {
            projections_.add_gradient(team, some, record.input + from * width(),
                                      record.context + from * width(), slopes, slopes_inside,
                                      gradient);
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
            transposed.by_context(team, some, slopes, by_context);
            attention.backpropagate(team, j, end, record, by_context, inside);
            // The slopes by the context are not needed any more: sums may wait there.
            if constexpr (wants_slopes)
                transposed.by_input(team, some, inside, by_context, from, at_tokens);
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
        detail::AttentionProjections<Scalar>::visit_parameters(self.projections_, visit,
                                                               gradients...);
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
        detail::AttentionStep<Scalar>(options_, x.rows() / width(), cache).run(projections_, x, y);
    }

    /// A cache of sequences without a past.
    [[nodiscard]] KeyValueCache<Scalar> empty_cache(Index sequences) const {
        return {sequences, width()};
    }

private:
    /// Whole sequences.
    template <class Batch, class Epilogue>
    void run_whole(Batch& batch, Record<typename Batch::Memory>& record,
                   const Epilogue& epilogue) const {
        const Index rows = output_size(batch.rows());
        const auto x = batch.current();
        const detail::ListedTokens<typename Batch::Memory> listed(batch, rows / width());
        const detail::TokenList& tokens = listed.list();
        const Index count = tokens.size();
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
        const detail::AttentionHeads<Scalar> attention(options_, tokens);
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
            const Scalar* input = x.data() + from * width();
            if (!all) {
                Scalar* const to = place(width(), gathered.data(), 0);
                tokens.gather(team, x, width(), from, some, to);
                input = to;
            }
            Scalar* const projected_here = place(3 * width(), projected.data(), width());
            Scalar* const context_here = place(width(), context.data(), 4 * width());
            projections_.project_in(team, some, input, projected_here);
            attention.attend(team, j, end, projected_here, context_here,
                             place(2 * heads(), terms.data(), 5 * width()));
            projections_.project_out(team, some, context_here, from, at_tokens);
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

    MultiHeadAttentionOptions options_;
    detail::AttentionProjections<Scalar> projections_;
};

}  // namespace stochastic_depth
