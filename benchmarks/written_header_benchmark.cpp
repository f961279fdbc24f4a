// SPDX-License-Identifier: MIT
// A network as a written header beside the library: one sample, and 64 of them, which the header takes
// one by one.
#include <benchmark/benchmark.h>

#include <stochastic_depth/masked_forward.hpp>

#include "width_128.hpp"
#include "width_32.hpp"
#include "width_64.hpp"
#include "width_8.hpp"
#include "written_header/network.hpp"

namespace {

namespace sd = stochastic_depth;
using sd::Index;

sd::Matrix<float> inputs(Index width, Index batch) {
    return sd::Matrix<float>::Constant(width, batch, 0.5F);
}

template <auto forward>
void BM_WrittenHeader(benchmark::State& state) {
    const Index width = state.range(0), batch = state.range(1);
    const sd::Matrix<float> x = inputs(width, batch);
    sd::Matrix<float> y(width, batch);
    for ([[maybe_unused]] auto _ : state) {
        for (Index j = 0; j < batch; ++j) forward(x.data() + j * width, y.data() + j * width);
        benchmark::ClobberMemory();
    }
}

void BM_Library(benchmark::State& state) {
    const Index width = state.range(0), batch = state.range(1);
    const auto network = network_of_width(width);
    const sd::SurvivalMask mask = sd::SurvivalMask::all(network.depth());
    const sd::Matrix<float> x = inputs(width, batch);
    sd::Matrix<float> y(width, batch);
    for ([[maybe_unused]] auto _ : state) {
        sd::masked_forward(network, x, mask, y);
        benchmark::ClobberMemory();
    }
}

void sizes(benchmark::internal::Benchmark* b, int width) {
    b->ArgNames({"width", "batch"})->Args({width, 1})->Args({width, 64});
}

BENCHMARK(BM_WrittenHeader<width_8::forward>)->Apply([](auto* b) { sizes(b, 8); });
BENCHMARK(BM_WrittenHeader<width_32::forward>)->Apply([](auto* b) { sizes(b, 32); });
BENCHMARK(BM_WrittenHeader<width_64::forward>)->Apply([](auto* b) { sizes(b, 64); });
BENCHMARK(BM_WrittenHeader<width_128::forward>)->Apply([](auto* b) { sizes(b, 128); });
BENCHMARK(BM_Library)->Apply([](auto* b) {
    for (const int width : {8, 32, 64, 128}) sizes(b, width);
});

}  // namespace
