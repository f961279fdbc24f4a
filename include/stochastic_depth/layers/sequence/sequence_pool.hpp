// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <string>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/batch.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/sequence_lengths.hpp>

namespace stochastic_depth {

/// What a sequence becomes.
enum class SequencePooling {
    mean,   ///< The mean of its positions.
    first,  ///< Its first position.
    last    ///< The last one that belongs to it.
};

/// One position for a sequence: y, [width x batch], of x, [width T x batch]. Positions past a
/// sequence's end are left out.
template <class Scalar_>
class SequencePool : public LayerBase<SequencePool<Scalar_>, Scalar_> {
public:
    using Scalar = Scalar_;
    using Gradient = detail::NoGradient;

    /// \param width  Numbers of a position, at least 1.
    /// \throws std::invalid_argument  if it is less.
    explicit SequencePool(Index width, SequencePooling pooling = SequencePooling::mean)
        : width_(width), pooling_(pooling) {
        if (width < 1) detail::refuse("SequencePool: width must be at least 1, got ", width);
    }

    [[nodiscard]] Index width() const { return width_; }
    [[nodiscard]] SequencePooling pooling() const { return pooling_; }

    [[nodiscard]] std::string description() const {
        constexpr const char* names[] = {"mean", "first", "last"};
        return detail::message("SequencePool, width ", width_, ", ",
                               names[static_cast<int>(pooling_)]);
    }

    /// \throws std::invalid_argument  unless input_size is a multiple of width().
    [[nodiscard]] Index output_size(Index input_size) const {
        if (input_size < 1 || input_size % width_ != 0)
            detail::refuse("SequencePool: input must have a multiple of ", width_, " rows, got ",
                           input_size);
        return width_;
    }

    template <class Memory>
    struct Record {
        Index rows = 0;
        detail::SequenceLengths lengths;
    };

    [[nodiscard]] Gradient zero_gradient() const { return {}; }

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask&,
             const Epilogue& epilogue) const {
        batch.flatten();
        record = {batch.rows(), batch.lengths()};
        Batch result = batch.room(output_size(batch.rows()));
        const auto x = batch.current();
        auto y = result.writable();
        split(batch, record, [&](Index j, Index length) {
            pool(length, x.data() + j * x.outerStride(), y.data() + j * y.outerStride());
        });
        batch = std::move(result);
        batch.set_lengths({});
        batch.apply(epilogue);
    }

    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient&,
                       const Epilogue& epilogue) const {
        if constexpr (detail::is_discarded<Epilogue>) return;
        Batch result = batch.room(record.rows);
        const auto dy = batch.current();
        auto dx = result.writable();
        split(batch, record, [&](Index j, Index length) {
            spread(length, dy.data() + j * dy.outerStride(), dx.data() + j * dx.outerStride(),
                   record.rows);
        });
        batch = std::move(result);
        batch.apply(epilogue);
    }

private:
    /// Calls function(column, length of its sequence), shared by the team.
    template <class Batch, class Record, class Function>
    void split(const Batch& batch, const Record& record, const Function& function) const {
        batch.team().split(batch.columns(), 1,
                           detail::work_of_moving * static_cast<double>(record.rows),
                           [&](Index first, Index count) {
                               for (Index j = first; j < first + count; ++j)
                                   function(j, detail::length_of_sequence(
                                                   record.lengths, j, record.rows / width_));
                           });
    }

    /// The position that stands for the sequence.
    [[nodiscard]] Index chosen(Index length) const {
        return pooling_ == SequencePooling::first ? 0 : length - 1;
    }

    void pool(Index length, const Scalar* x, Scalar* y) const {
        if (pooling_ != SequencePooling::mean) {
            std::copy_n(x + chosen(length) * width_, width_, y);
            return;
        }
        const detail::ScratchArray<double> sums(width_);
        std::fill_n(sums.data(), width_, 0.0);
        for (Index t = 0; t < length; ++t)
            for (Index i = 0; i < width_; ++i) sums[i] += static_cast<double>(x[t * width_ + i]);
        for (Index i = 0; i < width_; ++i)
            y[i] = static_cast<Scalar>(sums[i] / static_cast<double>(length));
    }

    void spread(Index length, const Scalar* dy, Scalar* dx, Index rows) const {
        if (pooling_ != SequencePooling::mean) {
            std::fill_n(dx, rows, Scalar(0));
            std::copy_n(dy, width_, dx + chosen(length) * width_);
            return;
        }
        for (Index i = 0; i < width_; ++i) dx[i] = dy[i] / static_cast<Scalar>(length);
        for (Index t = 1; t < length; ++t) std::copy_n(dx, width_, dx + t * width_);
        std::fill(dx + length * width_, dx + rows, Scalar(0));
    }

    Index width_;
    SequencePooling pooling_;
};

}  // namespace stochastic_depth
