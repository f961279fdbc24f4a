// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

#include <stochastic_depth/memory/aligned_chunk.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Where a recorded pass leaves what its way back needs: memory handed out from front to back, and
/// taken back all at once or from the end. It is kept from one pass to the next: a step like those
/// before it allocates nothing, and it grows with what is recorded, not with the network.
class Tape {
public:
    /// Uninitialised numbers, aligned for every packet.
    template <class Number>
    [[nodiscard]] Number* take(Index count) {
        static_assert(std::is_trivially_copyable_v<Number>, "a tape holds plain numbers");
        return reinterpret_cast<Number*>(
            take_bytes(static_cast<std::size_t>(count) * sizeof(Number)));
    }

    /// A place on the tape.
    struct Mark {
        std::size_t chunk = 0;
        std::size_t used = 0;
    };
    [[nodiscard]] Mark mark() const {
        return chunks_.empty() ? Mark{} : Mark{last_, chunks_[last_].used};
    }

    /// Takes back all that was handed out after the mark.
    void release(Mark mark) {
        if (chunks_.empty()) return;
        for (; last_ > mark.chunk; --last_) chunks_[last_].used = 0;
        chunks_[last_].used = mark.used;
    }

    /// Takes back `numbers`, if nothing was handed out after them.
    template <class Number>
    void give_back_last(const Number* numbers, Index count) {
        if (chunks_.empty()) return;
        AlignedChunk& chunk = chunks_[last_];
        const std::size_t bytes =
            AlignedChunk::padded(static_cast<std::size_t>(count) * sizeof(Number));
        const auto* const start = reinterpret_cast<const std::byte*>(numbers);
        if (chunk.used >= bytes && start == chunk.memory.get() + (chunk.used - bytes))
            chunk.used -= bytes;
    }

    /// Takes back everything, and puts what lay in several pieces of memory into one.
    void clear() {
        last_ = 0;
        if (chunks_.size() > 1) {
            std::size_t total = 0;
            for (const AlignedChunk& chunk : chunks_) total += chunk.size;
            chunks_.clear();
            chunks_.emplace_back(total);
        }
        if (!chunks_.empty()) chunks_.front().used = 0;
    }

    /// What is handed out.
    [[nodiscard]] std::size_t bytes() const {
        std::size_t sum = 0;
        for (const AlignedChunk& chunk : chunks_) sum += chunk.used;
        return sum;
    }

private:
    [[nodiscard]] std::byte* take_bytes(std::size_t bytes) {
        bytes = AlignedChunk::padded(bytes);
        std::size_t found = last_;
        while (found < chunks_.size() && !chunks_[found].has_room(bytes)) ++found;
        if (found == chunks_.size()) {
            // A sixteenth more than there is: a step that keeps a few samples more than any before
            // it is then rarely followed by another that needs memory.
            std::size_t total = smallest_chunk;
            for (const AlignedChunk& chunk : chunks_) total += chunk.size;
            chunks_.emplace_back(std::max(bytes, total / 16));
        }
        // Not before there is memory: where there is none, the tape stays as it was.
        last_ = found;
        return chunks_[last_].take(bytes);
    }

    static constexpr std::size_t smallest_chunk = std::size_t{1} << 16;
    std::vector<AlignedChunk> chunks_;
    std::size_t last_ = 0;
};

}  // namespace stochastic_depth::detail
