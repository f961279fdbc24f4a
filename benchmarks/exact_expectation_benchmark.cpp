// SPDX-License-Identifier: MIT
//
// The exact expectation over all 2^L masks of L residual layers, linear decay to 0.5: 2^L - 1 layer
// evaluations for each input column. ExactExpectation is the whole computation: products, biases,
// activations, additions, mean and variance. EigenProducts is Eigen's W_l x for the same
// evaluations in blocks of `block` columns, with nothing else done: the best block counts.
// PlainEnumeration passes each mask by itself and sums with the weights P(S).
//
// Sensitivities is the same with all L derivatives by the survival probabilities.
//
// One thread's CPU time, except for BM_ExactExpectationThreads: real time.
// "flop" counts the products of the 2^L - 1 evaluations, also for the plain enumeration, which
// needs more.
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/exact_sensitivity.hpp>

#include <benchmark/benchmark.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "multiply_add_peak.hpp"
#include "ratio_reporter.hpp"
#include "residual_network.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::Dynamic;

constexpr std::int64_t blocks_of_columns[] = {32, 48, 64, 96, 128, 192, 256};

[[nodiscard]] double evaluations(Index depth, Index batch) {
    return (std::ldexp(1.0, static_cast<int>(depth)) - 1) * static_cast<double>(batch);
}

void count_products(benchmark::State& state, Index depth, Index width, Index batch) {
    count_flops(state, 2.0 * static_cast<double>(width * width) * evaluations(depth, batch));
}

template <int Width = Dynamic>
void exact_expectation_on(unsigned threads, benchmark::State& state) {
    const Index depth = state.range(0), width = state.range(1), batch = state.range(2);
    const auto network = residual_network(dense_layers<float, Width>(depth, width));
    const Matrix<float> x = Matrix<float>::Random(width, batch);
    const ExactExpectation expectation{{.threads = threads}};
    for (auto _ : state) {
        auto result = expectation(network, x);
        benchmark::DoNotOptimize(result.mean.data());
        benchmark::DoNotOptimize(result.variance.data());
        benchmark::ClobberMemory();
    }
    count_products(state, depth, width, batch);
}

template <int Width = Dynamic>
void exact_expectation(benchmark::State& state) {
    exact_expectation_on<Width>(1, state);
}

void exact_expectation_threads(benchmark::State& state) {
    exact_expectation_on(static_cast<unsigned>(state.range(3)), state);
}

void sensitivities(benchmark::State& state) {
    const Index depth = state.range(0), width = state.range(1), batch = state.range(2);
    const auto network = residual_network(dense_layers<float>(depth, width));
    const Matrix<float> x = Matrix<float>::Random(width, batch);
    for (auto _ : state) {
        auto result = ExactSensitivity{}(network, x);
        benchmark::DoNotOptimize(result.by_layer.values().data());
        benchmark::ClobberMemory();
    }
    count_products(state, depth, width, batch);
}

/// Block k multiplies by the layer that a depth-first walk over a binary tree visits k-th, so that
/// Eigen finds the weights as warm as the library does: the last layer's every other time, and so
/// on. It reads and writes the same two blocks throughout.
template <int Width = Dynamic>
void eigen_products(benchmark::State& state) {
    const Index depth = state.range(0), width = state.range(1), batch = state.range(2);
    const Index block = state.range(3);
    const auto layers = dense_layers<float, Width>(depth, width);
    using Activations = Eigen::Matrix<float, Width, Dynamic>;
    const Activations x = Activations::Random(width, block);
    Activations y = Activations::Zero(width, block);
    const auto columns = static_cast<Index>(evaluations(depth, batch));
    for (auto _ : state) {
        std::uint64_t k = 0;
        for (Index first = 0; first < columns; first += block) {
            const auto height = static_cast<std::size_t>(std::countr_zero(++k)) % layers.size();
            const auto& weights = layers[layers.size() - 1 - height].weights();
            const Index count = std::min(block, columns - first);
            y.leftCols(count).noalias() = weights * x.leftCols(count);
            benchmark::DoNotOptimize(y.data());
            benchmark::ClobberMemory();
        }
    }
    count_products(state, depth, width, batch);
}

void plain_enumeration(benchmark::State& state) {
    const Index depth = state.range(0), width = state.range(1), batch = state.range(2);
    const auto network = residual_network(dense_layers<float>(depth, width));
    const Eigen::VectorXd p = network.survival_probabilities();
    const Matrix<float> x = Matrix<float>::Random(width, batch);
    Matrix<float> y(width, batch);
    SurvivalMask mask = SurvivalMask::none(depth);
    for (auto _ : state) {
        Eigen::MatrixXd mean = Eigen::MatrixXd::Zero(width, batch);
        for (std::uint64_t bits = 0; bits < std::uint64_t{1} << depth; ++bits) {
            mask.set_word(0, bits);
            masked_forward(network, x, mask, y);
            mean += probability(mask, p) * y.cast<double>();
        }
        benchmark::DoNotOptimize(mean.data());
        benchmark::ClobberMemory();
    }
    count_products(state, depth, width, batch);
}

/// Sizes that take about the same time, and those that are claimed.
struct SizeCase {
    long depth;
    long width;
    long batch;
    /// Against Eigen's products alone, and as a share of the multiply-add peak; 0: no claim.
    double target;
    double share_of_peak;
};
constexpr SizeCase sizes[] = {
    {18, 8, 1, 0, 0},        {18, 16, 1, 0, 0.45}, {18, 64, 1, 1.2, 0.75}, {16, 128, 1, 1.1, 0.75},
    {14, 256, 1, 1.0, 0.75}, {12, 64, 1, 0, 0},    {12, 64, 64, 0, 0},     {16, 64, 1, 0, 0}};
constexpr SizeCase sensitivity_size = sizes[7];

auto* add(const char* family, void (*function)(benchmark::State&),
          const std::vector<std::string>& argument_names,
          const std::vector<std::vector<std::int64_t>>& cases) {
    auto* const added = benchmark::RegisterBenchmark(family, function);
    for (const auto& arguments : cases) added->Args(arguments);
    return added->ArgNames(argument_names)->Unit(benchmark::kMillisecond);
}

void add_all() {
    std::vector<std::vector<std::int64_t>> library, threaded, eigen;
    for (const auto& [depth, width, batch, target, share] : sizes) {
        library.push_back({depth, width, batch});
        for (const long threads : {1, 2}) threaded.push_back({depth, width, batch, threads});
        for (const std::int64_t block : blocks_of_columns)
            eigen.push_back({depth, width, batch, block});
    }
    const std::vector<std::string> names{"depth", "width", "batch"};
    const std::vector<std::string> with_threads{"depth", "width", "batch", "threads"};
    const std::vector<std::string> with_block{"depth", "width", "batch", "block"};
    add("BM_ExactExpectation", exact_expectation<>, names, library);
    add("BM_ExactExpectationFixed", exact_expectation<8>, names, {{18, 8, 1}});
    add("BM_EigenProducts", eigen_products<>, with_block, eigen);
    add("BM_EigenProductsFixed", eigen_products<8>, with_block, {{18, 8, 1, 64}, {18, 8, 1, 256}});
    add("BM_Sensitivities", sensitivities, names,
        {{sensitivity_size.depth, sensitivity_size.width, sensitivity_size.batch}});
    benchmark::RegisterBenchmark("BM_MultiplyAddPeak", multiply_add_peak<float>);
    add("BM_PlainEnumeration", plain_enumeration, names, {{12, 64, 1}, {12, 64, 64}});
    add("BM_ExactExpectationThreads", exact_expectation_threads, with_threads, threaded)
        ->UseRealTime();
}

[[nodiscard]] std::vector<Ratio> ratios() {
    const auto at = [](const char* family, const SizeCase& size) {
        return Case{family, {{"depth", size.depth}, {"width", size.width}, {"batch", size.batch}}};
    };
    const auto with = [](Case benchmark, const char* argument, long value) {
        benchmark.arguments.emplace_back(argument, value);
        return name(benchmark);
    };
    const auto where = [](const SizeCase& size) {
        return ", depth " + std::to_string(size.depth) + " width " + std::to_string(size.width) +
               " batch " + std::to_string(size.batch);
    };
    std::vector<Ratio> list;
    for (const SizeCase& size : sizes) {
        std::vector<std::string> blocks;
        for (const std::int64_t block : blocks_of_columns)
            blocks.push_back(with(at("BM_EigenProducts", size), "block", block));
        list.push_back({"exact expectation / Eigen's products alone" + where(size),
                        name(at("BM_ExactExpectation", size)), blocks, size.target});
    }
    for (const SizeCase& size : sizes)
        list.push_back(share_of_peak("exact expectation / multiply-add peak" + where(size),
                                     name(at("BM_ExactExpectation", size)),
                                     2.0 * static_cast<double>(size.width * size.width) *
                                         evaluations(size.depth, size.batch),
                                     size.share_of_peak));
    list.push_back({"mean and variance with all derivatives / alone" + where(sensitivity_size),
                    name(at("BM_Sensitivities", sensitivity_size)),
                    {name(at("BM_ExactExpectation", sensitivity_size))},
                    1 / 1.35});
    for (const SizeCase& size : sizes)
        list.push_back({"exact expectation / plain enumeration" + where(size),
                        name(at("BM_ExactExpectation", size)),
                        {name(at("BM_PlainEnumeration", size))}});
    list.push_back({"exact expectation, compile-time / run-time width" + where(sizes[0]),
                    name(at("BM_ExactExpectationFixed", sizes[0])),
                    {name(at("BM_ExactExpectation", sizes[0]))},
                    3.0});
    for (const SizeCase& size : sizes) {
        const Case threaded = at("BM_ExactExpectationThreads", size);
        list.push_back({"exact expectation, two threads / one" + where(size),
                        with(threaded, "threads", 2),
                        {with(threaded, "threads", 1)},
                        size.width != 64 || size.batch != 1 ? 0.0
                        : size.depth == 18                  ? 1.75
                        : size.depth == 12                  ? 0.97
                                                            : 0.0});
    }
    return list;
}

}  // namespace

int main(int argc, char** argv) {
    add_all();
    return run_benchmarks(argc, argv, ratios());
}
