// SPDX-License-Identifier: MIT
//
// One residual block, y = x + relu(W x + b), W [width x width], x [width x columns]: in one pass by
// the library; Eigen's product W x alone, with nothing else done; the block by Eigen; a plain loop.
// "flop" counts the product's multiply-adds as two each, and nothing else. BM_MultiplyAddPeak is
// the ceiling of one core. Where LIBXSMM was found, the product alone by its kernel for that very
// shape, generated at run time, with the vector instructions that this program is compiled for.
#include <stochastic_depth/types.hpp>

#include <benchmark/benchmark.h>
#ifdef STOCHASTIC_DEPTH_HAS_LIBXSMM
#include <libxsmm.h>
#endif

#include "multiply_add_peak.hpp"
#include "ratio_reporter.hpp"
#include "residual_network.hpp"

namespace {

using Eigen::Dynamic;
using Eigen::Index;

/// x and W for one benchmark, and room for y.
template <class Scalar, int Width>
struct Problem {
    explicit Problem(const benchmark::State& state)
        : width(state.range(0)),
          columns(state.range(1)),
          layer(dense_layer<Scalar, Width>(width, random)),
          x(Matrix::Random(width, columns)),
          y(Matrix::Zero(width, columns)) {}

    [[nodiscard]] double flops() const {
        return 2.0 * static_cast<double>(width * width * columns);
    }

    using Matrix = Eigen::Matrix<Scalar, Width, Dynamic>;
    stochastic_depth::Philox random{2026};
    Index width;
    Index columns;
    Dense<Scalar, Width> layer;
    Matrix x;
    Matrix y;
};

template <class Scalar, int Width, class Body>
void measure(benchmark::State& state, Problem<Scalar, Width>& problem, const Body& body) {
    for (auto _ : state) {
        body();
        benchmark::DoNotOptimize(problem.y.data());
        benchmark::ClobberMemory();
    }
    count_flops(state, problem.flops());
}

template <class Scalar, int Width = Dynamic>
void fused_block(benchmark::State& state) {
    Problem<Scalar, Width> problem{state};
    const auto block = residual_block(problem.layer);
    // As a caller has them: of a size known at run time.
    const stochastic_depth::Matrix<Scalar> x = problem.x;
    stochastic_depth::Matrix<Scalar> y = problem.y;
    measure(state, problem, [&] {
        block.forward(x, y);
        benchmark::DoNotOptimize(y.data());
    });
}

template <class Scalar, int Width = Dynamic>
void eigen_product(benchmark::State& state) {
    Problem<Scalar, Width> problem{state};
    const auto& w = problem.layer.weights();
    measure(state, problem, [&] { problem.y.noalias() = w * problem.x; });
}

/// Eigen's product for small matrices, which it uses of its own accord for the smallest only.
template <class Scalar, int Width>
void eigen_lazy_product(benchmark::State& state) {
    Problem<Scalar, Width> problem{state};
    const auto& w = problem.layer.weights();
    measure(state, problem, [&] { problem.y.noalias() = w.lazyProduct(problem.x); });
}

template <class Scalar, int Width = Dynamic>
void eigen_block(benchmark::State& state) {
    Problem<Scalar, Width> problem{state};
    const auto& w = problem.layer.weights();
    const auto& b = problem.layer.bias();
    measure(state, problem, [&] {
        problem.y.noalias() = w * problem.x;
        problem.y = (problem.y.colwise() + b).cwiseMax(Scalar(0)) + problem.x;
    });
}

template <class Scalar>
void plain_loop(benchmark::State& state) {
    Problem<Scalar, Dynamic> problem{state};
    measure(state, problem, [&] {
        plain_block(problem.layer, problem.x, problem.y, [](Index) { return Scalar(1); });
    });
}

#ifdef STOCHASTIC_DEPTH_HAS_LIBXSMM
void libxsmm_product(benchmark::State& state) {
    Problem<float, Dynamic> problem{state};
    const auto width = static_cast<int>(problem.width), columns = static_cast<int>(problem.columns);
    const float factor = 1, onto = 0;
    const int plain = LIBXSMM_GEMM_FLAG_NONE, no_prefetch = LIBXSMM_GEMM_PREFETCH_NONE;
    const libxsmm_smmfunction product = libxsmm_smmdispatch(
        width, columns, width, &width, &width, &width, &factor, &onto, &plain, &no_prefetch);
    if (!product) return state.SkipWithError("LIBXSMM has no kernel for this machine");
    const float* const w = problem.layer.weights().data();
    measure(state, problem, [&] { product(w, problem.x.data(), problem.y.data()); });
}
#endif

using Function = void (*)(benchmark::State&);

void add(const char* family, Function function, const std::vector<std::int64_t>& widths,
         const std::vector<std::int64_t>& columns) {
    benchmark::RegisterBenchmark(family, function)
        ->ArgNames({"width", "columns"})
        ->ArgsProduct({widths, columns});
}

template <int Width>
void add_fixed_width() {
    const std::vector<std::int64_t> columns{1, 6, 60, 64, 120};
    add("BM_FusedBlockFixed", fused_block<float, Width>, {Width}, columns);
    add("BM_EigenProductFixed", eigen_product<float, Width>, {Width}, columns);
    add("BM_EigenLazyProductFixed", eigen_lazy_product<float, Width>, {Width}, columns);
    add("BM_EigenBlockFixed", eigen_block<float, Width>, {Width}, columns);
}

void add_all() {
    benchmark::RegisterBenchmark("BM_MultiplyAddPeak", multiply_add_peak<float>);
    benchmark::RegisterBenchmark("BM_MultiplyAddPeakDouble", multiply_add_peak<double>);
    const auto add_widths = [](const std::vector<std::int64_t>& widths,
                               const std::vector<std::int64_t>& columns) {
        add("BM_FusedBlock", fused_block<float>, widths, columns);
        add("BM_EigenProduct", eigen_product<float>, widths, columns);
        add("BM_EigenBlock", eigen_block<float>, widths, columns);
        add("BM_PlainLoop", plain_loop<float>, widths, columns);
    };
    add_widths({4, 8, 16, 32}, {1, 6, 60, 64, 120});
    add_widths({64, 128, 256}, {1, 6, 60, 120});
#ifdef STOCHASTIC_DEPTH_HAS_LIBXSMM
    libxsmm_init();  // Before the choice, which it would undo.
    constexpr bool avx512 = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32;
    libxsmm_set_target_archid(avx512 ? LIBXSMM_X86_AVX512_CORE : LIBXSMM_X86_AVX2);
    add("BM_LibxsmmProduct", libxsmm_product, {16, 32, 64, 128, 256}, {1, 60});
#endif
    add("BM_FusedBlockDouble", fused_block<double>, {64, 128, 256}, {60});
    add("BM_EigenProductDouble", eigen_product<double>, {64, 128, 256}, {60});
    add("BM_EigenBlockDouble", eigen_block<double>, {64, 128, 256}, {60});
    add("BM_PlainLoopDouble", plain_loop<double>, {64, 128, 256}, {60});
    add_fixed_width<4>();
    add_fixed_width<8>();
    add_fixed_width<16>();
    add_fixed_width<32>();
}

[[nodiscard]] std::vector<Ratio> ratios() {
    const auto at = [](const char* family, long width, long columns) {
        return name({family, {{"width", width}, {"columns", columns}}});
    };
    const auto where = [](long width, long columns) {
        return " width " + std::to_string(width) + " columns " + std::to_string(columns);
    };
    const auto target = [](long width, long columns) {
        if (columns == 1) return width >= 32 ? 1.1 : 0.0;
        if (columns == 6) return width >= 64 ? 1.8 : 0.0;
        if (columns == 60) return width == 64 ? 1.4 : width == 128 ? 1.2 : width == 256 ? 1.1 : 0.0;
        return 0.0;
    };
    std::vector<Ratio> list;
    for (const long width : {4, 8, 16, 32, 64, 128, 256})
        for (const long columns : {1, 6, 60, 120}) {
            const std::string subject = at("BM_FusedBlock", width, columns);
            list.push_back({"fused block / Eigen's product alone" + where(width, columns),
                            subject,
                            {at("BM_EigenProduct", width, columns)},
                            target(width, columns)});
        }
    for (const long width : {16, 32, 64, 128, 256})
        for (const long columns : {1, 60})
            list.push_back({"fused block / LIBXSMM's product alone" + where(width, columns),
                            at("BM_FusedBlock", width, columns),
                            {at("BM_LibxsmmProduct", width, columns)},
                            columns == 60 ? 1.0 : width <= 32 ? 0.8 : 0.0});
    for (const long width : {64, 128, 256})
        list.push_back({"fused block / Eigen's product alone, double" + where(width, 60),
                        at("BM_FusedBlockDouble", width, 60),
                        {at("BM_EigenProductDouble", width, 60)}});
    for (const long width : {4, 8, 16, 32})
        for (const long columns : {1, 6, 60, 64, 120})
            list.push_back({"compile-time over run-time," + where(width, columns),
                            at("BM_FusedBlockFixed", width, columns),
                            {at("BM_FusedBlock", width, columns)},
                            width == 8 && columns == 64 ? 2.5 : 0.0});
    for (const long width : {4, 8, 16, 32})
        list.push_back(
            {"fused block / Eigen's product alone, compile-time" + where(width, 64),
             at("BM_FusedBlockFixed", width, 64),
             {at("BM_EigenProductFixed", width, 64), at("BM_EigenLazyProductFixed", width, 64)},
             1.2});
    return list;
}

}  // namespace

int main(int argc, char** argv) {
    add_all();
    return run_benchmarks(argc, argv, ratios());
}
