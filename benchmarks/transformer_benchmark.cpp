// SPDX-License-Identifier: MIT
//
// Transformers for text: 6 blocks of two sublayers, width 64, 4 heads, feed-forward 256, pre-norm,
// beside the machine's multiply-add peak: the blocks' forward pass, and a block's parts by
// themselves; training steps at full depth and with survival 0.75; sequences of all lengths beside
// sequences of the longest; the exact expectation over all masks beside one forward pass.
//
// Multiply-adds of a position: 4 d^2 of the attention's products, 8 d^2 of the feed-forward ones,
// and 2 T d of scores and sums of values; of a training step three times as many.
#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/models/transformer.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "multiply_add_peak.hpp"
#include "ratio_reporter.hpp"

namespace {

namespace sd = stochastic_depth;
using sd::Index;
using Matrix = sd::Matrix<float>;
using Network = sd::TransformerClassifier<float>;

constexpr Index width = 64;
constexpr Index heads = 4;
constexpr Index feed_forward = 256;
constexpr Index blocks = 6;
constexpr Index vocabulary = 1000;
constexpr Index longest = 64;
constexpr double partial_survival = 0.75;

[[nodiscard]] Network make_network(Index blocks_ = blocks) {
    sd::Philox random{2026};
    return sd::transformer_classifier<float>({.vocabulary = vocabulary,
                                              .positions = longest,
                                              .width = width,
                                              .heads = heads,
                                              .feed_forward = feed_forward,
                                              .blocks = blocks_,
                                              .classes = 6,
                                              .final_survival = 0.5},
                                             random);
}
[[nodiscard]] const auto& blocks_of(const Network& network) {
    return std::get<2>(std::get<0>(network.layers()).layers());
}

struct Shape {
    long positions, sequences;

    [[nodiscard]] Case named(const char* family) const {
        return {family, {{"positions", positions}, {"sequences", sequences}}};
    }
    [[nodiscard]] double tokens() const { return static_cast<double>(positions * sequences); }
};
constexpr Shape shapes[] = {{16, 64}, {64, 32}, {16, 1}};

/// Floating-point operations, a multiply-add as two, for all positions.
[[nodiscard]] double projection_flops(const Shape& s) {
    return 2.0 * s.tokens() * static_cast<double>(4 * width * width);
}
[[nodiscard]] double core_flops(const Shape& s) {
    return 2.0 * s.tokens() * static_cast<double>(2 * s.positions * width);
}
[[nodiscard]] double feed_forward_flops(const Shape& s) {
    return 2.0 * s.tokens() * static_cast<double>(2 * width * feed_forward);
}
[[nodiscard]] double network_flops(const Shape& s) {
    return static_cast<double>(blocks) *
           (projection_flops(s) + core_flops(s) + feed_forward_flops(s));
}

/// Token ids, [longest x sequences], of all lengths from 1 to `longest` or of that.
[[nodiscard]] Matrix random_tokens(Index positions, Index sequences, bool all_lengths) {
    sd::Philox random{5};
    const auto below = [&](Index n) {
        return static_cast<Index>(random() % static_cast<std::uint32_t>(n));
    };
    Matrix tokens = Matrix::Constant(positions, sequences, -1.0F);
    for (Index j = 0; j < sequences; ++j) {
        const Index length = all_lengths ? 1 + below(positions) : positions;
        for (Index t = 0; t < length; ++t) tokens(t, j) = static_cast<float>(below(vocabulary));
    }
    return tokens;
}

template <class Layer>
void run_forward(benchmark::State& state, const Layer& layer, const Matrix& x) {
    Matrix y(layer.output_size(x.rows()), x.cols());
    layer.forward(x, y);
    for (auto _ : state) {
        layer.forward(x, y);
        benchmark::ClobberMemory();
    }
}

void forward(benchmark::State& state, const Shape& s) {
    const Network network = make_network();
    run_forward(state, blocks_of(network), Matrix::Random(width * s.positions, s.sequences));
    count_flops(state, network_flops(s));
}

/// Of what is between the two projections, head after head.
void attention_core(benchmark::State& state, const Shape& s) {
    const Index head_width = width / heads, tokens = s.positions * s.sequences;
    const Matrix projected = Matrix::Random(3 * width, tokens);
    Matrix context(width, tokens), terms(s.positions, 2);
    for (auto _ : state) {
        for (Index j = 0; j < s.sequences; ++j)
            for (Index h = 0; h < heads; ++h) {
                const float* const queries =
                    projected.data() + 3 * width * s.positions * j + h * head_width;
                sd::detail::attend(
                    sd::detail::Head<float>{queries, queries + width, queries + 2 * width,
                                            3 * width, head_width, s.positions, false},
                    context.data() + width * s.positions * j + h * head_width, width, terms.data(),
                    terms.data() + s.positions);
            }
        benchmark::ClobberMemory();
    }
    count_flops(state, core_flops(s));
}

void attention(benchmark::State& state, const Shape& s) {
    sd::Philox random{2026};
    const sd::MultiHeadAttention<float> layer{{.width = width, .heads = heads}, random};
    run_forward(state, layer, Matrix::Random(width * s.positions, s.sequences));
    count_flops(state, projection_flops(s) + core_flops(s));
}

/// Normalisation, product, GELU, product, addition.
void feed_forward_sublayer(benchmark::State& state, const Shape& s) {
    sd::Philox random{2026};
    const sd::Residual layer{sd::PerPosition{
        width,
        sd::Sequential{sd::LayerNorm<float>{width}, sd::Linear<float>{width, feed_forward, random},
                       sd::GELU<float>{}, sd::Linear<float>{feed_forward, width, random, 1.0}}}};
    run_forward(state, layer, Matrix::Random(width * s.positions, s.sequences));
    count_flops(state, feed_forward_flops(s));
}

template <class Layer>
void elementwise(benchmark::State& state, const Layer& layer, Index rows) {
    run_forward(state, layer, Matrix::Random(rows, 1024));
    state.counters["numbers"] = benchmark::Counter(static_cast<double>(rows * 1024),
                                                   benchmark::Counter::kIsIterationInvariantRate);
}

void lengths_forward(benchmark::State& state, bool all_lengths) {
    run_forward(state, make_network(), random_tokens(longest, 32, all_lengths));
}

void step(benchmark::State& state, const Shape& s, double survival, unsigned threads,
          Index shards, bool all_lengths) {
    const Network network = make_network();
    sd::TrainingStep<Network, sd::SoftmaxCrossEntropy<float>> training{
        network, {}, {.threads = threads, .shards = shards}};
    training.set_survival_probabilities(Eigen::VectorXd::Constant(network.depth(), survival));
    const Matrix x = random_tokens(s.positions, s.sequences, all_lengths);
    const Eigen::VectorXi labels = Eigen::VectorXi::LinSpaced(x.cols(), 0, 5);
    std::uint64_t t = 0;
    // The first steps find the memory that the later ones use again.
    while (t < 3) benchmark::DoNotOptimize(training.differentiate(network, x, labels, t++));
    for (auto _ : state) benchmark::DoNotOptimize(training.differentiate(network, x, labels, t++));
    if (survival == 1 && !all_lengths) count_flops(state, 3 * network_flops(s));
}

constexpr Index small_blocks = 4;

void small_forward(benchmark::State& state) {
    run_forward(state, make_network(small_blocks), random_tokens(16, 1, false));
}
void small_expectation(benchmark::State& state) {
    const Network network = make_network(small_blocks);
    const Matrix x = random_tokens(16, 1, false);
    const sd::ExactExpectation exact;
    sd::ExpectationResult<float> result;
    exact(network, x, result);
    for (auto _ : state) {
        exact(network, x, result);
        benchmark::ClobberMemory();
    }
}

}  // namespace

int main(int argc, char** argv) {
    benchmark::RegisterBenchmark("BM_MultiplyAddPeak", multiply_add_peak<float>);
    std::vector<Ratio> ratios;
    const auto add = [](const std::string& subject, auto function, auto... arguments) {
        return benchmark::RegisterBenchmark(subject.c_str(), function, arguments...)
            ->Unit(benchmark::kMicrosecond);
    };
    const auto add_share = [&](const char* what, const char* family, const Shape& s, auto function,
                               double flops, double target) {
        const std::string subject = name(s.named(family));
        add(subject, function, s);
        ratios.push_back(
            share_of_peak(what + subject.substr(subject.find('/')) + ", share of the peak", subject,
                          flops, target));
    };
    for (const Shape& s : shapes) {
        add_share("forward", "BM_Forward", s, forward, network_flops(s),
                  s.sequences == 1 ? 0 : (s.positions == 16 ? 0.60 : 0.65));
        add_share("attention", "BM_Attention", s, attention, projection_flops(s) + core_flops(s),
                  0);
        add_share("attention between the projections", "BM_AttentionCore", s, attention_core,
                  core_flops(s), 0);
        add_share("feed-forward sublayer", "BM_FeedForward", s, feed_forward_sublayer,
                  feed_forward_flops(s), 0);
    }
    add("BM_LayerNorm", elementwise<sd::LayerNorm<float>>, sd::LayerNorm<float>{width}, width);
    add("BM_GELU", elementwise<sd::GELU<float>>, sd::GELU<float>{}, feed_forward);

    const auto faster = [&](const std::string& claim, const std::string& subject,
                            const std::string& peer, double target) {
        ratios.push_back({claim, subject, {peer}, target});
    };
    for (const Shape& s : {shapes[0], shapes[1]}) {
        const std::string full = name(s.named("BM_Step")), part = name(s.named("BM_StepSampled")),
                          two = name(s.named("BM_StepTwoThreads")),
                          two_shards = name(s.named("BM_StepTwoShards"));
        add(full, step, s, 1.0, 1U, Index{1}, false);
        add(part, step, s, partial_survival, 1U, Index{1}, false);
        add(two, step, s, 1.0, 2U, Index{1}, false)->UseRealTime();
        add(two_shards, step, s, 1.0, 2U, Index{2}, false)->UseRealTime();
        const std::string label = full.substr(full.find('/'));
        ratios.push_back(share_of_peak("training step" + label + ", share of the peak", full,
                                       3 * network_flops(s)));
        ratios.push_back({"a step with survival 0.75 / at full depth" + label,
                          full,
                          {part},
                          0,
                          1,
                          partial_survival + 0.05});
        faster("training step, two threads that share each layer / one thread" + label, two, full,
               0);
        faster("training step, two threads with a shard each / one thread" + label, two_shards,
               full, 1.8);
    }
    add("BM_LengthsForward/full", lengths_forward, false);
    add("BM_LengthsForward/uniform", lengths_forward, true);
    add("BM_LengthsStep/uniform", step, shapes[1], 1.0, 1U, Index{1}, true);
    faster("forward, lengths from 1 to 64 / all of 64", "BM_LengthsForward/uniform",
           "BM_LengthsForward/full", 1.6);
    faster("training step, lengths from 1 to 64 / all of 64", "BM_LengthsStep/uniform",
           name(shapes[1].named("BM_Step")), 1.6);
    add("BM_SmallForward", small_forward);
    add("BM_SmallExpectation", small_expectation);
    ratios.push_back({"exact expectation over 256 masks / one forward pass, 4 blocks, 16 positions",
                      "BM_SmallForward",
                      {"BM_SmallExpectation"}});
    return run_benchmarks(argc, argv, ratios);
}
