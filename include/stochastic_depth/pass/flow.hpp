// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/memory/tape.hpp>
#include <stochastic_depth/threads/team.hpp>

namespace stochastic_depth::detail {

/// A matrix on a tape, as a record holds it.
template <class Scalar>
struct Kept {
    const Scalar* data = nullptr;
    Index rows = 0;
    Index columns = 0;
    Index stride = 0;

    [[nodiscard]] ConstView<Scalar> view() const {
        return {data, rows, columns, Eigen::OuterStride<>(stride)};
    }
};

/// Columns that some samples of a batch take, as a record holds them.
struct KeptColumns {
    const Index* columns = nullptr;
    Index count = 0;
};

/// Columns of a matrix for one member of a team: whole tiles of the product.
inline constexpr Index columns_for_each = tile_columns;

/// What moving a number costs, in multiply-adds.
inline constexpr double work_of_moving = 4;

/// to = epilogue(from), shared by a team; `to` may be `from`.
template <class Scalar, class Epilogue>
void transform(const Team& team, const ConstView<Scalar>& from, View<Scalar> to,
               const Epilogue& epilogue) {
    team.split(from.cols(), 1, work_of_moving * static_cast<double>(from.rows()),
               [&](Index first, Index count) {
                   transform<Scalar>(from.middleCols(first, count), to.middleCols(first, count),
                                     epilogue, {0, first});
               });
}

/// to(:, k) = from(:, chosen[k]), shared by a team.
template <class Scalar>
void gather(const Team& team, const ConstView<Scalar>& from, const KeptColumns& chosen,
            View<Scalar> to) {
    team.split(chosen.count, 1, work_of_moving * static_cast<double>(from.rows()),
               [&](Index first, Index count) {
                   gather(from, chosen.columns + first, to.middleCols(first, count));
               });
}

/// The activations of a batch on their way through a recorded pass. What a layer keeps of them
/// stays where it is, on the tape.
template <class Scalar>
class Flow {
public:
    /// \param x  [features x batch]; read until the pass back is done.
    Flow(Tape& tape, const Team& team, const ConstMatrixRef<Scalar>& x)
        : Flow(tape, team, {x.data(), x.rows(), x.cols(), x.outerStride()}) {}

    [[nodiscard]] Tape& tape() const { return tape_; }
    [[nodiscard]] const Team& team() const { return team_; }
    [[nodiscard]] Index rows() const { return current_.rows; }
    [[nodiscard]] Index columns() const { return current_.columns; }
    [[nodiscard]] ConstView<Scalar> current() const { return current_.view(); }

    /// The activations as they are now, which nothing changes any more.
    [[nodiscard]] Kept<Scalar> keep() {
        owned_ = nullptr;
        return current_;
    }

    /// The same activations for another way through the network, which goes on by itself.
    [[nodiscard]] Flow shared() { return Flow(tape_, team_, keep()); }

    /// Room on the tape for a matrix of so many rows and a column for each sample.
    [[nodiscard]] View<Scalar> room(Index rows) const {
        return {tape_.template take<Scalar>(rows * columns()), rows, columns(),
                Eigen::OuterStride<>(rows)};
    }

    /// Takes the numbers in `room` as the activations.
    void advance(View<Scalar> room) {
        current_ = {room.data(), room.rows(), room.cols(), room.outerStride()};
        owned_ = room.data();
    }

    /// The activations for writing; what is kept of them is copied first.
    [[nodiscard]] View<Scalar> writable() {
        if (!owned_) {
            View<Scalar> copy = room(rows());
            transform<Scalar>(team_, current(), copy, Keep{});
            advance(copy);
        }
        return {owned_, rows(), columns(), Eigen::OuterStride<>(current_.stride)};
    }

    /// The chosen columns as a batch of their own.
    [[nodiscard]] Flow gathered(const KeptColumns& chosen) const {
        Flow part(tape_, team_, {nullptr, rows(), chosen.count, rows()});
        View<Scalar> to = part.room(rows());
        detail::gather<Scalar>(team_, current(), chosen, to);
        part.advance(to);
        return part;
    }

    /// The last epilogue of a part: puts it back into its columns.
    [[nodiscard]] ScatterInto<Scalar> scatter_into(const KeptColumns& chosen) {
        View<Scalar> to = writable();
        return {to.data(), to.outerStride(), chosen.columns};
    }

    /// Puts the memory of activations that went elsewhere back on the tape where it ends there.
    void give_back() {
        if (owned_) tape_.give_back_last(owned_, rows() * columns());
    }

    /// activations = epilogue(activations).
    template <class Epilogue>
    void apply(const Epilogue& epilogue) {
        if constexpr (!std::is_same_v<Epilogue, Keep>) {
            View<Scalar> h = writable();
            transform<Scalar>(team_, current(), h, epilogue);
        }
    }

private:
    Flow(Tape& tape, const Team& team, const Kept<Scalar>& current)
        : tape_(tape), team_(team), current_(current) {}

    Tape& tape_;
    const Team& team_;
    Kept<Scalar> current_;
    /// Where the activations may be written; null where something keeps them.
    Scalar* owned_ = nullptr;
};

}  // namespace stochastic_depth::detail
