// SPDX-License-Identifier: MIT
//
// The three products of a convolution by shape, 64 images, as shares of the multiply-add peak of one
// core: of the taps that are executed, those in the image. And a residual network of 20 layers on
// 32 x 32 x 3: forward, and a training step at full depth and with linear decay to 0.5.
#include <stochastic_depth/models/resnet.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <vector>

#include "multiply_add_peak.hpp"
#include "ratio_reporter.hpp"

namespace {

namespace sd = stochastic_depth;
using sd::Index;

/// A convolution of a residual network for 32 x 32 x 3 or 28 x 28 x 1.
struct Shape {
    long inputs, outputs, side, kernel, stride;

    [[nodiscard]] Case named(const char* family) const {
        return {family,
                {{"inputs", inputs},
                 {"outputs", outputs},
                 {"side", side},
                 {"kernel", kernel},
                 {"stride", stride}}};
    }
};

const std::vector<Shape> shapes{{16, 16, 32, 3, 1}, {16, 16, 28, 3, 1}, {32, 32, 16, 3, 1},
                                {64, 64, 8, 3, 1},  {64, 64, 7, 3, 1},  {16, 32, 32, 3, 2},
                                {32, 64, 16, 3, 2}, {3, 16, 32, 3, 1},  {1, 16, 28, 3, 1},
                                {16, 32, 32, 1, 2}, {64, 64, 8, 1, 1}};

constexpr Index images = 64;

/// Positions of a side that a window's taps fall on.
double taps(const Shape& s) {
    const sd::detail::WindowAxis axis =
        sd::detail::Window{s.kernel, s.stride, s.kernel / 2}.axis(s.side);
    double sum = 0;
    sd::detail::for_each_run(axis, [&](const sd::detail::WindowRun& run) {
        sum += static_cast<double>(run.count * (run.high - run.low));
    });
    return sum;
}

/// Multiply-adds of all images, as two each.
double flops(const Shape& s) {
    return 2.0 * static_cast<double>(images * s.inputs * s.outputs) * taps(s) * taps(s);
}

struct Problem {
    explicit Problem(const Shape& s)
        : layer({s.inputs, s.side, s.side},
                {.channels = s.outputs,
                 .kernel = s.kernel,
                 .stride = s.stride,
                 .padding = s.kernel / 2},
                random),
          x(sd::Matrix<float>::Random(layer.input_shape().size(), images)),
          y(sd::Matrix<float>::Random(layer.output_shape().size(), images)),
          gradient(layer.zero_gradient()) {}

    sd::Philox random{2026};
    sd::Conv2d<float> layer;
    sd::Matrix<float> x, y;
    sd::Conv2d<float>::Gradient gradient;
};

void forward(benchmark::State& state, const Shape& s) {
    Problem p{s};
    for (auto _ : state) {
        p.layer.forward(p.x, p.y);
        benchmark::ClobberMemory();
    }
    count_flops(state, flops(s));
}

/// The way back: by the weights alone, or by the input too.
template <bool by_input>
void back(benchmark::State& state, const Shape& s) {
    Problem p{s};
    const sd::Conv2d<float>::Record<sd::detail::Records> record{
        {p.x.data(), p.x.rows(), p.x.cols(), p.x.rows()}};
    for (auto _ : state) {
        sd::detail::SparePiece spare;
        sd::detail::GradientBatch<float> batch(sd::detail::Team::alone(), {&spare},
                                               sd::detail::const_view(p.y));
        if constexpr (by_input)
            sd::detail::backpropagate(p.layer, batch, record, p.gradient);
        else
            sd::detail::backpropagate(p.layer, batch, record, p.gradient, sd::detail::Discard{});
        benchmark::ClobberMemory();
    }
    count_flops(state, (by_input ? 2 : 1) * flops(s));
}

constexpr sd::ImageShape cifar{3, 32, 32};

/// Multiply-adds of a network's convolutions for an image, taps in the image alone.
double network_flops() {
    const auto of = [](const Shape& s) { return flops(s) / static_cast<double>(images); };
    return of({3, 16, 32, 3, 1}) + 6 * of({16, 16, 32, 3, 1}) + of({16, 32, 32, 3, 2}) +
           5 * of({32, 32, 16, 3, 1}) + of({32, 64, 16, 3, 2}) + 5 * of({64, 64, 8, 3, 1});
}

void network_forward(benchmark::State& state) {
    sd::Philox random{2026};
    const auto network = sd::resnet<float>({.input = cifar}, random);
    const sd::Matrix<float> x = sd::Matrix<float>::Random(cifar.size(), state.range(0));
    sd::Matrix<float> y(10, x.cols());
    for (auto _ : state) {
        network.forward(x, y);
        benchmark::ClobberMemory();
    }
    count_flops(state, static_cast<double>(x.cols()) * network_flops());
}

void network_step(benchmark::State& state) {
    sd::Philox random{2026};
    const double survival = static_cast<double>(state.range(0)) / 100;
    const auto network = sd::resnet<float>({.input = cifar, .final_survival = survival}, random);
    sd::TrainingStep step{
        network, sd::SoftmaxCrossEntropy<float>{}, {.mask_scope = sd::MaskScope::sample}};
    const sd::Matrix<float> x = sd::Matrix<float>::Random(cifar.size(), images);
    const Eigen::VectorXi labels = Eigen::VectorXi::LinSpaced(images, 0, 9);
    std::uint64_t t = 0;
    // The first steps find the memory that the later ones use again.
    while (t < 4) benchmark::DoNotOptimize(step.differentiate(network, x, labels, t++));
    for (auto _ : state) benchmark::DoNotOptimize(step.differentiate(network, x, labels, t++));
    if (survival == 1) count_flops(state, 3 * static_cast<double>(images) * network_flops());
}

}  // namespace

int main(int argc, char** argv) {
    benchmark::RegisterBenchmark("BM_MultiplyAddPeak", multiply_add_peak<float>);
    std::vector<Ratio> ratios;
    const auto share = [&](const std::string& what, const std::string& subject, double flops,
                           double target) {
        ratios.push_back(share_of_peak(what + ", share of the peak", subject, flops, target));
    };
    for (const Shape& s : shapes) {
        const bool is_common = s.kernel == 3 && s.stride == 1 && s.inputs >= 16;
        const auto add = [&](const char* what, const char* family, auto function, double factor,
                             double target) {
            const std::string subject = name(s.named(family));
            benchmark::RegisterBenchmark(subject.c_str(), function, s);
            share(what + subject.substr(subject.find('/')), subject, factor * flops(s),
                  is_common ? target : 0);
        };
        add("forward", "BM_Forward", forward, 1, 0.75);
        add("by the weights", "BM_ByWeights", back<false>, 1, 0.70);
        add("back", "BM_Back", back<true>, 2, 0.70);
    }
    benchmark::RegisterBenchmark("BM_NetworkForward", network_forward)
        ->ArgName("images")
        ->Arg(1)
        ->Arg(images)
        ->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark("BM_NetworkStep", network_step)
        ->ArgName("survival")
        ->Arg(100)
        ->Arg(50)
        ->Unit(benchmark::kMillisecond);
    share("network forward, 1 image", "BM_NetworkForward/images:1", network_flops(), 0);
    share("network forward, 64 images", "BM_NetworkForward/images:64", 64 * network_flops(), 0.70);
    share("training step, 64 images", "BM_NetworkStep/survival:100", 3 * 64 * network_flops(), 0);
    ratios.push_back({"a step with linear decay to 0.5, a mask for each sample / at full depth",
                      "BM_NetworkStep/survival:100",
                      {"BM_NetworkStep/survival:50"},
                      0,
                      1,
                      (9 * 1.0 - 5.0 * 0.5) / 9 + 0.04});
    return run_benchmarks(argc, argv, ratios);
}
