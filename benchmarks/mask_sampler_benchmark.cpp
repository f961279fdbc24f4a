// SPDX-License-Identifier: MIT
//
// Drawing one survival mask for each sample of a batch, linear decay to 0.5. "s/bit" is the time
// for one mask bit: L = 54 layers x batch samples are drawn in one iteration. Every sampler writes
// packed bits and allocates nothing.
#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/survival/schedules.hpp>

#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>

namespace {

using namespace stochastic_depth;

constexpr Index depth = 54;

void report_bits(benchmark::State& state, Index bits) {
    state.counters["s/bit"] = benchmark::Counter(
        static_cast<double>(bits),
        benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

/// The plain loop: bit(l) for each layer and sample, packed into words.
template <class Bit>
void plain_loop(benchmark::State& state, Bit bit) {
    const Index batch = state.range(0);
    SurvivalMasks masks{depth, batch};
    for (auto _ : state) {
        for (Index l = 0; l < depth; ++l)
            for (Index first = 0; first < batch; first += 64) {
                std::uint64_t word = 0;
                for (Index j = first; j < batch && j < first + 64; ++j)
                    word |= static_cast<std::uint64_t>(bit(l)) << (j - first);
                masks.set_word(l, static_cast<std::size_t>(first / 64), word);
            }
        benchmark::DoNotOptimize(masks.words(0).data());
        benchmark::ClobberMemory();
    }
    report_bits(state, depth * batch);
}

void BM_MaskSampler(benchmark::State& state) {
    const MaskSampler sampler{linear_decay(depth, 0.5), 42};
    SurvivalMasks masks{depth, state.range(0)};
    std::uint64_t step = 0;
    for (auto _ : state) {
        sampler.sample(step++, masks);
        benchmark::DoNotOptimize(masks.words(0).data());
        benchmark::ClobberMemory();
    }
    report_bits(state, depth * state.range(0));
}

void BM_MaskSamplerOneMask(benchmark::State& state) {
    const MaskSampler sampler{linear_decay(depth, 0.5), 42};
    SurvivalMask mask = SurvivalMask::none(depth);
    std::uint64_t step = 0;
    for (auto _ : state) {
        sampler.sample(step++, mask);
        benchmark::DoNotOptimize(mask.words().data());
        benchmark::ClobberMemory();
    }
    report_bits(state, depth);
}

/// What most programs do.
void BM_BernoulliDistribution(benchmark::State& state) {
    const Eigen::VectorXd p = linear_decay(depth, 0.5);
    std::mt19937_64 random{42};
    plain_loop(state, [&](Index l) { return std::bernoulli_distribution{p(l)}(random); });
}

/// One 64-bit word of the same engine, compared with p: the least that a loop over single
/// bits can do.
void BM_PlainLoopThreshold(benchmark::State& state) {
    const Eigen::VectorXd p = linear_decay(depth, 0.5);
    std::mt19937_64 random{42};
    plain_loop(state,
               [&](Index l) { return static_cast<double>(random() >> 11) * 0x1p-53 < p(l); });
}

/// The plain loop over the counter-based engine.
void BM_PlainLoopPhilox(benchmark::State& state) {
    const Eigen::VectorXd p = linear_decay(depth, 0.5);
    Philox random{42};
    plain_loop(state, [&](Index l) { return static_cast<double>(random()) * 0x1p-32 < p(l); });
}

BENCHMARK(BM_MaskSampler)->ArgName("batch")->Arg(1)->Arg(64)->Arg(256)->Arg(1024)->Arg(65536);
BENCHMARK(BM_MaskSamplerOneMask);
BENCHMARK(BM_BernoulliDistribution)->ArgName("batch")->Arg(1)->Arg(1024);
BENCHMARK(BM_PlainLoopThreshold)->ArgName("batch")->Arg(1024);
BENCHMARK(BM_PlainLoopPhilox)->ArgName("batch")->Arg(1024);

}  // namespace
