// SPDX-License-Identifier: MIT
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include <stochastic_depth/detail/check.hpp>

namespace stochastic_depth::detail {

/// A file's bytes, in as much memory as the file has bytes. Needs POSIX.
class WholeFile {
public:
    /// \param who  Named in messages.
    /// \throws std::runtime_error  naming the file and the system's reason.
    WholeFile(std::string_view who, const std::string& path) {
        const auto fail = [&](std::string_view what, const std::string& reason) {
            throw std::runtime_error(message(who, ": ", path, ": ", what, ": ", reason));
        };
        struct Close {
            void operator()(std::FILE* file) const { std::fclose(file); }
        };
        const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
        if (!file) fail("cannot open the file", std::generic_category().message(errno));
        std::error_code error;
        const std::uintmax_t size = std::filesystem::file_size(path, error);
        if (error) fail("cannot read the file", error.message());
        allocate(static_cast<std::size_t>(size));
        const std::size_t count = std::fread(bytes_.get(), 1, size_, file.get());
        if (count < size_ && std::ferror(file.get()))
            fail("cannot read the file", std::generic_category().message(errno));
        if (count < size_ || std::fgetc(file.get()) != EOF)
            fail("cannot read the file", "it changes while it is read");
    }

    [[nodiscard]] std::span<std::uint8_t> bytes() const { return {bytes_.get(), size_}; }

private:
    static constexpr std::size_t huge_page = std::size_t{1} << 21;

    struct Free {
        std::align_val_t alignment;
        void operator()(std::uint8_t* bytes) const { ::operator delete(bytes, alignment); }
    };

    /// Not filled with zeros: it is about to be written anyway. For a large file on huge pages, where
    /// the system has them: each page costs as much as reading some hundred kB.
    void allocate(std::size_t size) {
        const bool is_large = size >= 4 * huge_page;
        const Free free{std::align_val_t{is_large ? huge_page : alignof(std::max_align_t)}};
        bytes_ = {static_cast<std::uint8_t*>(::operator new(size, free.alignment)), free};
        size_ = size;
#ifdef MADV_HUGEPAGE
        if (is_large) (void)::madvise(bytes_.get(), size, MADV_HUGEPAGE);
#endif
    }

    std::size_t size_ = 0;
    std::unique_ptr<std::uint8_t, Free> bytes_;
};

}  // namespace stochastic_depth::detail
