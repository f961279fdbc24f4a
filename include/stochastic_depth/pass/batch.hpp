// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/pass/memory_kinds.hpp>
#include <stochastic_depth/pass/pass_epilogues.hpp>
#include <stochastic_depth/pass/sequence_lengths.hpp>
#include <stochastic_depth/threads/team.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// What moving a number costs, in multiply-adds.
inline constexpr double work_of_moving = 4;

/// A matrix with a column for each sample of a batch, on its way through a network: activations, or
/// on the way back the gradient by them.
///
/// It begins by reading somebody else's numbers, and has memory of its own as soon as something is
/// written.
///
/// Its small members are always inlined: in a large program the compiler otherwise calls them, and a
/// batch that is moved through memory costs a narrow layer more than its product.
template <class Scalar_, class Memory_>
class Batch {
public:
    using Scalar = Scalar_;
    using Memory = Memory_;
    static constexpr bool records = Memory::records;

    /// \param x  [features x batch]; read until something is written, and by records.
    EIGEN_ALWAYS_INLINE Batch(const Team& team, Memory memory, const ConstView<Scalar>& x)
        : team_(&team),
          memory_(memory),
          data_(x.data()),
          rows_(x.rows()),
          columns_(x.cols()),
          stride_(x.outerStride()) {}

    /// Uninitialised, to be written through `writable`.
    EIGEN_ALWAYS_INLINE Batch(const Team& team, Memory memory, Index rows, Index columns)
        : team_(&team),
          memory_(memory),
          own_(memory_.template take<Scalar>(rows, columns, own_bytes_)),
          data_(own_),
          rows_(rows),
          columns_(columns),
          stride_(rows) {}

    EIGEN_ALWAYS_INLINE Batch(Batch&& other) noexcept
        : team_(other.team_),
          memory_(other.memory_),
          own_bytes_(other.own_bytes_),
          own_(std::exchange(other.own_, nullptr)),
          data_(other.data_),
          rows_(other.rows_),
          columns_(other.columns_),
          stride_(other.stride_),
          chosen_(other.chosen_),
          lengths_(other.lengths_) {}
    EIGEN_ALWAYS_INLINE Batch& operator=(Batch&& other) noexcept {
        std::swap(own_bytes_, other.own_bytes_);
        std::swap(own_, other.own_);
        std::swap(data_, other.data_);
        std::swap(rows_, other.rows_);
        std::swap(columns_, other.columns_);
        std::swap(stride_, other.stride_);
        std::swap(chosen_, other.chosen_);
        std::swap(lengths_, other.lengths_);
        return *this;
    }
    EIGEN_ALWAYS_INLINE ~Batch() {
        if (own_) memory_.give_back(own_, own_bytes_);
    }

    [[nodiscard]] const Team& team() const { return *team_; }
    [[nodiscard]] Index rows() const { return rows_; }
    [[nodiscard]] Index columns() const { return columns_; }

    /// Of the sequences in the columns; beside them, from layer to layer.
    [[nodiscard]] const SequenceLengths& lengths() const { return lengths_; }
    void set_lengths(const SequenceLengths& lengths) { lengths_ = lengths; }

    /// The numbers, of a batch whose columns stand side by side.
    [[nodiscard]] ConstView<Scalar> current() const {
        eigen_assert(!chosen_);
        return {data_, rows_, columns_, Eigen::OuterStride<>(stride_)};
    }

    /// The numbers as they are now, for a record: nothing changes them any more.
    [[nodiscard]] RecordedMatrix<Scalar> keep() requires records {
        own_ = nullptr;
        return {data_, rows_, columns_, stride_};
    }

    /// The same numbers for another way through the network, which goes on by itself. This one must
    /// outlive that, unless the pass records.
    [[nodiscard]] EIGEN_ALWAYS_INLINE Batch shared() {
        if constexpr (records) own_ = nullptr;
        return read_again(columns_, chosen_);
    }

    /// The chosen columns as a batch of their own that reads them where they are, without their
    /// lengths; not of a batch that has been chosen itself.
    [[nodiscard]] Batch chosen(const ColumnList& columns) requires records {
        eigen_assert(!chosen_);
        own_ = nullptr;
        Batch part = read_again(columns.count, columns.columns);
        part.lengths_ = {};
        return part;
    }
    /// Columns [first, first + count), read where they are; this must outlive them, unless the pass
    /// records.
    [[nodiscard]] Batch columns_from(Index first, Index count) {
        eigen_assert(!chosen_);
        if constexpr (records) own_ = nullptr;
        Batch part(*team_, memory_,
                   {data_ + first * stride_, rows_, count, Eigen::OuterStride<>(stride_)});
        part.lengths_ = lengths_.from_column(first);
        return part;
    }
    /// Which columns these are of the matrix that begins at `data`; null: columns 0, 1, ...
    [[nodiscard]] const Index* chosen_columns() const { return chosen_; }
    [[nodiscard]] const Scalar* data() const { return data_; }
    [[nodiscard]] Index stride() const { return stride_; }
    [[nodiscard]] const Scalar* column(Index j) const {
        return data_ + (chosen_ ? chosen_[j] : j) * stride_;
    }
    /// Copies columns that are chosen to a place of their own, side by side.
    EIGEN_ALWAYS_INLINE void flatten() {
        if (chosen_) gather_chosen();
    }

    [[nodiscard]] const Memory& memory() const { return memory_; }

    /// Room for a matrix of so many rows and as many columns.
    [[nodiscard]] EIGEN_ALWAYS_INLINE Batch room(Index rows) const {
        Batch result(*team_, memory_, rows, columns_);
        result.lengths_ = lengths_;
        return result;
    }
    /// What somebody else has stored of the same columns.
    [[nodiscard]] EIGEN_ALWAYS_INLINE Batch stored_in(const ConstView<Scalar>& numbers) const {
        Batch result(*team_, memory_, numbers);
        result.lengths_ = lengths_;
        return result;
    }

    /// The same numbers, in the same order, as a matrix of another shape; of a matrix that has no
    /// gaps.
    void reshape(Index rows, Index columns) {
        eigen_assert(!chosen_ && rows * columns == rows_ * columns_ &&
                     (stride_ == rows_ || columns_ <= 1));
        rows_ = stride_ = rows;
        columns_ = columns;
    }

    /// Uninitialised numbers for as long as the pass, or its record, needs them.
    template <class Number>
    [[nodiscard]] typename Memory::template Array<Number> array(Index size) const {
        return memory_.template array<Number>(size);
    }

    /// The same until the pass, or its record, is gone.
    template <class Number>
    [[nodiscard]] Number* lasting_array(Index size) const {
        return memory_.template lasting_array<Number>(size);
    }

    /// The numbers for writing; those of another are copied first.
    [[nodiscard]] EIGEN_ALWAYS_INLINE View<Scalar> writable() {
        flatten();
        if (!own_) copy();
        return {own_, rows_, columns_, Eigen::OuterStride<>(stride_)};
    }

    /// The chosen columns as a batch of their own, without their lengths.
    [[nodiscard]] Batch gathered(const ColumnList& chosen) const {
        Batch part(*team_, memory_, rows_, chosen.count);
        View<Scalar> to = part.writable();
        const ConstView<Scalar> from = current();
        team_->split(chosen.count, 1, work_of_moving * static_cast<double>(rows_),
                     [&](Index first, Index count) {
                         gather(from, chosen.columns + first, to.middleCols(first, count));
                     });
        return part;
    }

    /// Of a part that is some columns of the batch, the last epilogue: what the batch's own one does
    /// in their places, and into these places it goes. Nothing, where nobody wants them.
    /// \param to  Where the batch goes, if its epilogue doesn't store elsewhere.
    template <class Epilogue>
    [[nodiscard]] static auto in_columns(const ColumnList& chosen, const Epilogue& epilogue,
                                         Batch& to) {
        if constexpr (is_discarded<Epilogue>) {
            return Discard{};
        } else if constexpr (is_redirected<Epilogue>) {
            const auto place = epilogue.destination(Origin{});
            return followed_by(in_places(epilogue.before_store(), chosen),
                               ScatterInto<Scalar>{place.data, place.stride, chosen.columns});
        } else if constexpr (stores_elsewhere<Epilogue>) {
            return in_places(epilogue, chosen);
        } else {
            View<Scalar> place = to.writable();
            return followed_by(
                in_places(epilogue, chosen),
                ScatterInto<Scalar>{place.data(), place.outerStride(), chosen.columns});
        }
    }

    /// The chosen columns of `to` = epilogue(those of this), unless it stores elsewhere.
    template <class Epilogue>
    void apply_to_columns(const ColumnList& chosen, const Epilogue& epilogue, Batch& to) const {
        const ConstView<Scalar> from = current();
        const View<Scalar> into = view(to.current());
        team_->split(chosen.count, 1, work_of_moving * static_cast<double>(rows_),
                     [&](Index first, Index count) {
                         for (Index k = first; k < first + count; ++k) {
                             const Index j = chosen.columns[k];
                             transform<Scalar>(from.middleCols(j, 1), into.middleCols(j, 1),
                                               epilogue, {0, j});
                         }
                     });
    }

    /// Whether the numbers may be written where they are.
    [[nodiscard]] bool owns() const { return own_ != nullptr; }

    /// numbers = epilogue(numbers).
    template <class Epilogue>
    void apply(const Epilogue& epilogue) {
        if constexpr (std::is_base_of_v<AsIs, Epilogue>) return;
        flatten();
        if constexpr (stores_elsewhere<Epilogue>) {
            transform_into(*this, epilogue);
        } else if (own_) {
            transform_into(*this, epilogue);
        } else {
            Batch result = room(rows_);
            transform_into(result, epilogue);
            *this = std::move(result);
        }
    }

private:
    [[nodiscard]] EIGEN_ALWAYS_INLINE Batch read_again(Index columns, const Index* chosen) const {
        Batch again(*team_, memory_, {data_, rows_, columns, Eigen::OuterStride<>(stride_)});
        again.chosen_ = chosen;
        again.lengths_ = lengths_;
        return again;
    }

    [[gnu::noinline]] void gather_chosen() {
        const SequenceLengths lengths = lengths_;
        *this = read_again(columns_, nullptr).gathered({chosen_, columns_});
        lengths_ = lengths;
    }
    [[gnu::noinline]] void copy() {
        Batch copied = room(rows_);
        transform_into(copied, AsIs{});
        *this = std::move(copied);
    }

    template <class Epilogue>
    void transform_into(Batch& result, const Epilogue& epilogue) const {
        const ConstView<Scalar> from = current();
        // An epilogue that stores elsewhere leaves this alone.
        const View<Scalar> to = view(result.current());
        team_->split(columns_, 1, work_of_moving * static_cast<double>(rows_),
                     [&](Index first, Index count) {
                         transform<Scalar>(from.middleCols(first, count),
                                           to.middleCols(first, count), epilogue, {0, first});
                     });
    }

    const Team* team_;
    [[no_unique_address]] Memory memory_;
    std::size_t own_bytes_ = 0;
    /// Where the numbers may be written; null where they are another's, or a record's.
    Scalar* own_ = nullptr;
    const Scalar* data_;
    Index rows_;
    Index columns_;
    Index stride_;
    /// Of columns that are chosen among those of the matrix, their numbers.
    const Index* chosen_ = nullptr;
    SequenceLengths lengths_;
};

}  // namespace stochastic_depth::detail
