// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace stochastic_depth::detail {

/// A piece of memory, aligned for every packet, that is handed out from front to back.
struct AlignedChunk {
    static constexpr std::size_t alignment = 64;

    struct Free {
        void operator()(std::byte* start) const noexcept {
            ::operator delete[](start, std::align_val_t{alignment});
        }
    };

    explicit AlignedChunk(std::size_t bytes)
        : memory(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{alignment}))),
          size(bytes) {}

    [[nodiscard]] static std::size_t padded(std::size_t bytes) {
        return (bytes + alignment - 1) / alignment * alignment;
    }
    [[nodiscard]] bool has_room(std::size_t bytes) const { return size - used >= bytes; }
    /// The next `bytes`, for which there must be room.
    [[nodiscard]] std::byte* take(std::size_t bytes) {
        std::byte* const start = memory.get() + used;
        used += bytes;
        return start;
    }

    std::unique_ptr<std::byte[], Free> memory;
    std::size_t size;
    std::size_t used = 0;
};

}  // namespace stochastic_depth::detail
