// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include <stochastic_depth/kernels/columns.hpp>
#include <stochastic_depth/memory/pool.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/memory/tape.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// A matrix on a tape, as a record holds it.
template <class Scalar>
struct RecordedMatrix {
    const Scalar* data = nullptr;
    Index rows = 0;
    Index columns = 0;
    Index stride = 0;

    [[nodiscard]] ConstView<Scalar> view() const {
        return {data, rows, columns, Eigen::OuterStride<>(stride)};
    }
};

/// Columns that some samples of a batch take, as a record holds them.
struct ColumnList {
    const Index* columns = nullptr;
    Index count = 0;
};

/// A piece of the thread's pool, with its size in bytes.
struct MemoryPiece {
    std::byte* start = nullptr;
    std::size_t bytes = 0;
};

/// Where a pass leaves the piece that it has finished with, for its next layer: two pieces in turn
/// serve most of them.
class SparePiece {
public:
    SparePiece() = default;
    SparePiece(const SparePiece&) = delete;
    SparePiece& operator=(const SparePiece&) = delete;
    ~SparePiece() {
        if (piece_.start) Pool::give_back(piece_.start, piece_.bytes);
    }

    [[nodiscard]] MemoryPiece take(std::size_t bytes) {
        if (piece_.start && piece_.bytes >= bytes) return std::exchange(piece_, {});
        return {Pool::take(bytes), bytes};
    }
    void give_back(MemoryPiece piece) {
        std::swap(piece, piece_);
        if (piece.start) Pool::give_back(piece.start, piece.bytes);
    }

private:
    MemoryPiece piece_;
};

/// The memory of a pass that keeps nothing for a way back: pieces of the thread's pool, given back
/// as soon as the next layer has run.
struct Forgets {
    static constexpr bool records = false;
    /// Outlives the pass.
    SparePiece* spare;
    /// Where the largest number of rows on the way is noted; null: nowhere.
    Index* most_rows = nullptr;

    template <class Number>
    using Array = ScratchArray<Number>;
    template <class Number>
    [[nodiscard]] ScratchArray<Number> array(Index size) const {
        return ScratchArray<Number>(size);
    }
    template <class Number>
    [[nodiscard]] MemoryPiece take(Index rows, Index columns) const {
        if (most_rows) *most_rows = std::max(*most_rows, rows);
        return spare->take(static_cast<std::size_t>(rows * columns) * sizeof(Number));
    }
    void give_back(MemoryPiece piece) const { spare->give_back(piece); }
};

/// The memory of a pass that a way back follows: a tape, on which things stay.
class Records {
public:
    static constexpr bool records = true;

    Records(Tape& tape) : tape_(&tape) {}

    template <class Number>
    struct Array {
        Number* numbers;
        [[nodiscard]] Number* data() const { return numbers; }
        [[nodiscard]] Number& operator[](Index i) const { return numbers[i]; }
    };
    template <class Number>
    [[nodiscard]] Array<Number> array(Index size) const {
        return {tape_->template take<Number>(size)};
    }
    template <class Number>
    [[nodiscard]] MemoryPiece take(Index rows, Index columns) const {
        const Index count = rows * columns;
        return {reinterpret_cast<std::byte*>(tape_->template take<Number>(count)),
                static_cast<std::size_t>(count) * sizeof(Number)};
    }
    /// Where it is the last on the tape; else it stays on it.
    void give_back(MemoryPiece piece) const {
        tape_->give_back_last(piece.start, static_cast<Index>(piece.bytes));
    }

private:
    Tape* tape_;
};

}  // namespace stochastic_depth::detail
