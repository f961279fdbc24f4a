// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>

#include <stochastic_depth/kernels/columns.hpp>
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

/// The memory of a pass that keeps nothing for a way back: pieces of the thread's pool, given back
/// as soon as the next layer has run.
struct Forgets {
    static constexpr bool records = false;
    /// Where the largest number of rows on the way is noted; null: nowhere.
    Index* most_rows = nullptr;

    template <class Number>
    using Array = ScratchArray<Number>;
    template <class Number>
    [[nodiscard]] ScratchArray<Number> array(Index size) const {
        return ScratchArray<Number>(size);
    }
    template <class Number>
    [[nodiscard]] Number* take(Index rows, Index columns) const {
        if (most_rows) *most_rows = std::max(*most_rows, rows);
        return reinterpret_cast<Number*>(Pool::take(bytes<Number>(rows, columns)));
    }
    template <class Number>
    void give_back(Number* numbers, Index rows, Index columns) const {
        Pool::give_back(reinterpret_cast<std::byte*>(numbers), bytes<Number>(rows, columns));
    }

private:
    template <class Number>
    [[nodiscard]] static std::size_t bytes(Index rows, Index columns) {
        return static_cast<std::size_t>(rows * columns) * sizeof(Number);
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
    [[nodiscard]] Number* take(Index rows, Index columns) const {
        return tape_->template take<Number>(rows * columns);
    }
    /// Where they are the last on the tape; else they stay on it.
    template <class Number>
    void give_back(Number* numbers, Index rows, Index columns) const {
        tape_->give_back_last(numbers, rows * columns);
    }

private:
    Tape* tape_;
};

}  // namespace stochastic_depth::detail
