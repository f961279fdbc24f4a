// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstddef>
#include <new>

namespace stochastic_depth::detail {

/// Pieces of memory of one thread, taken and given back in any order. What was given back is kept
/// until the thread ends, and handed out again, the latest first: a pass like one before it
/// allocates nothing, and finds its memory in the cache.
///
/// Sizes are rounded up to four steps for each doubling, so that a piece serves every size of its
/// step.
class Pool {
public:
    static constexpr std::size_t alignment = 64;

    // Not inlined: there are dozens of callers in every program, for which it is a few instructions
    // in a thousand.

    /// At least `bytes` of uninitialised memory, aligned for every packet.
    [[nodiscard, gnu::noinline]] static std::byte* take(std::size_t bytes) {
        return of_this_thread().take_here(step_of(bytes));
    }

    /// Takes back a piece that was taken for `bytes` on this thread.
    [[gnu::noinline]] static void give_back(std::byte* start, std::size_t bytes) noexcept {
        Free*& first = of_this_thread().free_[step_of(bytes).number];
        first = ::new (start) Free{first};
    }

    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

private:
    /// A piece that nobody has begins with the address of the next one.
    struct Free {
        Free* next;
    };

    struct Step {
        std::size_t number;
        std::size_t bytes;
    };

    /// The smallest step that holds so many bytes.
    [[nodiscard]] static Step step_of(std::size_t bytes) {
        if (bytes <= 4 * alignment) {
            const std::size_t units = bytes == 0 ? 1 : (bytes + alignment - 1) / alignment;
            return {units - 1, units * alignment};
        }
        const auto doublings = static_cast<std::size_t>(std::bit_width(bytes - 1));
        const std::size_t unit = std::size_t{1} << (doublings - 3);
        const std::size_t units = (bytes + unit - 1) / unit;
        return {4 * doublings + units - 5, units * unit};
    }

    Pool() = default;
    ~Pool() {
        for (Free* first : free_)
            while (first) {
                Free* const next = first->next;
                ::operator delete(first, std::align_val_t{alignment});
                first = next;
            }
    }

    [[nodiscard]] static Pool& of_this_thread() {
        thread_local Pool pool;
        return pool;
    }

    [[nodiscard]] std::byte* take_here(Step step) {
        Free*& first = free_[step.number];
        if (!first) {
            if (step.bytes == 0) throw std::bad_alloc();  // more than there are addresses
            return static_cast<std::byte*>(::operator new(step.bytes, std::align_val_t{alignment}));
        }
        std::byte* const start = reinterpret_cast<std::byte*>(first);
        first = first->next;
        return start;
    }

    Free* free_[4 * 65] = {};
};

}  // namespace stochastic_depth::detail
