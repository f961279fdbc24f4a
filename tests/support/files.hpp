// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <system_error>
#include <vector>

/// What tests of files need.
namespace stochastic_depth::test {

using Bytes = std::vector<std::uint8_t>;

/// A directory of its own for each test, removed at the end.
class TemporaryDirectory {
public:
    TemporaryDirectory() {
        // Other processes test at the same time: a name that is taken will not do.
        do
            path_ = std::filesystem::temp_directory_path() /
                    ("stochastic_depth_test_" + std::to_string(std::random_device{}()));
        while (!std::filesystem::create_directory(path_));
    }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    ~TemporaryDirectory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    [[nodiscard]] std::string file(const std::string& name) const {
        return (path_ / name).string();
    }
    [[nodiscard]] std::ptrdiff_t count() const {
        return std::distance(std::filesystem::directory_iterator(path_), {});
    }

private:
    std::filesystem::path path_;
};

/// A name for a file of its own for each test; the file is removed at the end.
class TemporaryFile {
public:
    [[nodiscard]] const std::string& path() const { return path_; }

private:
    TemporaryDirectory directory_;
    std::string path_ = directory_.file("file");
};

[[nodiscard]] inline Bytes read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

inline void write(const std::string& path, const Bytes& bytes) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
}

}  // namespace stochastic_depth::test
