// SPDX-License-Identifier: MIT

// How long weights take from a file into a network, beside what any reader has to do: read the file
// once and copy it once. Some 100 MB, which the system still holds in memory: the disk is not
// measured. Row-major in the file, column-major in the network.
//
// Two kinds of that: into memory asked for each time, as a program does that loads a file, and into
// memory that is there already, the least that it can take.

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <stochastic_depth/io/npz.hpp>
#include <stochastic_depth/io/safetensors.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/layers/dense/linear.hpp>
#include <stochastic_depth/layers/image/conv2d.hpp>
#include <stochastic_depth/random/philox.hpp>

#include "ratio_reporter.hpp"

namespace {

using namespace stochastic_depth;

/// A file's name for the time of the program.
class BenchmarkFile {
public:
    explicit BenchmarkFile(const std::string& name)
        : path_((std::filesystem::temp_directory_path() / ("stochastic_depth_benchmark_" + name))
                    .string()) {}
    BenchmarkFile(const BenchmarkFile&) = delete;
    BenchmarkFile& operator=(const BenchmarkFile&) = delete;
    ~BenchmarkFile() {
        std::error_code ignored;
        std::filesystem::remove(path_, ignored);
    }
    [[nodiscard]] const std::string& path() const { return path_; }

private:
    std::string path_;
};

constexpr Index width = 1024, layers = 24;

/// 24 matrices of 1024 x 1024: 100.8 MB.
struct Dense {
    static constexpr const char* name = "dense";
    static Stack<Linear<float>> network() {
        Philox random{1};
        std::vector<Linear<float>> list;
        for (Index l = 0; l < layers; ++l) list.emplace_back(width, width, random);
        return Stack<Linear<float>>{list};
    }
};
/// 11 convolutions of 512 x 512 channels, 3 x 3: 103.9 MB.
struct Convolutional {
    static constexpr const char* name = "convolutional";
    static Stack<Conv2d<float>> network() {
        Philox random{1};
        std::vector<Conv2d<float>> list;
        for (Index l = 0; l < 11; ++l)
            list.emplace_back(ImageShape{512, 4, 4},
                              Conv2dOptions{.channels = 512, .kernel = 3, .padding = 1}, random);
        return Stack<Conv2d<float>>{list};
    }
};

/// A file of a network's weights, written once.
template <class Kind>
const std::string& weights_file() {
    static const BenchmarkFile file(Kind::name);
    static const bool written = [] {
        save_safetensors(file.path(), Kind::network());
        return true;
    }();
    (void)written;
    return file.path();
}

void count_bytes(benchmark::State& state, const std::string& path) {
    state.SetBytesProcessed(state.iterations() *
                            static_cast<std::int64_t>(std::filesystem::file_size(path)));
}

void read(const std::string& path, std::uint8_t* to, std::size_t size) {
    std::FILE* const file = std::fopen(path.c_str(), "rb");
    const bool is_read = file && std::fread(to, 1, size, file) == size;
    if (file) std::fclose(file);
    if (!is_read) throw std::runtime_error("the file cannot be read: " + path);
}

enum class Memory { fresh, ready };

template <class Kind, Memory memory>
void BM_ReadAndCopy(benchmark::State& state) {
    const std::string& path = weights_file<Kind>();
    const std::size_t size = std::filesystem::file_size(path);
    std::vector<std::uint8_t> ready(size), copy(size);
    for (auto _ : state) {
        std::unique_ptr<std::uint8_t[]> fresh;
        std::uint8_t* bytes = ready.data();
        if (memory == Memory::fresh) {
            fresh.reset(new std::uint8_t[size]);
            bytes = fresh.get();
        }
        read(path, bytes, size);
        std::memcpy(copy.data(), bytes, size);
        benchmark::DoNotOptimize(copy.data());
        benchmark::ClobberMemory();
    }
    count_bytes(state, path);
}

template <class Kind>
void BM_Load(benchmark::State& state) {
    const std::string& path = weights_file<Kind>();
    auto network = Kind::network();
    for (auto _ : state) {
        load_safetensors(path, network);
        benchmark::ClobberMemory();
    }
    count_bytes(state, path);
}

/// The bytes of a file, without writing it.
template <class Kind>
void BM_Save(benchmark::State& state) {
    const auto network = Kind::network();
    for (auto _ : state)
        benchmark::DoNotOptimize(detail::safetensors_bytes(network, {}, {}).data());
    count_bytes(state, weights_file<Kind>());
}

/// One array of 100 MB, as it lies in memory.
template <bool is_archive>
const std::string& array_file() {
    static const BenchmarkFile file(is_archive ? "npz" : "npy");
    static const bool written = [] {
        const Matrix<float> matrix = Matrix<float>::Random(width, layers * width);
        if (is_archive)
            save_npz(file.path(), {{"a", matrix}});
        else
            save_npy(file.path(), matrix);
        return true;
    }();
    (void)written;
    return file.path();
}
void BM_LoadNpy(benchmark::State& state) {
    for (auto _ : state)
        benchmark::DoNotOptimize(load_npy<float>(array_file<false>()).data());
    count_bytes(state, array_file<false>());
}
void BM_LoadNpz(benchmark::State& state) {
    for (auto _ : state)
        benchmark::DoNotOptimize(NpzFile{array_file<true>()}.matrix<float>("a").data());
    count_bytes(state, array_file<true>());
}

template <class Function>
void add(const std::string& name, Function* function) {
    benchmark::RegisterBenchmark(name.c_str(), function)->Unit(benchmark::kMillisecond);
}
template <class Kind>
void add_kind(std::vector<Ratio>& ratios) {
    const std::string kind = Kind::name;
    add("BM_ReadAndCopy/" + kind, BM_ReadAndCopy<Kind, Memory::fresh>);
    add("BM_ReadAndCopyInPlace/" + kind, BM_ReadAndCopy<Kind, Memory::ready>);
    add("BM_Load/" + kind, BM_Load<Kind>);
    add("BM_Save/" + kind, BM_Save<Kind>);
    const auto claim = [&](const std::string& what, const std::string& peer, double limit) {
        ratios.push_back({"time to load " + kind + " weights over " + what, peer + kind,
                          {"BM_Load/" + kind}, 0, 1, limit});
    };
    claim("reading them once and copying them once", "BM_ReadAndCopy/", 1.3);
    claim("the same in memory that is there already", "BM_ReadAndCopyInPlace/", 0);
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<Ratio> ratios;
    add_kind<Dense>(ratios);
    add_kind<Convolutional>(ratios);
    add("BM_LoadNpy", BM_LoadNpy);
    add("BM_LoadNpz", BM_LoadNpz);
    return run_benchmarks(argc, argv, ratios);
}
