// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <type_traits>

#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/batch.hpp>

/// Sequences seen as a matrix with a column for each position, and back.
namespace stochastic_depth::detail {

/// A position of a sequence, and the column that the sequence is in.
struct TokenPlace {
    Index position;
    Index column;
};

/// The positions that belong to the sequences of a batch, one sequence after another: padding is
/// left out. The list is on the batch's tape, or somebody else's.
struct Positions {
    const TokenPlace* places = nullptr;
    Index count = 0;
    /// Of a column, padding included.
    Index in_column = 0;
    Index columns = 0;

    [[nodiscard]] bool is_full() const { return count == in_column * columns; }

    /// The length of each column's sequence.
    [[nodiscard]] static Index length_of(const SequenceLengths& lengths, Index column,
                                         Index in_column) {
        return lengths ? std::min(lengths[column], in_column) : in_column;
    }

    /// \param to  Room for in_column columns places.
    [[nodiscard]] static Positions list(const SequenceLengths& lengths, Index in_column,
                                        Index columns, TokenPlace* to) {
        Positions positions{to, 0, in_column, columns};
        for (Index j = 0; j < columns; ++j) {
            const Index length = length_of(lengths, j, in_column);
            for (Index t = 0; t < length; ++t) to[positions.count++] = {t, j};
        }
        return positions;
    }
};

/// Epilogue of positions: what that of whole sequences does in their places.
template <class Epilogue>
struct AtPositions {
    static constexpr bool stores_elsewhere = detail::stores_elsewhere<Epilogue>;
    Epilogue epilogue;
    const TokenPlace* places;
    /// Rows of a position.
    Index width;

    template <class Packet>
    EIGEN_ALWAYS_INLINE Packet operator()(Packet value, Index i, Index k) const {
        const TokenPlace& place = places[k];
        return epilogue(value, i + place.position * width, place.column);
    }
};

/// What an epilogue of whole sequences does for positions, before it stores.
template <class Epilogue>
[[nodiscard]] auto at_positions(const Epilogue& epilogue, const Positions& positions, Index width) {
    if constexpr (std::is_base_of_v<AsIs, Epilogue>)
        return epilogue;
    else if constexpr (is_redirected<Epilogue>)
        return at_positions(epilogue.before_store(), positions, width);
    else
        return AtPositions<Epilogue>{epilogue, positions.places, width};
}

/// The positions of a batch [width in_column x columns] as a batch of their own, [width x count].
/// They are read where they are, if they stand side by side there; the batch must outlive that
/// unless the pass records.
template <class Batch>
[[nodiscard]] Batch batch_of_positions(Batch& batch, const Positions& positions, Index width) {
    batch.flatten();
    if (positions.is_full() && (batch.stride() == batch.rows() || batch.columns() <= 1)) {
        Batch all = batch.shared();
        all.set_lengths({});
        all.reshape(width, positions.count);
        return all;
    }
    Batch part(batch.team(), batch.memory(), width, positions.count);
    const auto to = part.writable();
    const auto from = batch.current();
    batch.team().split(positions.count, 1, work_of_moving * static_cast<double>(width),
                       [&](Index first, Index count) {
                           for (Index k = first; k < first + count; ++k) {
                               const TokenPlace& place = positions.places[k];
                               std::copy_n(from.data() + place.column * from.outerStride() +
                                               place.position * width,
                                           width, view(to).data() + k * width);
                           }
                       });
    return part;
}

/// batch = the sequences whose positions are `part`, [width x count], which have been through
/// `at_positions(epilogue, ...)`. Padding becomes epilogue(0).
template <class Batch, class Epilogue>
void put_back_positions(Batch& batch, Batch&& part, const Positions& positions, Index width,
                        const Epilogue& epilogue) {
    using Scalar = typename Batch::Scalar;
    if constexpr (is_discarded<Epilogue>) return;
    const Index rows = width * positions.in_column;
    constexpr bool only_stores = stores_elsewhere<Epilogue> && !is_redirected<Epilogue>;
    if constexpr (!stores_elsewhere<Epilogue>) {
        if (positions.is_full()) {
            const SequenceLengths lengths = batch.lengths();
            part.reshape(rows, positions.columns);
            batch = std::move(part);
            return batch.set_lengths(lengths);
        }
    }
    Batch result = [&] {
        if constexpr (is_redirected<Epilogue>) {
            const auto to = epilogue.destination(Origin{});
            return batch.stored_in(
                {to.data, rows, positions.columns, Eigen::OuterStride<>(to.stride)});
        } else {
            return batch.room(only_stores ? 0 : rows);
        }
    }();
    const View<Scalar> to = view(result.current());
    if constexpr (!only_stores) {
        const auto from = part.current();
        batch.team().split(positions.count, 1, work_of_moving * static_cast<double>(width),
                           [&](Index first, Index count) {
                               for (Index k = first; k < first + count; ++k) {
                                   const TokenPlace& place = positions.places[k];
                                   std::copy_n(from.data() + k * from.outerStride(), width,
                                               view(to).data() + place.column * to.outerStride() +
                                                   place.position * width);
                               }
                           });
    }
    if (!positions.is_full()) {
        const ScratchArray<Scalar> zeros(rows);
        std::fill_n(zeros.data(), rows, Scalar(0));
        Index next = 0;
        for (Index j = 0; j < positions.columns; ++j) {
            Index length = 0;
            for (; next < positions.count && positions.places[next].column == j; ++next) ++length;
            const Index own = length * width;
            if (own == rows) continue;
            Scalar* const padding = only_stores ? zeros.data() : view(to).data() + j * to.outerStride() + own;
            transform<Scalar>(
                ConstView<Scalar>(zeros.data(), rows - own, 1, Eigen::OuterStride<>(rows)),
                View<Scalar>(padding, rows - own, 1, Eigen::OuterStride<>(rows)), epilogue,
                {own, j});
        }
    }
    batch = std::move(result);
}

}  // namespace stochastic_depth::detail
