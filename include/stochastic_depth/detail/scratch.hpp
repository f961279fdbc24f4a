// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

#include <stochastic_depth/detail/aligned_chunk.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Memory for the intermediate results of one thread, handed out and taken back in stack order. It
/// grows to what the deepest call needed and is kept until the thread ends: a pass that ran before
/// allocates nothing.
class ScratchArena {
public:
    [[nodiscard]] static ScratchArena& of_this_thread() {
        thread_local ScratchArena arena;
        return arena;
    }

    /// `bytes` of uninitialised memory, aligned for every packet.
    [[nodiscard]] std::byte* take(std::size_t bytes) {
        bytes = AlignedChunk::padded(std::max(bytes, std::size_t{1}));
        if (in_use_ == 0 && chunks_.size() > 1) merge_chunks();
        while (top_ < chunks_.size() && !chunks_[top_].has_room(bytes)) ++top_;
        if (top_ == chunks_.size()) chunks_.emplace_back(std::max(bytes, smallest_chunk));
        AlignedChunk& chunk = chunks_[top_];
        ++in_use_;
        return chunk.take(bytes);
    }

    /// Takes back `start`, the last piece that was taken and not given back.
    void give_back(const std::byte* start) noexcept {
        while (chunks_[top_].used == 0) --top_;
        chunks_[top_].used = static_cast<std::size_t>(start - chunks_[top_].memory.get());
        if (--in_use_ == 0) top_ = 0;
    }

private:
    /// One chunk for what took several: the next pass finds all its memory in one place.
    void merge_chunks() {
        std::size_t total = 0;
        for (const AlignedChunk& chunk : chunks_) total += chunk.size;
        chunks_.clear();
        chunks_.emplace_back(total);
        top_ = 0;
    }

    static constexpr std::size_t smallest_chunk = std::size_t{1} << 16;
    std::vector<AlignedChunk> chunks_;
    std::size_t top_ = 0;
    std::size_t in_use_ = 0;
};

/// `size` uninitialised numbers of this thread's arena, for as long as the object lives.
template <class Number>
class ScratchArray {
    static_assert(std::is_trivially_copyable_v<Number>, "scratch memory holds plain numbers");

public:
    explicit ScratchArray(Index size)
        : arena_(ScratchArena::of_this_thread()),
          bytes_(arena_.take(static_cast<std::size_t>(size) * sizeof(Number))) {}
    ScratchArray(const ScratchArray&) = delete;
    ScratchArray& operator=(const ScratchArray&) = delete;
    ~ScratchArray() { arena_.give_back(bytes_); }

    [[nodiscard]] Number* data() const { return reinterpret_cast<Number*>(bytes_); }
    [[nodiscard]] Number& operator[](Index i) const { return data()[i]; }

private:
    ScratchArena& arena_;
    std::byte* bytes_;
};

/// A matrix [rows x columns] in this thread's arena.
template <class Scalar>
class ScratchMatrix {
public:
    ScratchMatrix(Index rows, Index columns)
        : memory_(rows * columns), matrix_(memory_.data(), rows, columns) {}

    [[nodiscard]] Eigen::Map<Matrix<Scalar>>& operator*() { return matrix_; }
    [[nodiscard]] Eigen::Map<Matrix<Scalar>>* operator->() { return &matrix_; }

private:
    ScratchArray<Scalar> memory_;
    Eigen::Map<Matrix<Scalar>> matrix_;
};

}  // namespace stochastic_depth::detail
