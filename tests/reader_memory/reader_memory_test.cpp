// SPDX-License-Identifier: MIT

// Readers take at most 64 MiB beside the file's bytes and what they give back, whatever a file
// claims. A program of its own, since it replaces operator new and has the linker put another malloc
// in the place of the one that Eigen calls (CMakeLists.txt), to count what is allocated.

#include <malloc.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <stochastic_depth/io/cifar.hpp>
#include <stochastic_depth/io/idx.hpp>
#include <stochastic_depth/io/npz.hpp>
#include <stochastic_depth/io/safetensors.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/training/checkpoint.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/thrown.hpp"

#ifdef STOCHASTIC_DEPTH_TESTS_HAVE_GZIP
#include <stochastic_depth/io/npz_deflated.hpp>
#endif

namespace {

/// Bytes that are allocated, and their most since the last reset.
std::size_t allocated = 0, most_allocated = 0;

void* counted(void* memory) {
    allocated += ::malloc_usable_size(memory);
    most_allocated = std::max(most_allocated, allocated);
    return memory;
}
void discounted(void* memory) { allocated -= ::malloc_usable_size(memory); }

}  // namespace

extern "C" {
// Names that the linker gives.
void* __real_malloc(std::size_t size);   // NOLINT(bugprone-reserved-identifier)
void* __wrap_malloc(std::size_t size) {  // NOLINT(bugprone-reserved-identifier)
    return counted(__real_malloc(size));
}
void __real_free(void* memory);   // NOLINT(bugprone-reserved-identifier)
void __wrap_free(void* memory) {  // NOLINT(bugprone-reserved-identifier)
    discounted(memory);
    __real_free(memory);
}
}

namespace {

void* allocate(std::size_t size) {
    void* const memory = __real_malloc(size == 0 ? 1 : size);
    if (memory == nullptr) throw std::bad_alloc();
    return counted(memory);
}
void* allocate(std::size_t size, std::align_val_t alignment) {
    const auto unit = static_cast<std::size_t>(alignment);
    void* const memory = std::aligned_alloc(unit, (size / unit + 1) * unit);
    if (memory == nullptr) throw std::bad_alloc();
    return counted(memory);
}
void* allocate_or_null(std::size_t size) noexcept {
    try {
        return allocate(size);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
void release(void* memory) {
    discounted(memory);
    __real_free(memory);
}

}  // namespace

void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
// Those of a sanitizer would be its own.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return allocate_or_null(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return allocate_or_null(size); }
void* operator new(std::size_t size, std::align_val_t unit) { return allocate(size, unit); }
void* operator new[](std::size_t size, std::align_val_t unit) { return allocate(size, unit); }
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { release(memory); }

namespace {

using namespace stochastic_depth;
using test::Bytes;

constexpr std::size_t mega = std::size_t{1} << 20;

/// A file of somebody's making.
class HostileFile {
public:
    explicit HostileFile(const Bytes& bytes) : size_(bytes.size()) {
        test::write(file_.path(), bytes);
    }
    [[nodiscard]] const std::string& path() const { return file_.path(); }

    /// What read(path) throws, having taken at most 64 MiB beside the file's size and `result`.
    template <class Read>
    [[nodiscard]] std::string refusal(std::size_t result, const Read& read) const {
        const std::size_t before = most_allocated = allocated;
        const std::string message =
            thrown<std::runtime_error>([&] { read(file_.path()); });
        const std::size_t taken = most_allocated - before;
        INFO(message.substr(0, 200));
        INFO("the file has " << size_ << " bytes, " << taken << " were taken");
        CHECK(taken <= size_ + result + 64 * mega);
        return message;
    }

private:
    test::TemporaryFile file_;
    std::size_t size_;
};

[[nodiscard]] Bytes bytes_of(std::string_view text) { return {text.begin(), text.end()}; }

/// A safetensors file: length, header, data.
[[nodiscard]] Bytes safetensors(const std::string& header, std::size_t data = 0) {
    Bytes bytes(8 + header.size() + data);
    detail::store_little(bytes.data(), std::uint64_t{header.size()});
    std::copy(header.begin(), header.end(), bytes.begin() + 8);
    return bytes;
}
[[nodiscard]] Bytes npy(const std::string& shape, const char* type, std::size_t data) {
    Bytes bytes = bytes_of(std::string("\x93NUMPY\x01\0\0\0", 10) + "{'descr': '" + type +
                           "', 'fortran_order': False, 'shape': " + shape + "}\n");
    detail::store_little(bytes.data() + 8, static_cast<std::uint16_t>(bytes.size() - 10));
    bytes.resize(bytes.size() + data);
    return bytes;
}

/// One input, a thousand outputs.
[[nodiscard]] Linear<float> network() {
    return {Eigen::MatrixXf::Zero(1000, 1), Eigen::VectorXf::Zero(1000)};
}
void load(const std::string& path) {
    Linear<float> linear = network();
    load_safetensors(path, linear);
}

}  // namespace

TEST_CASE("Allocations are counted", "[reader_memory]") {
    const std::size_t before = most_allocated = allocated;
    {
        const Eigen::MatrixXf matrix(1000, 1000);
        const std::vector<char> letters(3 * mega);
        CHECK(allocated - before >= 4'000'000 + 3 * mega);
        CHECK(letters[0] == 0);
        CHECK(matrix.size() == 1'000'000);
    }
    CHECK(allocated == before);
    CHECK(most_allocated - before < 4'100'000 + 3 * mega);
}

TEST_CASE("load_safetensors: memory is within the file's size and 64 MiB", "[reader_memory]") {
    // As many tensors as there may be, and one more, all of them empty.
    const auto tensors = [](std::size_t count) {
        std::string header = "{";
        for (std::size_t k = 0; k < count; ++k)
            header += detail::message(k == 0 ? "" : ",", "\"", k,
                                      R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})");
        return safetensors(header + "}");
    };
    constexpr std::size_t most = detail::SafetensorsFile::most_tensors;
    CHECK(holds(HostileFile(tensors(most)).refusal(0, load), "the file has no tensor weight"));
    CHECK(holds(HostileFile(tensors(most + 1)).refusal(0, load),
                "there must be at most 524288 tensors"));
    // Metadata, as many.
    std::string header = "{\"__metadata__\":{";
    for (std::size_t k = 0; k < detail::SafetensorsFile::most_metadata; ++k)
        header += detail::message(k == 0 ? "" : ",", "\"", k, "\":\"\"");
    CHECK(holds(HostileFile(safetensors(header + "}}")).refusal(0, load), "no tensor weight"));
    // Claims.
    CHECK(holds(HostileFile(safetensors(R"({"weight":{"dtype":"F32","shape":[1099511627776],)"
                                        R"("data_offsets":[0,4398046511104]}})"))
                    .refusal(0, load),
                "cut short: weight ends at byte 4398046511104"));
}

TEST_CASE("load_safetensors: a self-test takes a few samples at once", "[reader_memory]") {
    // 65,536 samples of one number each, in 300 kB; the network would make a thousand of each.
    const auto file = [](std::size_t outputs) {
        std::string input, output, numbers = "0";
        for (std::size_t i = 1; i < outputs; ++i) numbers += ",0";
        for (std::size_t j = 0; j < detail::SelfTest::most_samples / outputs; ++j) {
            input += j == 0 ? "[0]" : ",[0]";
            output += (j == 0 ? "[" : ",[") + numbers + "]";
        }
        return safetensors(
            R"({"__metadata__":{"self_test":"{\"input\":[)" + input + R"(],\"output\":[)" + output +
                R"(]}"},"bias":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]},)"
                R"("weight":{"dtype":"F32","shape":[1000,1],"data_offsets":[4000,8000]}})",
            8000);
    };
    CHECK(holds(HostileFile(file(1)).refusal(0, load),
                "self-test: output must have 1000 numbers for each sample, found 1"));
    CHECK(HostileFile(file(1000)).refusal(0, load) == "nothing thrown");
}

TEST_CASE("load_npy, load_npy_masks: memory is within the file's size, the result and 64 MiB",
          "[reader_memory]") {
    const auto matrix = [](const std::string& path) { (void)load_npy<float>(path); };
    const auto masks = [](const std::string& path) { (void)load_npy_masks(path); };
    CHECK(holds(HostileFile(npy("(281474976710656, 0)", "|b1", 0)).refusal(0, masks),
                "masks without layers must be at most 1048576, found 281474976710656"));
    CHECK(HostileFile(npy("(1048576, 0)", "|b1", 0)).refusal(0, masks) == "nothing thrown");
    // 32 MB of truth values are 4 MB of bits.
    CHECK(HostileFile(npy("(4, 8388608)", "|b1", 32 * mega)).refusal(4 * mega, masks) ==
          "nothing thrown");
    CHECK(HostileFile(npy("(32, 1048576)", ">f4", 128 * mega)).refusal(128 * mega, matrix) ==
          "nothing thrown");
    CHECK(holds(HostileFile(npy("(281474976710656, 1)", "<f4", 0)).refusal(0, matrix), "cut short"));
}

TEST_CASE("NpzFile: memory is within the file's size, the result and 64 MiB", "[reader_memory]") {
    const test::TemporaryFile file;
    // Files without bytes, with long names.
    std::vector<NpzArray> arrays;
    for (Index k = 0; k < 60'000; ++k)
        arrays.emplace_back(detail::message(k, std::string(1000, 'a')), 0.0);
    const HostileFile many(detail::npz_bytes(arrays, nullptr));
    arrays = {};
    CHECK(many.refusal(0, [](const std::string& path) { NpzFile{path}; }) == "nothing thrown");
    // An array as it lies in the file.
    const HostileFile large(
        detail::npz_bytes({{"a", Matrix<float>(Matrix<float>::Zero(mega, 32))}}, nullptr));
    CHECK(large.refusal(128 * mega, [](const std::string& path) {
        (void)NpzFile{path}.matrix<float>("a");
    }) == "nothing thrown");
}

#ifdef STOCHASTIC_DEPTH_TESTS_HAVE_GZIP
TEST_CASE("open_npz: what an array claims to inflate to is not believed", "[reader_memory]") {
    // A megabyte that claims to be a thousand.
    Bytes bytes = detail::npz_bytes({{"a", Matrix<float>(Matrix<float>::Random(512, 512))}},
                                    detail::deflate_raw);
    const std::size_t size_in_directory = bytes.size() - 22 - (46 + 5) + 24;
    detail::store_little(bytes.data() + size_in_directory, std::uint32_t{900'000'000});
    CHECK(holds(HostileFile(bytes).refusal(
                    0, [](const std::string& path) { (void)open_npz(path).matrix<float>("a"); }),
                "a: it inflates to fewer bytes than it should have"));
}
#endif

TEST_CASE("load_parameters: memory is within the file's size and 64 MiB", "[reader_memory]") {
    const auto read = [](const std::string& path) {
        Linear<float> linear = network();
        load_parameters(path, linear);
    };
    // A layer's path as long as the file.
    Bytes content;
    detail::ByteWriter writer{content};
    writer.number(std::uint64_t{1});
    writer.text(std::string(80 * mega, 'a'));
    writer.text("Linear");
    const HostileFile file(
        detail::sealed_bytes(detail::parameters_magic, detail::parameters_version, content));
    content = {};
    CHECK(holds(file.refusal(0, read), "layer 0 of the file is aaaa", "...: Linear, the network's"));
}

TEST_CASE("read_idx, read_cifar10: memory is within the file's size, the result and 64 MiB",
          "[reader_memory]") {
    Bytes bytes{0, 0, 8, 1, 8, 0, 0, 0};
    CHECK(holds(HostileFile(bytes).refusal(0, [](const std::string& path) { (void)read_idx(path); }),
                "expected 134217728 bytes of values"));
    bytes.resize(8 + 128 * mega);
    CHECK(HostileFile(bytes).refusal(128 * mega, [](const std::string& path) {
        (void)read_idx(path);
    }) == "nothing thrown");
    bytes.assign(3073 * 40'000, 0);
    CHECK(HostileFile(bytes).refusal(3076 * 40'000, [](const std::string& path) {
        (void)read_cifar10(path);
    }) == "nothing thrown");
}
