// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/pass/differentiation.hpp>
#include <stochastic_depth/pass/mask_view.hpp>
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/stream_key.hpp>
#include <stochastic_depth/survival/mask_tile.hpp>

namespace stochastic_depth {
namespace detail {

/// Changes whenever dropout draws other bits for the same arguments, which is a breaking change.
inline constexpr std::uint32_t dropout_stream_version = 1;

/// Which entries a dropout layer drops in a step: a bit of its own for each feature of each sample,
/// 1 with probability `rate`, exactly.
class DropoutBits {
public:
    /// \param rate   In (0, 1).
    /// \param layer  Which of the network's layers that draw random numbers.
    DropoutBits(double rate, const StepDraw& step, Index layer)
        : digits_(rate), schedule_(key_of(step, static_cast<std::uint64_t>(layer))) {}

    /// Words of 64 bits for a column of so many features.
    [[nodiscard]] static Index words(Index features) { return (features + 63) / 64; }

    /// Writes the words of columns [first, first + count), one column after another.
    /// \param sample  sample(j) is the sample in column j, below 2^32.
    template <class Sample>
    void draw(Index features, Index first, Index count, const Sample& sample,
              std::uint64_t* to) const {
        const Index words_of_column = words(features);
        MaskTile tile;
        std::uint64_t* done = to;
        const auto store = [&](std::uint64_t, std::uint64_t, std::uint64_t word) {
            *done++ = word;
        };
        const auto finish = [&] {
            std::uint32_t block = 1;
            for (bool more = tile.draw(0, 1, 0, schedule_); more; ++block)
                more = tile.draw(block, block + 1, 0, schedule_);
            tile.for_each(store);
            tile.clear();
        };
        for (Index j = first; j < first + count; ++j)
            for (Index w = 0; w < words_of_column; ++w) {
                const Index left = features - 64 * w;
                tile.add(static_cast<std::uint64_t>(w), static_cast<std::uint64_t>(sample(j)),
                         digits_, left >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << left) - 1);
                if (tile.full()) finish();
            }
        finish();
    }

private:
    /// A key for each step and layer; the counter is left for the sample and the feature.
    [[nodiscard]] static std::array<std::uint32_t, 2> key_of(const StepDraw& step,
                                                             std::uint64_t layer) {
        const auto block = philox4x32_10(
            {static_cast<std::uint32_t>(step.step), static_cast<std::uint32_t>(step.step >> 32),
             static_cast<std::uint32_t>(layer), 0},
            stream_key(step.seed, StreamPurpose::dropout, dropout_stream_version));
        return {block[0], block[1]};
    }

    BinaryDigits digits_;
    PhiloxSchedule schedule_;
};

}  // namespace detail

/// Dropout: in a training step each entry is 0 with probability `rate`, and else divided by
/// 1 - rate, so that its mean stays what it was. In use, and in expectations over survival masks,
/// it is the identity, and costs nothing behind a product.
///
/// Whether an entry is dropped is a pure function of (seed, step, sample, which of the network's
/// dropout layers, feature), and its probability is exactly `rate`: threads, other samples of the
/// batch and skipped layers cannot change it. A NaN that is dropped is gone.
///
/// \source Srivastava et al. 2014, Dropout: A Simple Way to Prevent Neural Networks from
///         Overfitting, section 10, for the division in training.
template <class Scalar_>
class Dropout {
public:
    using Scalar = Scalar_;
    using Gradient = detail::NoGradient;

    /// \param rate  Chance that an entry is dropped, in [0, 1).
    /// \throws std::invalid_argument  outside that range.
    explicit Dropout(double rate) : rate_(rate) {
        if (!(rate >= 0 && rate < 1))
            detail::refuse("Dropout: rate must lie in [0, 1), got ", rate);
    }

    [[nodiscard]] double rate() const { return rate_; }

    [[nodiscard]] Index output_size(Index input_size) const { return input_size; }

    /// z: the layer in use.
    [[nodiscard]] Scalar value(Scalar z) const { return z; }
    template <class Packet>
    [[nodiscard]] EIGEN_ALWAYS_INLINE Packet packet(Packet z) const {
        return z;
    }

    /// y = x.
    /// \param x  [features x batch].
    /// \param y  [features x batch], overwritten; may be x itself.
    /// \throws std::invalid_argument  if sizes differ.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("Dropout", *this, x, y);
        detail::copy_columns(x, y);
    }

    /// What a step leaves: a bit for each entry, 1 where it was dropped; null where none was drawn.
    struct Recorded {
        const std::uint64_t* dropped = nullptr;
    };
    using Cache = detail::RecordedPass<Recorded>;

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache& cache) const {
        detail::forward_recorded("Dropout", *this, x, y, cache);
    }

    [[nodiscard]] Gradient zero_gradient() const { return {}; }

    /// dx = dy: outside of a training step nothing is dropped.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy,
                  const Cache& cache, Gradient& gradient, MatrixRef<Scalar> dx) const {
        detail::backward_recorded("Dropout", *this, x, dy, cache, gradient, dx);
    }

    template <class Mask, class Epilogue>
    void record(detail::Flow<Scalar>& flow, Recorded& recorded, const Mask& mask,
                const Epilogue& epilogue) const {
        recorded.dropped = nullptr;
        if (mask.step() != nullptr && rate_ > 0) {
            const detail::DropoutBits bits(rate_, *mask.step(), mask.random_layer());
            const Index words = detail::DropoutBits::words(flow.rows());
            auto* const dropped = flow.tape().template take<std::uint64_t>(words * flow.columns());
            auto h = flow.writable();
            flow.team().split(flow.columns(), 1, work_of_drawing * static_cast<double>(h.rows()),
                              [&](Index first, Index count) {
                                  bits.draw(
                                      h.rows(), first, count,
                                      [&](Index j) { return mask.sample(j); },
                                      dropped + first * words);
                                  drop(dropped, h, first, count);
                              });
            recorded.dropped = dropped;
        }
        flow.apply(epilogue);
    }

    template <class Epilogue>
    void backpropagate(detail::Slopes<Scalar>& slopes, const Recorded& recorded, Gradient&,
                       const Epilogue& epilogue) const {
        if constexpr (std::is_same_v<Epilogue, detail::Discard>) return;
        if (recorded.dropped) {
            auto d = slopes.writable();
            slopes.team().split(
                d.cols(), 1, detail::work_of_moving * static_cast<double>(d.rows()),
                [&](Index first, Index count) { drop(recorded.dropped, d, first, count); });
        }
        slopes.apply(epilogue);
    }

    /// This layer draws random numbers of its own.
    [[nodiscard]] Index random_layers() const { return 1; }

private:
    static constexpr double work_of_drawing = 16;

    /// Columns [first, first + count) of h, entry by entry: 0 where the bit is set.
    void drop(const std::uint64_t* dropped, detail::View<Scalar>& h, Index first,
              Index count) const {
        const auto scale = static_cast<Scalar>(1 / (1 - rate_));
        const Index words = detail::DropoutBits::words(h.rows());
        for (Index j = first; j < first + count; ++j) {
            Scalar* const column = h.data() + j * h.outerStride();
            for (Index i = 0; i < h.rows(); ++i) {
                const std::uint64_t bit = dropped[j * words + i / 64] >> (i % 64) & 1u;
                column[i] = bit != 0 ? Scalar(0) : scale * column[i];
            }
        }
    }

    double rate_;
};

}  // namespace stochastic_depth
