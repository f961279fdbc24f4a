// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <type_traits>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/mask_context.hpp>
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
    DropoutBits(double rate, const StepContext& step, Index layer)
        : digits_(rate), schedule_(key_of(step, static_cast<std::uint64_t>(layer))) {}

    /// Words of 64 bits for a column of so many features.
    [[nodiscard]] static Index words(Index features) { return (features + 63) / 64; }

    /// Writes the words of columns [first, first + count), one column after another.
    /// \param sample  sample(j) is the sample in column j, below 2^32; of a position of a
    ///                sequence, that plus its place times 2^32.
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
        for (Index j = first; j < first + count; ++j) {
            const auto number = static_cast<std::uint64_t>(sample(j));
            const std::uint64_t first_word =
                (number >> 32) * static_cast<std::uint64_t>(words_of_column);
            for (Index w = 0; w < words_of_column; ++w) {
                const Index left = features - 64 * w;
                tile.add(first_word + static_cast<std::uint64_t>(w), number & 0xFFFFFFFF, digits_,
                         left >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << left) - 1);
                if (tile.full()) finish();
            }
        }
        finish();
    }

private:
    /// A key for each step and layer; the counter is left for the sample and the feature.
    [[nodiscard]] static std::array<std::uint32_t, 2> key_of(const StepContext& step,
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
class Dropout : public LayerBase<Dropout<Scalar_>, Scalar_> {
public:
    using Scalar = Scalar_;
    using Gradient = detail::NoGradient;
    static constexpr bool draws_random_numbers = true;

    /// \param rate  Chance that an entry is dropped, in [0, 1).
    /// \throws std::invalid_argument  outside that range.
    explicit Dropout(double rate) : rate_(rate) {
        if (!(rate >= 0 && rate < 1))
            detail::refuse("Dropout: rate must lie in [0, 1), got ", rate);
    }

    [[nodiscard]] double rate() const { return rate_; }

    [[nodiscard]] std::string description() const {
        return detail::message("Dropout, rate ", rate_);
    }

    [[nodiscard]] Index output_size(Index input_size) const { return input_size; }

    /// z: the layer in use.
    [[nodiscard]] Scalar value(Scalar z) const { return z; }
    template <class Packet>
    [[nodiscard]] EIGEN_ALWAYS_INLINE Packet packet(Packet z) const {
        return z;
    }

    /// What a step leaves: a bit for each entry, 1 where it was dropped; null where none was drawn.
    template <class Memory>
    struct Record {
        const std::uint64_t* dropped = nullptr;
    };

    /// The identity outside of a training step.
    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
             const Epilogue& epilogue) const {
        if constexpr (Batch::records) {
            record.dropped = nullptr;
            if (mask.step() != nullptr && rate_ > 0) record.dropped = draw(batch, mask);
            if (record.dropped) drop(record.dropped, batch);
        }
        batch.apply(epilogue);
    }

    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient&,
                       const Epilogue& epilogue) const {
        if constexpr (detail::is_discarded<Epilogue>) return;
        if (record.dropped) drop(record.dropped, batch);
        batch.apply(epilogue);
    }

    [[nodiscard]] Gradient zero_gradient() const { return {}; }

private:
    static constexpr double work_of_drawing = 16;

    template <class Batch, class Mask>
    [[nodiscard]] const std::uint64_t* draw(Batch& batch, const Mask& mask) const {
        const detail::DropoutBits bits(rate_, *mask.step(), mask.random_layer());
        const Index rows = batch.rows(), words = detail::DropoutBits::words(rows);
        std::uint64_t* const dropped =
            batch.template array<std::uint64_t>(words * batch.columns()).data();
        batch.team().split(batch.columns(), 1, work_of_drawing * static_cast<double>(rows),
                           [&](Index first, Index count) {
                               bits.draw(
                                   rows, first, count,
                                   [&](Index j) { return mask.step()->first_sample + mask.sample(j); },
                                   dropped + first * words);
                           });
        return dropped;
    }

    /// Entry by entry: 0 where the bit is set.
    template <class Batch>
    void drop(const std::uint64_t* dropped, Batch& batch) const {
        auto h = batch.writable();
        const auto scale = static_cast<Scalar>(1 / (1 - rate_));
        const Index words = detail::DropoutBits::words(h.rows());
        const auto drop_columns = [&](Index first, Index count) {
            for (Index j = first; j < first + count; ++j) {
                Scalar* const column = h.data() + j * h.outerStride();
                for (Index i = 0; i < h.rows(); ++i) {
                    const std::uint64_t bit = dropped[j * words + i / 64] >> (i % 64) & 1u;
                    column[i] = bit != 0 ? Scalar(0) : scale * column[i];
                }
            }
        };
        batch.team().split(h.cols(), 1, detail::work_of_moving * static_cast<double>(h.rows()),
                           drop_columns);
    }

    double rate_;
};

}  // namespace stochastic_depth
