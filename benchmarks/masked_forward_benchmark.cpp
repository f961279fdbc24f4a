// SPDX-License-Identifier: MIT
//
// Masked passes through L residual layers, x [width x columns], linear decay to 0.5:
//     EveryMask    each of the 2^L masks in turn
//     FullDepth    the mask that keeps every layer
//     RandomMasks  one mask for the whole batch, masks drawn beforehand
//     SampleMasks  one mask for each sample, masks drawn beforehand
// MaskedForward is the library. PlainLoop computes every layer in plain loops and multiplies its
// branch by the mask's bit. EigenProducts is Eigen's W_l x for the layers and columns that the
// masks keep, with nothing else done: no bias, no activation, no addition, and no gathering where
// samples differ.
//
// AnyLayer is the library with every block behind an AnyLayer: what it costs not to know its type.
//
// An iteration passes all the masks of its case; "s/pass" is the time for one of them. "flop"
// counts the products of the kept layers, also for the plain loop, which multiplies more.
#include <stochastic_depth/layers/composition/any_layer.hpp>
#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>

#include <benchmark/benchmark.h>

#include <cstdint>
#include <type_traits>

#include "ratio_reporter.hpp"
#include "residual_network.hpp"

namespace {

using namespace stochastic_depth;
using Eigen::Dynamic;

constexpr Index random_passes = 16;

std::vector<SurvivalMask> every_mask(Index depth, Index) {
    std::vector<SurvivalMask> masks;
    for (std::uint64_t bits = 0; bits < std::uint64_t{1} << depth; ++bits) {
        masks.push_back(SurvivalMask::none(depth));
        masks.back().set_word(0, bits);
    }
    return masks;
}

std::vector<SurvivalMask> full_depth(Index depth, Index) { return {SurvivalMask::all(depth)}; }

std::vector<SurvivalMask> random_masks(Index depth, Index) {
    const MaskSampler sampler{linear_decay(depth, 0.5), 42};
    std::vector<SurvivalMask> masks;
    for (std::uint64_t step = 0; step < random_passes; ++step)
        masks.push_back(sampler.sample(step));
    return masks;
}

std::vector<SurvivalMasks> sample_masks(Index depth, Index columns) {
    const MaskSampler sampler{linear_decay(depth, 0.5), 42};
    std::vector<SurvivalMasks> masks;
    for (std::uint64_t step = 0; step < random_passes; ++step)
        masks.push_back(sampler.sample(step, columns));
    return masks;
}

/// How the two kinds of mask answer the same questions.
bool keeps(const SurvivalMask& mask, Index l, Index) { return mask[l]; }
bool keeps(const SurvivalMasks& masks, Index l, Index j) { return masks(l, j); }
Index kept_columns(const SurvivalMask& mask, Index l, Index columns) {
    return mask[l] ? columns : 0;
}
Index kept_columns(const SurvivalMasks& masks, Index l, Index) { return masks.count(l); }

/// The case that a benchmark's arguments name.
template <int Width, class Mask>
struct Problem {
    Problem(const benchmark::State& state, std::vector<Mask> (*draw)(Index, Index))
        : depth(state.range(0)),
          width(state.range(1)),
          columns(state.range(2)),
          layers(dense_layers<float, Width>(depth, width)),
          masks(draw(depth, columns)),
          x(Matrix<float>::Random(width, columns)),
          y(Matrix<float>::Zero(width, columns)) {}

    void report(benchmark::State& state) const {
        Index kept = 0;
        for (const Mask& mask : masks)
            for (Index l = 0; l < depth; ++l) kept += kept_columns(mask, l, columns);
        count_flops(state, 2.0 * static_cast<double>(width * width * kept));
        state.counters["s/pass"] = benchmark::Counter(
            static_cast<double>(masks.size()),
            benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
    }

    Index depth;
    Index width;
    Index columns;
    std::vector<Dense<float, Width>> layers;
    std::vector<Mask> masks;
    Matrix<float> x;
    Matrix<float> y;
};

template <int Width, auto draw>
using ProblemOf =
    Problem<Width, typename std::invoke_result_t<decltype(draw), Index, Index>::value_type>;

template <class Network, class AProblem>
void pass_all(benchmark::State& state, const Network& network, AProblem& problem) {
    for (auto _ : state)
        for (const auto& mask : problem.masks) {
            masked_forward(network, problem.x, mask, problem.y);
            benchmark::DoNotOptimize(problem.y.data());
            benchmark::ClobberMemory();
        }
    problem.report(state);
}

template <auto draw, int Width = Dynamic>
void run_network(benchmark::State& state) {
    ProblemOf<Width, draw> problem{state, draw};
    pass_all(state, residual_network(problem.layers), problem);
}

template <auto draw>
void run_any_layers(benchmark::State& state) {
    ProblemOf<Dynamic, draw> problem{state, draw};
    const auto known = residual_network(problem.layers);
    const std::vector<AnyLayer<float>> blocks(known.layers().begin(), known.layers().end());
    pass_all(state, Stack{blocks}, problem);
}

template <auto draw>
void plain_loop(benchmark::State& state) {
    ProblemOf<Dynamic, draw> problem{state, draw};
    for (auto _ : state)
        for (const auto& mask : problem.masks) {
            problem.y = problem.x;
            Index l = 0;
            for (const auto& layer : problem.layers) {
                plain_block(layer, problem.y, problem.y,
                            [&](Index j) { return static_cast<float>(keeps(mask, l, j)); });
                ++l;
            }
            benchmark::DoNotOptimize(problem.y.data());
            benchmark::ClobberMemory();
        }
    problem.report(state);
}

template <auto draw, int Width = Dynamic>
void eigen_products(benchmark::State& state) {
    ProblemOf<Width, draw> problem{state, draw};
    struct Product {
        const Dense<float, Width>* layer;
        Index columns;
    };
    std::vector<Product> products;
    for (const auto& mask : problem.masks)
        for (Index l = 0; l < problem.depth; ++l)
            if (const Index kept = kept_columns(mask, l, problem.columns); kept > 0)
                products.push_back({&problem.layers[static_cast<std::size_t>(l)], kept});
    using Activations = Eigen::Matrix<float, Width, Dynamic>;
    const Activations x = problem.x;
    Activations y = problem.y;
    for (auto _ : state)
        for (const Product& product : products) {
            y.leftCols(product.columns).noalias() =
                product.layer->weights() * x.leftCols(product.columns);
            benchmark::DoNotOptimize(y.data());
            benchmark::ClobberMemory();
        }
    problem.report(state);
}

using Arguments = std::vector<std::int64_t>;

/// A kind of mask, and the sizes that it is measured at.
struct MaskCase {
    std::string masks;
    std::int64_t depth;
    Arguments columns;
};
const MaskCase every{"EveryMask", 8, {1, 32}};
const MaskCase full{"FullDepth", 12, {1, 32, 128}};
const MaskCase random_for_all{"RandomMasks", 12, {1, 32, 128}};
const MaskCase random_for_each{"SampleMasks", 12, {1, 32, 128}};

const Arguments all_widths{8, 16, 64, 128, 256};

template <auto draw>
void add_case(const MaskCase& part) {
    const auto add = [&](const std::string& family, void (*function)(benchmark::State&),
                         const Arguments& widths) {
        benchmark::RegisterBenchmark((family + part.masks).c_str(), function)
            ->ArgNames({"depth", "width", "columns"})
            ->ArgsProduct({{part.depth}, widths, part.columns});
    };
    add("BM_MaskedForward", run_network<draw>, all_widths);
    add("BM_EigenProducts", eigen_products<draw>, all_widths);
    add("BM_PlainLoop", plain_loop<draw>, all_widths);
    add("BM_AnyLayer", run_any_layers<draw>, {64});
    add("BM_MaskedForwardFixed", run_network<draw, 8>, {8});
    add("BM_EigenProductsFixed", eigen_products<draw, 8>, {8});
}

void add_all() {
    add_case<every_mask>(every);
    add_case<full_depth>(full);
    add_case<random_masks>(random_for_all);
    add_case<sample_masks>(random_for_each);
}

void add_ratios(const MaskCase& part, std::vector<Ratio>& list) {
    const auto at = [&](const std::string& family, long width, long columns) {
        return name(
            {family + part.masks, {{"depth", part.depth}, {"width", width}, {"columns", columns}}});
    };
    const auto where = [&](long width, long columns) {
        return ", " + part.masks + " width " + std::to_string(width) + " columns " +
               std::to_string(columns);
    };
    const std::vector<std::pair<std::string, std::string>> peers{
        {"BM_EigenProducts", "Eigen's products alone"}, {"BM_PlainLoop", "plain loop"}};
    for (const auto& [family, claim] : peers)
        for (const long width : all_widths)
            for (const long columns : part.columns)
                list.push_back({"masked forward / " + claim + where(width, columns),
                                at("BM_MaskedForward", width, columns),
                                {at(family, width, columns)},
                                &part == &random_for_each && family == "BM_EigenProducts" &&
                                        width == 8 && columns >= 32
                                    ? 0.8
                                    : 0.0});
    for (const long columns : part.columns)
        list.push_back({"AnyLayer / known types" + where(64, columns),
                        at("BM_AnyLayer", 64, columns),
                        {at("BM_MaskedForward", 64, columns)}});
    for (const long columns : part.columns)
        list.push_back({"compile-time / run-time width" + where(8, columns),
                        at("BM_MaskedForwardFixed", 8, columns),
                        {at("BM_MaskedForward", 8, columns)}});
}

[[nodiscard]] std::vector<Ratio> ratios() {
    std::vector<Ratio> list;
    for (const MaskCase* const part : {&every, &full, &random_for_all, &random_for_each})
        add_ratios(*part, list);
    return list;
}

}  // namespace

int main(int argc, char** argv) {
    add_all();
    return run_benchmarks(argc, argv, ratios());
}
