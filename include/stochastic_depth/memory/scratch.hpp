// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

#include <stochastic_depth/memory/aligned_chunk.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Memory for the intermediate results of one thread, handed out and taken back in stack order. It
/// grows to what the deepest call needed and is kept until the thread ends: a pass that ran before
/// allocates nothing.
class ScratchArena {
public:
    // Not inlined: there are dozens of callers in every program, for which it is a few instructions
    // in a thousand.

    /// `bytes` of uninitialised memory of this thread's arena, aligned for every packet.
    [[nodiscard, gnu::noinline]] static std::byte* take(std::size_t bytes) {
        return of_this_thread().take_here(bytes);
    }

    /// Takes back `start`, the last piece that was taken and not given back.
    [[gnu::noinline]] static void give_back(const std::byte* start) noexcept {
        of_this_thread().give_back_here(start);
    }

private:
    [[nodiscard]] static ScratchArena& of_this_thread() {
        thread_local ScratchArena arena;
        return arena;
    }

    [[nodiscard]] std::byte* take_here(std::size_t bytes) {
        bytes = AlignedChunk::padded(std::max(bytes, std::size_t{1}));
        if (in_use_ == 0 && chunks_.size() > 1) merge_chunks();
        while (top_ < chunks_.size() && !chunks_[top_].has_room(bytes)) ++top_;
        if (top_ == chunks_.size()) chunks_.emplace_back(std::max(bytes, smallest_chunk));
        AlignedChunk& chunk = chunks_[top_];
        ++in_use_;
        return chunk.take(bytes);
    }

    void give_back_here(const std::byte* start) noexcept {
        while (chunks_[top_].used == 0) --top_;
        chunks_[top_].used = static_cast<std::size_t>(start - chunks_[top_].memory.get());
        if (--in_use_ == 0) top_ = 0;
    }

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
        : bytes_(ScratchArena::take(static_cast<std::size_t>(size) * sizeof(Number))) {}
    ScratchArray(const ScratchArray&) = delete;
    ScratchArray& operator=(const ScratchArray&) = delete;
    ~ScratchArray() { ScratchArena::give_back(bytes_); }

    [[nodiscard]] Number* data() const { return reinterpret_cast<Number*>(bytes_); }
    [[nodiscard]] Number& operator[](Index i) const { return data()[i]; }

private:
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
