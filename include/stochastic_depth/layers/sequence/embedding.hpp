// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/sequence/sequence_past.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>
#include <stochastic_depth/random/normal.hpp>

namespace stochastic_depth {

/// What an embedding adds to a token for its position.
enum class PositionEncoding {
    none,       ///< Nothing.
    learned,    ///< Numbers that are trained.
    sinusoidal  ///< sin and cos of the position, of wavelengths from 2 pi to 20,000 pi.
};

struct EmbeddingOptions {
    /// Number of tokens, at least 1; ids are 0, ..., vocabulary - 1.
    Index vocabulary = 1;
    /// The longest sequence, at least 1.
    Index positions = 1;
    /// Numbers of a position, at least 1.
    Index width = 1;
    PositionEncoding encoding = PositionEncoding::learned;
};

/// The start of a network for sequences: y, [width T x batch], position after position, for token
/// ids x, [T x batch] as numbers, with -1 past the end of a sequence shorter than T:
///
///     y(t) = tokens(:, x(t)) + positions(:, t).
///
/// Behind the end of a sequence y is 0; the layers that follow find the lengths beside the batch. The
/// gradient by x is 0.
///
/// \source Vaswani et al. 2017, Attention Is All You Need, section 3.5, for the sinusoids.
template <class Scalar_>
class Embedding : public LayerBase<Embedding<Scalar_>, Scalar_> {
public:
    using Scalar = Scalar_;
    static constexpr bool takes_tokens = true;

    /// Tokens, and learned positions, drawn from a normal distribution of variance 1 / width.
    /// \param random  A uniform random bit generator; it advances.
    /// \throws std::invalid_argument  if an option lies outside its range; nothing is drawn then.
    template <RandomBitGenerator Random>
    Embedding(const EmbeddingOptions& options, Random& random)
        : Embedding(checked(options), Undrawn{}) {
        const Scalar deviation = 1 / std::sqrt(static_cast<Scalar>(options.width));
        const auto draw = [&](Matrix<Scalar>& table) {
            for (Index i = 0; i < table.size(); ++i)
                table.data()[i] = deviation * normal<Scalar>(random);
        };
        draw(tokens_);
        if (encoding_ == PositionEncoding::learned) draw(positions_);
    }

    /// \param tokens     [width x vocabulary], neither 0.
    /// \param positions  [width x positions], at least one; learned.
    /// \throws std::invalid_argument  otherwise.
    Embedding(const ConstMatrixRef<Scalar>& tokens, const ConstMatrixRef<Scalar>& positions)
        : Embedding(checked({tokens.cols(), positions.cols(), tokens.rows(),
                             PositionEncoding::learned}),
                    Undrawn{}) {
        if (positions.rows() != tokens.rows())
            detail::refuse("Embedding: positions must have ", tokens.rows(), " rows, got ",
                           positions.rows());
        tokens_ = tokens;
        positions_ = positions;
    }

    [[nodiscard]] Index vocabulary() const { return tokens_.cols(); }
    [[nodiscard]] Index width() const { return tokens_.rows(); }
    /// The longest sequence.
    [[nodiscard]] Index max_positions() const { return max_positions_; }
    [[nodiscard]] PositionEncoding encoding() const { return encoding_; }
    /// [width x vocabulary].
    [[nodiscard]] const Matrix<Scalar>& tokens() const { return tokens_; }
    /// [width x positions]; without any, [width x 0].
    [[nodiscard]] const Matrix<Scalar>& positions() const { return positions_; }

    [[nodiscard]] std::string description() const {
        constexpr const char* names[] = {"none", "learned", "sinusoidal"};
        return detail::message("Embedding, vocabulary ", vocabulary(), ", width ", width(),
                               ", positions ", max_positions_, " ",
                               names[static_cast<int>(encoding_)]);
    }

    /// \throws std::invalid_argument  unless there are 1 to max_positions() positions.
    [[nodiscard]] Index output_size(Index input_size) const {
        if (input_size < 1 || input_size > max_positions_)
            detail::refuse("Embedding: input must have 1 to ", max_positions_, " positions, got ",
                           input_size);
        return input_size * width();
    }

    struct Gradient {
        Matrix<Scalar> tokens;
        Matrix<Scalar> positions;
        void set_zero() {
            tokens.setZero();
            positions.setZero();
        }
    };

    /// The tokens, and the length of each sequence.
    template <class Memory>
    struct Record {
        detail::RecordedMatrix<Scalar> tokens;
        const Index* lengths = nullptr;
    };

    [[nodiscard]] Gradient zero_gradient() const {
        const bool learned = encoding_ == PositionEncoding::learned;
        Gradient gradient{Matrix<Scalar>(width(), vocabulary()),
                          Matrix<Scalar>(width(), learned ? max_positions_ : 0)};
        gradient.set_zero();
        return gradient;
    }

    /// \throws std::invalid_argument  for an id that is none of a token, for a sequence without a
    ///                                token, and for one that goes on behind its end.
    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
             const Epilogue& epilogue) const {
        batch.flatten();
        const Index in_column = batch.rows();
        Batch result = batch.room(output_size(in_column));
        // Of column j, where earlier passes have been through some of its positions.
        const auto first_position = [&]([[maybe_unused]] Index j) {
            if constexpr (detail::HasPast<Mask>)
                return mask.past().positions(j);
            else
                return Index{0};
        };
        const auto x = batch.current();
        Index* const lengths = batch.template lasting_array<Index>(x.cols());
        bool is_full = true;
        for (Index j = 0; j < x.cols(); ++j) {
            lengths[j] = length_of(x.data() + j * x.outerStride(), in_column, j);
            if constexpr (detail::HasPast<Mask>)
                (void)output_size(first_position(j) + lengths[j]);
            is_full = is_full && lengths[j] == in_column;
        }
        auto y = result.writable();
        batch.team().split(
            x.cols(), 1, detail::work_of_moving * static_cast<double>(y.rows()),
            [&](Index first, Index count) {
                for (Index j = first; j < first + count; ++j)
                    write(x.data() + j * x.outerStride(), first_position(j), lengths[j],
                          y.data() + j * y.outerStride(), y.rows());
            });
        if constexpr (Batch::records) record = {batch.keep(), lengths};
        batch = std::move(result);
        batch.set_lengths(is_full ? detail::SequenceLengths()
                                  : detail::SequenceLengths(lengths, x.cols()));
        batch.apply(epilogue);
    }

    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        check_gradient("tokens", gradient.tokens, vocabulary());
        if (encoding_ == PositionEncoding::learned)
            check_gradient("positions", gradient.positions, max_positions_);
        const auto x = record.tokens.view();
        const auto dy = batch.current();
        batch.team().split(width(), 16, detail::work_of_moving * static_cast<double>(x.size()),
                           [&](Index first, Index count) {
                               for (Index j = 0; j < x.cols(); ++j)
                                   add_gradient(x.data() + j * x.outerStride(), record.lengths[j],
                                                dy.data() + j * dy.outerStride(), first, count,
                                                gradient);
                           });
        if constexpr (detail::is_discarded<Epilogue>) return;
        Batch result = batch.room(x.rows());
        result.writable().setZero();
        batch = std::move(result);
        batch.apply(epilogue);
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        visit("tokens", self.tokens_, gradients.tokens...);
        if (self.encoding_ == PositionEncoding::learned)
            visit("positions", self.positions_, gradients.positions...);
    }

    /// As torch.nn.Embedding's, a row for each token; and for each position.
    [[nodiscard]] TensorForm tensor_form(TensorForm form) const {
        if (form.name == "tokens") return {"weight", {vocabulary(), width()}, {width(), 1}};
        if (form.name == "positions")
            return {"positions", {max_positions_, width()}, {width(), 1}};
        return form;
    }

private:
    struct Undrawn {};

    Embedding(const EmbeddingOptions& options, Undrawn)
        : max_positions_(options.positions),
          encoding_(options.encoding),
          tokens_(options.width, options.vocabulary),
          positions_(options.width, encoding_ == PositionEncoding::none ? 0 : options.positions) {
        if (encoding_ == PositionEncoding::sinusoidal) write_sinusoids();
    }

    [[nodiscard]] static const EmbeddingOptions& checked(const EmbeddingOptions& options) {
        // So many ids are whole numbers of a float.
        if (options.vocabulary < 1 || options.vocabulary > Index{1} << 24)
            detail::refuse("Embedding: vocabulary must lie in [1, 2^24], got ",
                           options.vocabulary);
        if (options.positions < 1)
            detail::refuse("Embedding: positions must be at least 1, got ", options.positions);
        if (options.width < 1)
            detail::refuse("Embedding: width must be at least 1, got ", options.width);
        return options;
    }

    /// Entry 2 i: sin(t / 10000^(2 i / width)), and 2 i + 1: its cos.
    void write_sinusoids() {
        for (Index t = 0; t < positions_.cols(); ++t)
            for (Index i = 0; i < width(); ++i) {
                const double exponent =
                    static_cast<double>(i / 2 * 2) / static_cast<double>(width());
                const double angle = static_cast<double>(t) / std::pow(10000.0, exponent);
                positions_(i, t) =
                    static_cast<Scalar>(i % 2 == 0 ? std::sin(angle) : std::cos(angle));
            }
    }

    /// Of the sequence in column j.
    [[nodiscard]] Index length_of(const Scalar* ids, Index in_column, Index j) const {
        Index length = in_column;
        while (length > 0 && ids[length - 1] == Scalar(-1)) --length;
        if (length == 0)
            detail::refuse("Embedding: a sequence must have at least 1 token, sample ", j,
                           " has none");
        const auto limit = static_cast<Scalar>(vocabulary());
        for (Index t = 0; t < length; ++t)
            if (!(ids[t] >= 0 && ids[t] < limit && ids[t] == std::floor(ids[t])))
                detail::refuse("Embedding: token must be an id below ", vocabulary(), ", got ",
                               ids[t], " at position ", t, " of sample ", j);
        return length;
    }

    void write(const Scalar* ids, Index first_position, Index length, Scalar* y, Index rows) const {
        const Index d = width();
        for (Index t = 0; t < length; ++t) {
            const Scalar* const token = tokens_.data() + static_cast<Index>(ids[t]) * d;
            Scalar* const to = y + t * d;
            if (encoding_ == PositionEncoding::none) {
                std::copy_n(token, d, to);
            } else {
                const Scalar* const position = positions_.data() + (first_position + t) * d;
                for (Index i = 0; i < d; ++i) to[i] = token[i] + position[i];
            }
        }
        std::fill(y + length * d, y + rows, Scalar(0));
    }

    /// Rows [first, first + count).
    void add_gradient(const Scalar* ids, Index length, const Scalar* dy, Index first, Index count,
                      Gradient& gradient) const {
        const Index d = width();
        const bool learned = encoding_ == PositionEncoding::learned;
        for (Index t = 0; t < length; ++t) {
            const Scalar* const from = dy + t * d;
            Scalar* const token = gradient.tokens.data() + static_cast<Index>(ids[t]) * d;
            for (Index i = first; i < first + count; ++i) token[i] += from[i];
            if (!learned) continue;
            Scalar* const position = gradient.positions.data() + t * d;
            for (Index i = first; i < first + count; ++i) position[i] += from[i];
        }
    }

    void check_gradient(const char* name, const Matrix<Scalar>& gradient, Index columns) const {
        if (gradient.rows() != width() || gradient.cols() != columns)
            detail::refuse("Embedding: gradient by ", name, " must be [", width(), " x ", columns,
                           "], got [", gradient.rows(), " x ", gradient.cols(), "]");
    }

    Index max_positions_;
    PositionEncoding encoding_;
    Matrix<Scalar> tokens_;
    Matrix<Scalar> positions_;
};

}  // namespace stochastic_depth
