// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <new>
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

/// Where a pass leaves the piece that it has finished with, for its next layer: two pieces in turn
/// serve most of them. And the pieces that stay until its end.
class SparePiece {
public:
    SparePiece() = default;
    SparePiece(const SparePiece&) = delete;
    SparePiece& operator=(const SparePiece&) = delete;
    EIGEN_ALWAYS_INLINE ~SparePiece() {
        if (start_) Pool::give_back(start_, bytes_);
        if (lasting_) give_back_lasting();
    }

    /// A piece of at least so many bytes; how many it has is left in `bytes`.
    [[nodiscard]] std::byte* take(std::size_t& bytes) {
        std::byte* const start = start_;
        if (!start || bytes_ < bytes) return Pool::take(bytes);
        bytes = bytes_;
        start_ = nullptr;
        return start;
    }
    void give_back(std::byte* start, std::size_t bytes) {
        if (start_) Pool::give_back(start_, bytes_);
        start_ = start;
        bytes_ = bytes;
    }

    /// A piece that stays as long as this.
    [[nodiscard]] std::byte* take_lasting(std::size_t bytes) {
        bytes += Pool::alignment;
        std::byte* const start = Pool::take(bytes);
        lasting_ = ::new (start) Lasting{lasting_, bytes};
        return start + Pool::alignment;
    }

private:
    /// Such a piece begins with the address of the one before.
    struct Lasting {
        Lasting* before;
        std::size_t bytes;
    };

    [[gnu::noinline]] void give_back_lasting() noexcept {
        while (lasting_) {
            Lasting* const last = std::exchange(lasting_, lasting_->before);
            Pool::give_back(reinterpret_cast<std::byte*>(last), last->bytes);
        }
    }

    std::byte* start_ = nullptr;
    std::size_t bytes_ = 0;
    Lasting* lasting_ = nullptr;
};

/// The memory of a pass that keeps nothing for a way back: pieces of the thread's pool, given back
/// as soon as the next layer has run.
struct Forgets {
    static constexpr bool records = false;
    /// Outlives the pass.
    SparePiece* spare;
    /// Where the largest number of rows on the way is noted; null: nowhere.
    Index* most_rows = nullptr;
    /// Called on the way back behind each skippable layer, with its gradient's flag `reached`: the
    /// pass adds nothing more to that gradient. Null: nobody wants to know.
    const std::function<void(bool&)>* passed = nullptr;

    template <class Number>
    using Array = ScratchArray<Number>;
    template <class Number>
    [[nodiscard]] ScratchArray<Number> array(Index size) const {
        return ScratchArray<Number>(size);
    }
    template <class Number>
    [[nodiscard]] Number* lasting_array(Index size) const {
        const auto bytes = static_cast<std::size_t>(size) * sizeof(Number);
        return reinterpret_cast<Number*>(spare->take_lasting(bytes));
    }
    /// Room for a matrix; how many bytes it has is left in `bytes`.
    template <class Number>
    [[nodiscard]] Number* take(Index rows, Index columns, std::size_t& bytes) const {
        if (most_rows) *most_rows = std::max(*most_rows, rows);
        bytes = static_cast<std::size_t>(rows * columns) * sizeof(Number);
        return reinterpret_cast<Number*>(spare->take(bytes));
    }
    template <class Number>
    void give_back(Number* numbers, std::size_t bytes) const {
        spare->give_back(reinterpret_cast<std::byte*>(numbers), bytes);
    }
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
    [[nodiscard]] Number* lasting_array(Index size) const {
        return tape_->template take<Number>(size);
    }
    template <class Number>
    [[nodiscard]] Number* take(Index rows, Index columns, std::size_t& bytes) const {
        bytes = static_cast<std::size_t>(rows * columns) * sizeof(Number);
        return tape_->template take<Number>(rows * columns);
    }
    /// Where they are the last on the tape; else they stay on it.
    template <class Number>
    void give_back(Number* numbers, std::size_t bytes) const {
        tape_->give_back_last(reinterpret_cast<std::byte*>(numbers), static_cast<Index>(bytes));
    }

private:
    Tape* tape_;
};

}  // namespace stochastic_depth::detail
