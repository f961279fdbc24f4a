// SPDX-License-Identifier: MIT
//
// The three products of a convolution by shape, 64 images, as shares of the multiply-add peak of one
// core: of the taps that are executed, those in the image. And a residual network of 20 layers on
// 32 x 32 x 3: forward, its exact expectation, and training steps at full depth and with linear
// decay to 0.5, their time, what they keep for the way back, and the peak of their memory.
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/models/resnet.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "multiply_add_peak.hpp"
#include "peak_memory.hpp"
#include "ratio_reporter.hpp"

namespace {

namespace sd = stochastic_depth;
using sd::Index;

/// A convolution of a residual network for 32 x 32 x 3 or 28 x 28 x 1, or one in groups.
struct Shape {
    long inputs, outputs, side, kernel, stride, groups = 1;

    [[nodiscard]] Case named(const char* family) const {
        Case result{family,
                    {{"inputs", inputs},
                     {"outputs", outputs},
                     {"side", side},
                     {"kernel", kernel},
                     {"stride", stride}}};
        if (groups > 1) result.arguments.emplace_back("groups", groups);
        return result;
    }
};

const std::vector<Shape> shapes{
    {16, 16, 32, 3, 1},     {16, 16, 28, 3, 1},    {32, 32, 16, 3, 1}, {64, 64, 8, 3, 1},
    {64, 64, 7, 3, 1},      {16, 32, 32, 3, 2},    {32, 64, 16, 3, 2}, {3, 16, 32, 3, 1},
    {1, 16, 28, 3, 1},      {16, 32, 32, 1, 2},    {64, 64, 8, 1, 1},  {64, 64, 16, 3, 1, 2},
    {64, 64, 16, 3, 1, 16}, {64, 64, 16, 3, 1, 64}};

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
    return 2.0 * static_cast<double>(images * s.inputs * s.outputs / s.groups) * taps(s) * taps(s);
}

struct Problem {
    explicit Problem(const Shape& s)
        : layer({s.inputs, s.side, s.side},
                {.channels = s.outputs,
                 .kernel = s.kernel,
                 .stride = s.stride,
                 .padding = s.kernel / 2,
                 .groups = s.groups},
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

void network_expectation(benchmark::State& state) {
    sd::Philox random{2026};
    const auto network = sd::resnet<float>({.input = cifar}, random);
    const sd::Matrix<float> x = sd::Matrix<float>::Random(cifar.size(), 1);
    const sd::ExactExpectation exact;
    sd::ExpectationResult<float> result;
    exact(network, x, result);
    for (auto _ : state) {
        exact(network, x, result);
        benchmark::ClobberMemory();
    }
}

/// Steps of a network, with masks or at full depth.
class NetworkSteps {
public:
    NetworkSteps(double survival, sd::MaskScope scope, unsigned threads, Index shards, Index batch)
        : network_(make(survival)),
          step_(network_, {}, {.mask_scope = scope, .threads = threads, .shards = shards}),
          x_(sd::Matrix<float>::Random(cifar.size(), batch)),
          labels_(Eigen::VectorXi::LinSpaced(batch, 0, 9)) {}

    sd::StepLedger operator()() { return step_.differentiate(network_, x_, labels_, t_++); }
    /// Of the last step.
    [[nodiscard]] std::size_t kept_bytes() const { return step_.cache_bytes(); }

private:
    [[nodiscard]] static sd::ResNet<float> make(double survival) {
        sd::Philox random{2026};
        return sd::resnet<float>({.input = cifar, .final_survival = survival}, random);
    }

    sd::ResNet<float> network_;
    sd::TrainingStep<sd::ResNet<float>, sd::SoftmaxCrossEntropy<float>> step_;
    sd::Matrix<float> x_;
    Eigen::VectorXi labels_;
    std::uint64_t t_ = 0;
};

constexpr int warm_steps = 4;
constexpr int measured_steps = 16;

void network_step(benchmark::State& state, double survival, sd::MaskScope scope,
                  unsigned threads, Index shards) {
    NetworkSteps step{survival, scope, threads, shards, images};
    // The first steps find the memory that the later ones use again.
    for (int t = 0; t < warm_steps; ++t) benchmark::DoNotOptimize(step());
    for (auto _ : state) benchmark::DoNotOptimize(step());
    if (survival == 1) count_flops(state, 3 * static_cast<double>(images) * network_flops());
}

/// How the peak of the process's memory grows: by a network and a forward pass, and then by a step.
void print_peak_memory() {
    sd::Philox random{2026};
    const double before = peak_memory();
    const auto network = sd::resnet<float>({.input = cifar}, random);
    const sd::Matrix<float> x = sd::Matrix<float>::Random(cifar.size(), images);
    sd::Matrix<float> y(10, images);
    network.forward(x, y);
    std::printf(
        "peak memory of a forward pass of %td images, network and images included: %.1f MiB\n",
        images, peak_memory() - before);
    NetworkSteps step{1, sd::MaskScope::sample, 1, 1, images};
    for (int t = 0; t < warm_steps; ++t) (void)step();
    std::printf("with a step at full depth: %.1f MiB, of which %.1f are kept for the way back\n",
                peak_memory() - before, static_cast<double>(step.kept_bytes()) / (1024.0 * 1024.0));
}

/// What is kept for the way back, beside the share of the layers that ran.
void print_memory() {
    NetworkSteps full{1, sd::MaskScope::sample, 1, 1, 8};
    (void)full();
    std::printf("kept for the way back at full depth: %.0f numbers for an image\n",
                static_cast<double>(full.kept_bytes()) / (8 * sizeof(float)));
    for (const auto& [name, scope] : {std::pair{"a mask for each sample", sd::MaskScope::sample},
                                      std::pair{"one mask for the batch", sd::MaskScope::batch}}) {
        NetworkSteps step{0.5, scope, 1, 1, 8};
        double bytes = 0, ran = 0;
        constexpr int steps = 16;
        for (int t = 0; t < steps; ++t) {
            const sd::StepLedger ledger = step();
            ran += ledger.layer_evaluations / ledger.full_depth_evaluations / steps;
            bytes += static_cast<double>(step.kept_bytes()) / steps;
        }
        const double share = bytes / static_cast<double>(full.kept_bytes());
        std::printf("with linear decay to 0.5, %s: %.3f of that, where %.3f of the blocks ran%s\n",
                    name, share, ran,
                    share > 1.1 * ran ? " (limit 1.1 times as much, MISSED)" : "");
    }
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
        const bool is_common = s.kernel == 3 && s.stride == 1 && s.inputs >= 16 && s.groups == 1;
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
    benchmark::RegisterBenchmark("BM_NetworkExpectation", network_expectation)
        ->Unit(benchmark::kMillisecond);
    const auto add_step = [](const char* subject, double survival, sd::MaskScope scope,
                             unsigned threads = 1, Index shards = 1) {
        return benchmark::RegisterBenchmark(subject, network_step, survival, scope, threads, shards)
            ->Unit(benchmark::kMillisecond);
    };
    add_step("BM_NetworkStep", 1, sd::MaskScope::sample);
    add_step("BM_NetworkStepBySample", 0.5, sd::MaskScope::sample);
    add_step("BM_NetworkStepByBatch", 0.5, sd::MaskScope::batch)
        ->Iterations(measured_steps);
    add_step("BM_NetworkStepTwoThreads", 1, sd::MaskScope::sample, 2)->UseRealTime();
    add_step("BM_NetworkStepTwoShards", 1, sd::MaskScope::sample, 2, 2)->UseRealTime();
    add_step("BM_NetworkStepTwoShardsBySample", 0.5, sd::MaskScope::sample, 2, 2)->UseRealTime();
    share("network forward, 1 image", "BM_NetworkForward/images:1", network_flops(), 0);
    share("network forward, 64 images", "BM_NetworkForward/images:64", 64 * network_flops(), 0.70);
    share("training step, 64 images", "BM_NetworkStep", 3 * 64 * network_flops(), 0);
    // Of the time at full depth: the expected share of the blocks, (9 - 5 0.5) / 9, and a little.
    constexpr double expected = (9 - 5 * 0.5) / 9;
    // One mask for the batch: the share that the masks of these steps keep.
    double kept = 0;
    const sd::MaskSampler sampler{sd::linear_decay(9, 0.5), 0};
    for (std::uint64_t t = warm_steps; t < warm_steps + measured_steps; ++t)
        kept += static_cast<double>(sampler.sample(t).count()) / (9 * measured_steps);
    const auto over = [&](const std::string& claim, const char* peer, const char* subject,
                          double limit) {
        ratios.push_back({claim, peer, {subject}, 0, 1, limit});
    };
    over("a step with linear decay to 0.5, a mask for each sample / at full depth",
         "BM_NetworkStep", "BM_NetworkStepBySample", expected + 0.04);
    over("a step with linear decay to 0.5, one mask for the batch / at full depth",
         "BM_NetworkStep", "BM_NetworkStepByBatch", kept + 0.03);
    over("exact expectation over 512 masks / one forward pass, 1 image",
         "BM_NetworkForward/images:1", "BM_NetworkExpectation", 60);
    const auto faster = [&](const std::string& claim, const char* subject, const char* peer,
                            double target) {
        ratios.push_back({claim, subject, {peer}, target});
    };
    faster("training step, two threads that share each layer / one thread",
           "BM_NetworkStepTwoThreads", "BM_NetworkStep", 0);
    faster("training step, two threads with a shard each / one thread", "BM_NetworkStepTwoShards",
           "BM_NetworkStep", 1.8);
    faster("the same with linear decay to 0.5, a mask for each sample",
           "BM_NetworkStepTwoShardsBySample", "BM_NetworkStepBySample", 1.8);
    print_peak_memory();
    print_memory();
    return run_benchmarks(argc, argv, ratios);
}
