// SPDX-License-Identifier: MIT
//
// A training step of L residual blocks h = h + s_l relu(W_l h + b_l), linear decay to p_L = 0.5,
// and a layer of 10 outputs; softmax cross-entropy, backward, SGD with momentum 0.9; float.
//
// First its three products alone, beside Eigen's product for the same multiplications:
//     Forward         x + relu(W x + b)
//     InputGradient   W^T dy
//     WeightGradient  dW += dy x^T
// The library's products start from column-major W; Eigen's take the transposes as they are.
//
// Then whole steps: at full depth; under one mask for the batch; under one for each sample; by
// plain loops. Under masks every iteration is the next step, with masks of its own, and what it
// ought to cost is the share of layers that survive, sum(p) / L. The counters show that share as
// it was drawn, and how much of full depth's memory the step kept for backward.
#include <stochastic_depth/kernels/matrix_kernel.hpp>
#include <stochastic_depth/kernels/transpose.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/threads/team.hpp>
#include <stochastic_depth/training/sgd.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>

#include "multiply_add_peak.hpp"
#include "ratio_reporter.hpp"
#include "residual_network.hpp"

namespace {

namespace sd = stochastic_depth;
using Eigen::MatrixXf;
using sd::Index;

constexpr Index classes = 10;
constexpr std::uint64_t mask_seed = 42;
constexpr double momentum = 0.9;
/// Small: the same batch is trained on over and over.
constexpr double rate = 1e-3;

using Network = sd::Sequential<ResidualNetwork<float>, sd::Linear<float>>;

/// One product of a step: a layer and a batch.
struct Product {
    explicit Product(const benchmark::State& state)
        : width(state.range(0)),
          columns(state.range(1)),
          layer(dense_layer<float>(width, random)),
          x(MatrixXf::Random(width, columns)),
          y(MatrixXf::Zero(width, columns)),
          dy(MatrixXf::Random(width, columns)),
          gradient(layer.zero_gradient()) {}

    template <class Body>
    void measure(benchmark::State& state, const Body& body) {
        for (auto _ : state) {
            body();
            benchmark::DoNotOptimize(y.data());
            benchmark::DoNotOptimize(gradient.weights.data());
            benchmark::ClobberMemory();
        }
        count_flops(state, 2.0 * static_cast<double>(width * width * columns));
    }

    sd::Philox random{2026};
    Index width;
    Index columns;
    sd::Linear<float> layer;
    MatrixXf x, y, dy;
    sd::Linear<float>::Gradient gradient;
};

void forward(benchmark::State& state) {
    Product product{state};
    const auto block = residual_block(product.layer);
    product.measure(state, [&] { block.forward(product.x, product.y); });
}
void eigen_forward(benchmark::State& state) {
    Product product{state};
    const MatrixXf& w = product.layer.weights();
    product.measure(state, [&] { product.y.noalias() = w * product.x; });
}

void input_gradient(benchmark::State& state) {
    Product product{state};
    const MatrixXf& w = product.layer.weights();
    MatrixXf transposed(w.cols(), w.rows());
    product.measure(state, [&] {
        sd::detail::transpose(w.rows(), w.cols(), w.data(), w.rows(), transposed.data(), w.cols());
        sd::detail::product<float>(w.cols(), w.rows(), product.columns,
                                   {transposed.data(), w.cols()}, nullptr,
                                   {product.dy.data(), 1, product.dy.outerStride()},
                                   {product.y.data(), product.y.outerStride()}, sd::detail::AsIs{});
    });
}
void eigen_input_gradient(benchmark::State& state) {
    Product product{state};
    const MatrixXf& w = product.layer.weights();
    product.measure(state, [&] { product.y.noalias() = w.transpose() * product.dy; });
}

void weight_gradient(benchmark::State& state) {
    Product product{state};
    product.measure(state, [&] {
        product.layer.add_gradient(sd::detail::Team::alone(), product.x, product.dy,
                                   product.gradient);
    });
}
void eigen_weight_gradient(benchmark::State& state) {
    Product product{state};
    product.measure(
        state, [&] { product.gradient.weights.noalias() += product.dy * product.x.transpose(); });
}

/// Which layers run in a step.
enum class Kind { full_depth, batch_mask, sample_masks, subset_masks };

/// A network, a batch, and everything that training needs.
struct Training {
    Training(Index depth, Index width, Index batch, Kind kind, unsigned threads = 1,
             Index shards = 1)
        : p(sd::linear_decay(depth, kind == Kind::full_depth ? 1.0 : 0.5)),
          layers(dense_layers<float>(depth, width)),
          classifier(width, classes, random, 1.0),
          network(make_network()),
          x(MatrixXf::Random(width, batch)),
          labels(batch),
          optimizer(network, {.learning_rate = rate, .momentum = momentum}),
          step(network, {},
               {.mask_scope = kind == Kind::sample_masks   ? sd::MaskScope::sample
                              : kind == Kind::subset_masks ? sd::MaskScope::subset
                                                           : sd::MaskScope::batch,
                .seed = mask_seed,
                .threads = threads,
                .shards = shards}) {
        for (Index j = 0; j < batch; ++j) labels(j) = static_cast<int>(j % classes);
    }

    [[nodiscard]] Network make_network() const {
        std::vector<sd::StochasticDepth<ResidualBlock<float>>> blocks;
        for (std::size_t l = 0; l < layers.size(); ++l)
            blocks.emplace_back(residual_block(layers[l]),
                                sd::SurvivalProbability{p(static_cast<Index>(l))});
        return Network{ResidualNetwork<float>{std::move(blocks)}, classifier};
    }

    sd::StepLedger run(std::uint64_t t) {
        const sd::StepLedger ledger = step.differentiate(network, x, labels, t);
        optimizer.step(network, step.gradient(), step.team());
        step.finish(network);
        return ledger;
    }

    sd::Philox random{7};
    Eigen::VectorXd p;
    std::vector<sd::Linear<float>> layers;
    sd::Linear<float> classifier;
    Network network;
    MatrixXf x;
    Eigen::VectorXi labels;
    sd::Sgd<Network> optimizer;
    sd::TrainingStep<Network, sd::SoftmaxCrossEntropy<float>> step;
};

/// The same step under sample masks by plain loops, sample by sample within each layer.
class PlainTraining {
public:
    explicit PlainTraining(const Training& start)
        : x_(start.x), labels_(start.labels), sampler_(start.p, mask_seed) {
        for (const sd::Linear<float>& layer : start.layers) layers_.emplace_back(layer);
        layers_.emplace_back(start.classifier);
        inputs_.resize(layers_.size(), x_);
        sums_.resize(layers_.size(), x_);
        sums_.back().resize(classes, x_.cols());
    }

    double run(std::uint64_t t) {
        const Index batch = x_.cols();
        const sd::SurvivalMasks masks = sampler_.sample(t, batch);
        const auto keeps = [&](std::size_t l, Index j) {
            return l + 1 == layers_.size() || masks(static_cast<Index>(l), j);
        };
        for (Index j = 0; j < batch; ++j) {
            inputs_[0].col(j) = x_.col(j);
            for (std::size_t l = 0; l < layers_.size(); ++l) {
                if (keeps(l, j)) layers_[l].forward(&inputs_[l](0, j), &sums_[l](0, j));
                if (l + 1 == layers_.size()) break;
                const Index width = x_.rows();
                for (Index i = 0; i < width; ++i)
                    inputs_[l + 1](i, j) =
                        inputs_[l](i, j) + (keeps(l, j) ? std::max(sums_[l](i, j), 0.0F) : 0.0F);
            }
        }
        slopes_.resize(classes, batch);
        const double loss =
            sd::SoftmaxCrossEntropy<float>{}.value_and_gradient(sums_.back(), labels_, slopes_);
        std::vector<float> d(static_cast<std::size_t>(x_.rows())), by_sum(d), by_input(d);
        for (Index j = 0; j < batch; ++j)
            for (std::size_t l = layers_.size(); l-- > 0;) {
                if (!keeps(l, j)) continue;
                const bool last = l + 1 == layers_.size();
                if (last) {
                    layers_[l].backward(&inputs_[l](0, j), &slopes_(0, j), d.data());
                    continue;
                }
                for (std::size_t i = 0; i < d.size(); ++i)
                    by_sum[i] = sums_[l](static_cast<Index>(i), j) > 0 ? d[i] : 0.0F;
                layers_[l].backward(&inputs_[l](0, j), by_sum.data(), by_input.data());
                for (std::size_t i = 0; i < d.size(); ++i) d[i] += by_input[i];
            }
        for (Layer& layer : layers_) layer.update();
        return loss;
    }

private:
    struct Layer {
        explicit Layer(const sd::Linear<float>& layer)
            : weights(layer.weights()), bias(layer.bias()) {}

        void forward(const float* x, float* y) const {
            for (Index i = 0; i < bias.size(); ++i) y[i] = bias(i);
            for (Index k = 0; k < weights.cols(); ++k)
                for (Index i = 0; i < weights.rows(); ++i) y[i] += weights(i, k) * x[k];
        }
        void backward(const float* x, const float* dy, float* dx) {
            for (Index i = 0; i < bias.size(); ++i) by_bias(i) += dy[i];
            for (Index k = 0; k < weights.cols(); ++k) {
                float sum = 0;
                for (Index i = 0; i < weights.rows(); ++i) {
                    by_weights(i, k) += dy[i] * x[k];
                    sum += weights(i, k) * dy[i];
                }
                dx[k] = sum;
            }
        }
        void update() {
            const auto step = [](auto& parameter, auto& slope, auto& velocity) {
                for (Index i = 0; i < parameter.size(); ++i) {
                    float& v = velocity.data()[i];
                    v = static_cast<float>(momentum) * v + slope.data()[i];
                    parameter.data()[i] -= static_cast<float>(rate) * v;
                    slope.data()[i] = 0;
                }
            };
            step(weights, by_weights, weights_velocity);
            step(bias, by_bias, bias_velocity);
        }

        MatrixXf weights;
        Eigen::VectorXf bias;
        MatrixXf by_weights = MatrixXf::Zero(weights.rows(), weights.cols());
        Eigen::VectorXf by_bias = Eigen::VectorXf::Zero(bias.size());
        MatrixXf weights_velocity = by_weights;
        Eigen::VectorXf bias_velocity = by_bias;
    };

    MatrixXf x_;
    Eigen::VectorXi labels_;
    sd::MaskSampler sampler_;
    std::vector<Layer> layers_;
    std::vector<MatrixXf> inputs_, sums_;
    MatrixXf slopes_;
};

/// Arguments depth, width, batch, threads. Repetitions go on from one another, so that none sees
/// masks that another has seen.
template <Kind kind, Index shards = 1>
void step(benchmark::State& state) {
    static std::uint64_t t = 0;
    Training training{state.range(0), state.range(1), state.range(2), kind,
                      static_cast<unsigned>(state.range(3)), shards};
    for (int i = 0; i < 5; ++i) training.run(t++);
    double kept = 0, full = 0, loss = 0;
    for (auto _ : state) {
        const sd::StepLedger ledger = training.run(t++);
        kept += ledger.layer_evaluations;
        full += ledger.full_depth_evaluations;
        loss = ledger.loss;
    }
    state.counters["share"] = kept / full;
    if (!std::isfinite(loss)) state.SkipWithError("the loss is not finite");
}

void plain_step(benchmark::State& state) {
    PlainTraining training{
        Training{state.range(0), state.range(1), state.range(2), Kind::sample_masks}};
    std::uint64_t t = 0;
    for (auto _ : state) {
        double loss = training.run(t++);
        benchmark::DoNotOptimize(loss);
    }
}

/// Ends the program unless the plain loops train as the library does.
[[nodiscard]] bool plain_steps_agree() {
    Training training{6, 32, 24, Kind::sample_masks};
    PlainTraining plain{training};
    double worst = 0;
    for (std::uint64_t t = 0; t < 3; ++t)
        // Written so that NaN stays.
        if (const double off = std::abs(plain.run(t) / training.run(t).loss - 1); !(off <= worst))
            worst = off;
    std::printf("three steps by plain loops: losses differ by %.1e relative at most\n", worst);
    return worst <= 1e-5;
}

struct Shape {
    long depth, width, batch;
};
const std::vector<Shape> shapes{{24, 128, 128}, {24, 256, 256}};
struct Family {
    const char* name;
    const char* claim;
    Kind kind;
    void (*run)(benchmark::State&);
    /// The same in two shards.
    const char* sharded;
    void (*run_sharded)(benchmark::State&);
    /// What a step may cost beyond its share of the layers, as a part of full depth.
    double extra;
};
const std::vector<Family> families{
    {"BM_StepFullDepth", "full depth", Kind::full_depth, step<Kind::full_depth>,
     "BM_ShardedStepFullDepth", step<Kind::full_depth, 2>, 0},
    {"BM_StepBatchMask", "one mask for the batch", Kind::batch_mask, step<Kind::batch_mask>,
     "BM_ShardedStepBatchMask", step<Kind::batch_mask, 2>, 0.03},
    {"BM_StepSampleMasks", "a mask for each sample", Kind::sample_masks, step<Kind::sample_masks>,
     "BM_ShardedStepSampleMasks", step<Kind::sample_masks, 2>, 0.08},
    {"BM_StepSubsetMasks", "subsets of the batch", Kind::subset_masks, step<Kind::subset_masks>,
     "BM_ShardedStepSubsetMasks", step<Kind::subset_masks, 2>, 0.08}};

[[nodiscard]] std::string step_name(const char* family, const Shape& shape, long threads) {
    return name({family,
                 {{"depth", shape.depth},
                  {"width", shape.width},
                  {"batch", shape.batch},
                  {"threads", threads}}});
}

[[nodiscard]] double expected_share(long depth) { return sd::linear_decay(depth, 0.5).mean(); }

/// What a step keeps for backward, beside full depth.
void print_memory() {
    std::printf("kept for backward, mean over 20 steps\n");
    for (const Shape& shape : shapes) {
        double full = 0;
        for (const Family& family : families) {
            Training training{shape.depth, shape.width, shape.batch, family.kind};
            double bytes = 0;
            for (std::uint64_t t = 0; t < 20; ++t) {
                training.run(t);
                bytes += static_cast<double>(training.step.cache_bytes()) / 20;
            }
            if (family.kind == Kind::full_depth) full = bytes;
            const double share = family.kind == Kind::full_depth ? 1 : expected_share(shape.depth);
            std::printf(
                "  depth %ld width %ld batch %ld, %s: %.0f KiB, %.3f of full depth, "
                "sum(p) / L being %.3f%s\n",
                shape.depth, shape.width, shape.batch, family.claim, bytes / 1024, bytes / full,
                share, std::abs(bytes / full / share - 1) > 0.1 ? ", MISSED" : "");
        }
    }
}

const std::vector<std::pair<long, long>> products{{128, 96}, {128, 128}, {256, 192}, {256, 256}};
struct ProductFamily {
    const char* name;
    void (*run)(benchmark::State&);
    const char* peer;
    void (*peer_run)(benchmark::State&);
};
const std::vector<ProductFamily> product_families{
    {"BM_Forward", forward, "BM_EigenForward", eigen_forward},
    {"BM_InputGradient", input_gradient, "BM_EigenInputGradient", eigen_input_gradient},
    {"BM_WeightGradient", weight_gradient, "BM_EigenWeightGradient", eigen_weight_gradient}};

void add_all() {
    benchmark::RegisterBenchmark("BM_MultiplyAddPeak", multiply_add_peak<float>);
    for (const ProductFamily& family : product_families)
        for (const auto& [width, columns] : products)
            for (const auto& [label, run] :
                 {std::pair{family.name, family.run}, std::pair{family.peer, family.peer_run}})
                benchmark::RegisterBenchmark(label, run)
                    ->ArgNames({"width", "columns"})
                    ->Args({width, columns});
    for (const Shape& shape : shapes) {
        const auto add = [&](const char* family, void (*run)(benchmark::State&), long threads) {
            auto* const added = benchmark::RegisterBenchmark(family, run);
            added->ArgNames({"depth", "width", "batch", "threads"})
                ->Args({shape.depth, shape.width, shape.batch, threads})
                ->Unit(benchmark::kMillisecond)
                ->MinTime(0.2);
            if (threads > 1) added->UseRealTime();
        };
        for (const Family& family : families)
            for (const long threads : {1, 2}) {
                add(family.name, family.run, threads);
                add(family.sharded, family.run_sharded, threads);
            }
        add("BM_StepPlainLoop", plain_step, 1);
    }
}

/// Whether the products run with AVX-512.
constexpr bool has_wide_packets = sd::detail::widest_lanes<float> >= 16;

/// Operations of some products of squares of weights.
[[nodiscard]] double products_flops(long count, long width, long columns) {
    return 2.0 * static_cast<double>(count) * static_cast<double>(width * width * columns);
}

[[nodiscard]] std::vector<Ratio> ratios() {
    std::vector<Ratio> list;
    for (const ProductFamily& family : product_families)
        for (const auto& [width, columns] : products) {
            const auto at = [width = width, columns = columns](const char* benchmark) {
                return name({benchmark, {{"width", width}, {"columns", columns}}});
            };
            list.push_back(
                {at(family.name) + " / Eigen's product alone", at(family.name), {at(family.peer)}});
            const bool by_weights = family.run == weight_gradient;
            list.push_back(share_of_peak(at(family.name) + ", share of the multiply-add peak",
                                         at(family.name), products_flops(1, width, columns),
                                         !by_weights        ? 0
                                         : has_wide_packets ? 0.85
                                                            : 0.78));
        }
    for (const Shape& shape : shapes) {
        list.push_back(
            share_of_peak("step at full depth, share of the multiply-add peak, width " +
                              std::to_string(shape.width),
                          step_name("BM_StepFullDepth", shape, 1),
                          products_flops(3 * shape.depth, shape.width, shape.batch),
                          shape.width == 128 ? 0.62
                          : has_wide_packets ? 0.80
                                             : 0.72));
        const std::string where = ", width " + std::to_string(shape.width) + " batch " +
                                  std::to_string(shape.batch) + " threads ";
        for (const long threads : {1, 2})
            for (const Family& family : families)
                if (family.kind != Kind::full_depth)
                    list.push_back({std::string("time of a step, ") + family.claim +
                                        " / full depth" + where + std::to_string(threads),
                                    step_name("BM_StepFullDepth", shape, threads),
                                    {step_name(family.name, shape, threads)},
                                    0,
                                    1,
                                    expected_share(shape.depth) + family.extra});
        for (const Family& family : families)
            for (const auto& [way, two] : {std::pair{" that share each layer", family.name},
                                           std::pair{" with a shard each", family.sharded}})
                list.push_back({std::string("two threads") + way + " / one thread, " +
                                    family.claim + ", width " + std::to_string(shape.width),
                                step_name(two, shape, 2),
                                {step_name(family.name, shape, 1)}});
        list.push_back({"step / plain loops, a mask for each sample" + where + "1",
                        step_name("BM_StepSampleMasks", shape, 1),
                        {step_name("BM_StepPlainLoop", shape, 1)}});
    }
    return list;
}

}  // namespace

int main(int argc, char** argv) {
    if (!plain_steps_agree()) return 1;
    print_memory();
    add_all();
    return run_benchmarks(argc, argv, ratios());
}
