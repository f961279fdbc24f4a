// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include <stochastic_depth/pass/flow.hpp>

namespace stochastic_depth::detail {

/// Epilogue: nobody wants the gradient by the input, so that it need not be computed.
struct Discard : Keep {};

/// A few pieces of memory for the gradients on their way back, used again and again.
template <class Scalar>
class SlopePool {
public:
    [[nodiscard]] static SlopePool& of_this_thread() {
        thread_local SlopePool pool;
        return pool;
    }

    /// The index of a free piece for so many numbers.
    [[nodiscard]] std::size_t take(Index size) {
        largest_ = std::max(largest_, size);
        std::size_t found = pieces_.size();
        for (std::size_t i = 0; i < pieces_.size(); ++i)
            if (!pieces_[i].taken && (found == pieces_.size() ||
                                      pieces_[i].numbers.size() > pieces_[found].numbers.size()))
                found = i;
        if (found == pieces_.size()) pieces_.emplace_back();
        if (pieces_[found].numbers.size() < size) pieces_[found].numbers.resize(largest_);
        pieces_[found].taken = true;
        return found;
    }
    void give_back(std::size_t piece) { pieces_[piece].taken = false; }
    [[nodiscard]] Scalar* data(std::size_t piece) { return pieces_[piece].numbers.data(); }

private:
    struct Piece {
        Vector<Scalar> numbers;
        bool taken = false;
    };
    std::vector<Piece> pieces_;
    Index largest_ = 0;
};

/// The gradients by the activations of a batch, on their way back through a network.
template <class Scalar>
class Slopes {
public:
    /// Room for [rows x columns], to be written through `writable`.
    Slopes(const Team& team, Index rows, Index columns)
        : team_(&team), rows_(rows), columns_(columns), stride_(rows) {
        hold(rows * columns);
    }

    /// \param d  [outputs x batch]; read until another gradient takes its place.
    Slopes(const Team& team, const ConstMatrixRef<Scalar>& d)
        : team_(&team),
          data_(d.data()),
          rows_(d.rows()),
          columns_(d.cols()),
          stride_(d.outerStride()) {}

    Slopes(Slopes&& other) noexcept
        : team_(other.team_),
          data_(other.data_),
          rows_(other.rows_),
          columns_(other.columns_),
          stride_(other.stride_),
          piece_(std::exchange(other.piece_, nobody)) {}
    Slopes& operator=(Slopes&& other) noexcept {
        std::swap(team_, other.team_);
        std::swap(data_, other.data_);
        std::swap(rows_, other.rows_);
        std::swap(columns_, other.columns_);
        std::swap(stride_, other.stride_);
        std::swap(piece_, other.piece_);
        return *this;
    }
    ~Slopes() {
        if (piece_ != nobody) pool().give_back(piece_);
    }

    [[nodiscard]] const Team& team() const { return *team_; }
    [[nodiscard]] Index rows() const { return rows_; }
    [[nodiscard]] Index columns() const { return columns_; }
    [[nodiscard]] ConstView<Scalar> current() const {
        return {data_, rows_, columns_, Eigen::OuterStride<>(stride_)};
    }

    /// The same gradient for another way back, which reads it and then goes on in memory of its
    /// own. This one must outlive that.
    [[nodiscard]] Slopes shared() const { return Slopes(*team_, current()); }

    /// Replaces the gradient by one of so many rows, written by run(from, to).
    template <class Run>
    void replace(Index rows, const Run& run) {
        Slopes next(*team_, rows, columns_);
        run(current(), next.writable());
        *this = std::move(next);
    }

    /// The gradient for writing; one that is shared is copied first.
    [[nodiscard]] View<Scalar> writable() {
        if (piece_ == nobody)
            replace(rows_, [&](const ConstView<Scalar>& from, View<Scalar> to) {
                transform<Scalar>(*team_, from, to, Keep{});
            });
        return {pool().data(piece_), rows_, columns_, Eigen::OuterStride<>(stride_)};
    }

    /// The gradient of the chosen columns.
    [[nodiscard]] Slopes gathered(const KeptColumns& chosen) const {
        Slopes part(*team_, rows_, chosen.count);
        detail::gather<Scalar>(*team_, current(), chosen, part.writable());
        return part;
    }

    /// The last epilogue of a part: puts it back into its columns.
    [[nodiscard]] ScatterInto<Scalar> scatter_into(const KeptColumns& chosen) {
        View<Scalar> to = writable();
        return {to.data(), to.outerStride(), chosen.columns};
    }

    /// gradient = epilogue(gradient).
    template <class Epilogue>
    void apply(const Epilogue& epilogue) {
        if constexpr (!std::is_same_v<Epilogue, Keep> && !std::is_same_v<Epilogue, Discard>) {
            View<Scalar> d = writable();
            transform<Scalar>(*team_, current(), d, epilogue);
        }
    }

private:
    static constexpr std::size_t nobody = ~std::size_t{0};

    [[nodiscard]] static SlopePool<Scalar>& pool() { return SlopePool<Scalar>::of_this_thread(); }
    void hold(Index size) {
        piece_ = pool().take(size);
        data_ = pool().data(piece_);
    }

    const Team* team_;
    const Scalar* data_ = nullptr;
    Index rows_;
    Index columns_;
    Index stride_;
    /// The piece of the pool that is this gradient's own; nobody: it reads another's.
    std::size_t piece_ = nobody;
};

}  // namespace stochastic_depth::detail
