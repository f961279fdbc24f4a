// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/sequence/sequence_past.hpp>
#include <stochastic_depth/pass/run.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/survival/survival_mask.hpp>

namespace stochastic_depth {

/// Sequences that a causal language model goes on with, token by token: what it has made of their
/// past is kept, so that a token costs one position.
///
///     TokenGenerator generator{network, prompts.cols(), SurvivalMask::all(network.depth())};
///     const auto& scores = generator.append(prompts);  // of the next tokens
///
/// The scores are those of the network on the whole sequences, bit for bit. Each token may have a
/// depth of its own: after another mask, the past is gone through once more, so that scores are
/// always those of the network under the mask at hand.
///
/// \tparam Network  From token ids to scores at each position, such as a
///                  TransformerLanguageModel; its attentions must be causal, and their type known
///                  at compile time.
template <MaskedNetwork Network>
class TokenGenerator {
public:
    using Scalar = typename Network::Scalar;

    /// \param network    Must outlive this, and stay as it is.
    /// \param sequences  At least 1; they begin empty.
    /// \param mask       Which layers run.
    /// \throws std::invalid_argument  if the mask is of another depth, or there is no sequence.
    TokenGenerator(const Network& network, Index sequences, SurvivalMask mask)
        : network_(network), mask_(std::move(mask)), past_(checked(sequences)) {
        detail::check_mask("TokenGenerator", network_, mask_, sequences);
        tokens_.resize(0, sequences);
    }

    [[nodiscard]] Index sequences() const { return past_.sequences(); }
    [[nodiscard]] const SurvivalMask& mask() const { return mask_; }
    /// So far, [longest x sequences], -1 behind the end of a shorter one.
    [[nodiscard]] const Matrix<Scalar>& tokens() const { return tokens_; }
    /// Tokens of a sequence so far.
    [[nodiscard]] Index length(Index sequence) const { return past_.positions(sequence); }

    /// Puts tokens behind each sequence, and returns the scores of the one that comes next,
    /// [vocabulary x sequences].
    /// \param tokens  [k x sequences], at least one token of each; -1 behind the end of fewer.
    /// \throws std::invalid_argument  if sizes don't match, a token is none, or a sequence becomes
    ///                                too long for the network; nothing has happened then.
    const Matrix<Scalar>& append(const ConstMatrixRef<Scalar>& tokens) {
        if (tokens.cols() != sequences())
            detail::refuse("TokenGenerator: tokens must have ", sequences(), " columns, got ",
                           tokens.cols());
        Matrix<Scalar> scores = run(past_, tokens);
        Matrix<Scalar> all = Matrix<Scalar>::Constant(longest(), sequences(), Scalar(-1));
        for (Index j = 0; j < sequences(); ++j) {
            const Index count = length_of(tokens.col(j)), before = length(j) - count;
            all.col(j).head(before) = tokens_.col(j).head(before);
            all.col(j).segment(before, count) = tokens.col(j).head(count);
        }
        tokens_.swap(all);
        scores_.swap(scores);
        return scores_;
    }

    /// Of the last call of `append` or `set_mask`.
    [[nodiscard]] const Matrix<Scalar>& scores() const { return scores_; }

    /// Goes on under another mask, after a pass of the whole past under it.
    /// \throws std::invalid_argument  if the mask is of another depth; nothing has happened then.
    void set_mask(const SurvivalMask& mask) {
        detail::check_mask("TokenGenerator", network_, mask, sequences());
        if (mask == mask_) return;
        mask_ = mask;
        detail::SequencePast<Scalar> past(sequences());
        if (tokens_.rows() > 0) scores_ = run(past, tokens_);
        past_ = std::move(past);
    }

private:
    [[nodiscard]] static Index checked(Index sequences) {
        if (sequences < 1)
            detail::refuse("TokenGenerator: sequences must be at least 1, got ", sequences);
        return sequences;
    }

    [[nodiscard]] Index longest() const {
        Index most = 0;
        for (Index j = 0; j < sequences(); ++j) most = std::max(most, length(j));
        return most;
    }

    template <class Tokens>
    [[nodiscard]] static Index length_of(const Tokens& tokens) {
        Index length = tokens.size();
        while (length > 0 && tokens(length - 1) == Scalar(-1)) --length;
        return length;
    }

    /// The scores behind each sequence's last token.
    [[nodiscard]] Matrix<Scalar> run(detail::SequencePast<Scalar>& past,
                                     const ConstMatrixRef<Scalar>& tokens) const {
        try {
            const Index outputs = network_.output_size(1);
            detail::SparePiece spare;
            detail::Batch<Scalar, detail::Forgets> batch(detail::Team::alone(), {&spare},
                                                         detail::const_view(tokens));
            detail::RecordOf<Network, detail::Forgets> record;
            detail::run(network_, batch, record, detail::MaskWithPast<Scalar>{mask_, past});
            const auto y = batch.current();
            Matrix<Scalar> scores(outputs, sequences());
            for (Index j = 0; j < sequences(); ++j) {
                const Index count = length_of(tokens.col(j));
                scores.col(j) = y.col(j).segment((count - 1) * outputs, outputs);
                past.advance(j, count);
            }
            return scores;
        } catch (...) {
            past.forget_pass();
            throw;
        }
    }

    const Network& network_;
    SurvivalMask mask_;
    detail::SequencePast<Scalar> past_;
    Matrix<Scalar> tokens_;
    Matrix<Scalar> scores_;
};

struct GenerationOptions {
    /// How many tokens to put behind each sequence, at least 0.
    Index tokens = 16;
    /// What scores are divided by before the softmax; 0: always the token of the largest score.
    double temperature = 1;
    std::uint64_t seed = 0;
};

/// Puts tokens behind sequences, each drawn by the scores behind those before it.
///
/// A token is a pure function of the scores and of (seed, sequence, position).
///
/// \returns  The tokens with what was before them, [longest x sequences], -1 behind the end of a
///           shorter one.
/// \throws std::invalid_argument  if an option lies outside its range, nothing has been appended
///                                yet, or a sequence becomes too long for the network.
template <MaskedNetwork Network>
Matrix<typename Network::Scalar> generate(TokenGenerator<Network>& generator,
                                          const GenerationOptions& options = {}) {
    using Scalar = typename Network::Scalar;
    if (options.tokens < 0)
        detail::refuse("generate: tokens must be at least 0, got ", options.tokens);
    if (!(options.temperature >= 0 && std::isfinite(options.temperature)))
        detail::refuse("generate: temperature must be finite and at least 0, got ",
                       options.temperature);
    if (generator.tokens().rows() == 0)
        detail::refuse("generate: generator must have tokens to go on from");
    const Index sequences = generator.sequences();
    Matrix<Scalar> next(1, sequences);
    for (Index n = 0; n < options.tokens; ++n) {
        for (Index j = 0; j < sequences; ++j) {
            const auto scores = generator.scores().col(j).template cast<double>();
            Index chosen = 0;
            const double largest = scores.maxCoeff(&chosen);
            if (options.temperature > 0) {
                const Eigen::VectorXd weights =
                    ((scores.array() - largest) / options.temperature).exp();
                const auto block = philox4x32_10(
                    {static_cast<std::uint32_t>(generator.length(j)),
                     static_cast<std::uint32_t>(j), 0, 0},
                    detail::stream_key(options.seed, detail::StreamPurpose::token_generation, 1));
                double left = weights.sum() *
                    std::ldexp(static_cast<double>(block[0]) + 0.5, -32);
                chosen = 0;
                while (chosen + 1 < weights.size() && (left -= weights(chosen)) > 0) ++chosen;
            }
            next(0, j) = static_cast<Scalar>(chosen);
        }
        (void)generator.append(next);
    }
    return generator.tokens();
}

}  // namespace stochastic_depth
