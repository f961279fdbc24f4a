// SPDX-License-Identifier: MIT
#pragma once

#include <sanitizer/allocator_interface.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

/// What programs have in common that give a reader bytes of libFuzzer's making. Each is a function
///
///     void read_anything(std::span<const std::uint8_t> bytes);
///
/// that lets the reader throw std::runtime_error, and asserts what must hold otherwise.
namespace fuzz {

using Bytes = std::vector<std::uint8_t>;

/// A finding, if a claim doesn't hold.
inline void expect(bool holds, std::string_view claim) {
    if (holds) return;
    std::fprintf(stderr, "a property is broken: %.*s\n", static_cast<int>(claim.size()),
                 claim.data());
    std::abort();
}

/// Bytes that are allocated, by whatever call, and their most since the last reset.
struct Memory {
    inline static std::size_t now = 0, most = 0;

    static void allocated(const volatile void*, std::size_t size) {
        now += size;
        if (now > most) most = now;
    }
    static void freed(const volatile void* memory) {
        if (memory) now -= __sanitizer_get_allocated_size(const_cast<const void*>(memory));
    }
};

/// Runs read(), and asserts that it took at most so many bytes at once; 64 MiB are free.
template <class Read>
void expect_memory(std::size_t limit, const Read& read) {
    static const int installed =
        __sanitizer_install_malloc_and_free_hooks(Memory::allocated, Memory::freed);
    expect(installed != 0, "allocations are counted");
    const std::size_t before = Memory::most = Memory::now;
    read();
    expect(Memory::most - before <= limit + (std::size_t{64} << 20),
           "memory is within the file's size and 64 MiB");
}

/// Runs read(). \returns  Whether it threw std::runtime_error.
template <class Read>
[[nodiscard]] bool is_refused(const Read& read) {
    try {
        read();
    } catch (const std::runtime_error& error) {
        expect(!std::string_view(error.what()).empty(), "a refusal says why");
        return true;
    }
    return false;
}

/// A file in memory, for readers that take a path.
class File {
public:
    explicit File(std::span<const std::uint8_t> bytes) {
        static const int file = ::memfd_create("fuzz", 0);
        const auto size = static_cast<::ssize_t>(bytes.size());
        expect(file >= 0 && ::ftruncate(file, 0) == 0 &&
                   ::pwrite(file, bytes.data(), bytes.size(), 0) == size,
               "a file can be written");
        path_ = "/proc/self/fd/" + std::to_string(file);
    }
    [[nodiscard]] const std::string& path() const { return path_; }

private:
    std::string path_;
};

/// A first byte chooses what is done with the others.
[[nodiscard]] inline unsigned take_choice(std::span<const std::uint8_t>& bytes, unsigned choices) {
    if (bytes.empty()) return 0;
    const unsigned choice = bytes[0] % choices;
    bytes = bytes.subspan(1);
    return choice;
}

}  // namespace fuzz
