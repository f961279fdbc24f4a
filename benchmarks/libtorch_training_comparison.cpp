// SPDX-License-Identifier: MIT
//
// A training step beside LibTorch's: L residual blocks h = h + s_l relu(W_l h + b_l), linear decay
// to p_L = 0.5, then a layer of 10 outputs; softmax cross-entropy, backward, SGD with momentum 0.9;
// float, one survival mask for each sample. Both sides start from the same weights and go through
// the same masks, and gradients and updates are compared before anything is measured.
//
// In LibTorch a branch is one of
//     Module    torch::nn::Linear, torch::relu
//     Addmm     torch::addmm on weights that are kept transposed, relu in place
//     Mkldnn    oneDNN's product, the rest as it is
// and a mask is applied in one of these ways:
//     Row       every layer runs, and its branch is multiplied by a column of bits: torchvision's
//               stochastic_depth in mode "row"
//     Addcmul   the same in one call
//     Select    the layer runs on the surviving rows alone: index_select, index_add
//     All       no mask, for the comparison at full depth
// each by autograd and torch::optim::SGD, gradients cleared by dropping them; the form that clears
// them to zero is Zeroed. The fastest is the peer. LibTorch's masks lie ready, as bits and as
// indices; the library draws its own inside the step.
//
// What is compared beforehand: losses and updates of three steps in double, where no pre-activation
// is as close to 0 as the two sides are apart; the losses in float; updates in float, where such
// an entry shows, more loosely; and Scaling::inverted with torchvision's formula.
//
// One thread is measured by its CPU time, two threads by real time. The reference BLAS makes
// LibTorch several times slower than OpenBLAS does, and OpenBLAS may not know the processor
// (OPENBLAS_CORETYPE=SkylakeX has it use AVX-512); the program names what it found. For a machine
// without AVX-512 on one that has it: the preset x86-64-v3, and OPENBLAS_CORETYPE=ZEN,
// DNNL_MAX_CPU_ISA=AVX2 and ATEN_CPU_CAPABILITY=avx2 for the peers.
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include <benchmark/benchmark.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <type_traits>

#include "libtorch.hpp"
#include "ratio_reporter.hpp"
#include "residual_network.hpp"

namespace {

namespace sd = stochastic_depth;
using sd::Index;
using torch::Tensor;

constexpr Index classes = 10;
/// Large where updates are compared, so that the rounding of the weights does not blur them; small
/// where they are measured over and over on the same batch.
constexpr double checked_rate = 0.01;
constexpr double measured_rate = 1e-4;

/// How far the two sides may be apart, relative to the largest entry. Rounding moves a few of the
/// millions of pre-activations across ReLU's kink, and each then changes the gradient by its share
/// of one sample: far more than rounding, far less than a wrong bit of a mask.
template <class Scalar>
constexpr double loss_tolerance = std::is_same_v<Scalar, float> ? 1e-4 : 1e-12;
template <class Scalar>
constexpr double update_tolerance = std::is_same_v<Scalar, float> ? 1e-2 : 1e-9;
constexpr double torchvision_tolerance = 1e-6;

template <class Scalar>
using Network = sd::Sequential<ResidualNetwork<Scalar>, sd::Linear<Scalar>>;

/// What is trained: p_L = 0.5, or 1 for full depth.
struct Shape {
    Index depth;
    Index width;
    Index batch;
    double last_survival;

    [[nodiscard]] bool full_depth() const { return last_survival == 1.0; }
    [[nodiscard]] std::string label() const {
        return std::string(full_depth() ? "full" : "sampled") + "/depth:" + std::to_string(depth) +
               "/width:" + std::to_string(width) + "/batch:" + std::to_string(batch);
    }
};

/// The network's layers, the last being the classifier, and a batch.
template <class Scalar>
struct Problem {
    explicit Problem(const Shape& shape_)
        : shape(shape_),
          layers(dense_layers<Scalar>(shape.depth, shape.width)),
          survival(sd::linear_decay(shape.depth, shape.last_survival)) {
        sd::Philox random{7};
        layers.emplace_back(shape.width, classes, random, 0.02);
        x.resize(shape.width, shape.batch);
        for (Index i = 0; i < x.size(); ++i)
            x.data()[i] = sd::uniform<Scalar>(random, Scalar(-1), Scalar(1));
        labels.resize(shape.batch);
        for (Index j = 0; j < labels.size(); ++j)
            labels(j) = static_cast<int>(sd::uniform<double>(random, 0.0, double{classes}));
    }

    [[nodiscard]] Network<Scalar> network() const {
        std::vector<sd::StochasticDepth<ResidualBlock<Scalar>>> blocks;
        for (Index l = 0; l < shape.depth; ++l)
            blocks.emplace_back(residual_block(layers[static_cast<std::size_t>(l)]),
                                sd::SurvivalProbability{survival(l)});
        return Network<Scalar>{ResidualNetwork<Scalar>{std::move(blocks)}, layers.back()};
    }

    [[nodiscard]] sd::SurvivalMasks masks(std::uint64_t step) const {
        return sd::MaskSampler{survival, mask_seed}.sample(step, shape.batch);
    }

    Shape shape;
    std::vector<sd::Linear<Scalar>> layers;
    Eigen::VectorXd survival;
    sd::Matrix<Scalar> x;
    Eigen::VectorXi labels;
};

/// The masks of one step, as LibTorch's programs have them.
struct TorchMasks {
    TorchMasks(const sd::SurvivalMasks& masks, c10::ScalarType type) {
        for (Index l = 0; l < masks.depth(); ++l) {
            Tensor bits = torch::zeros({masks.batch_size(), 1}, type);
            for (Index j = 0; j < masks.batch_size(); ++j) bits[j][0] = masks(l, j) ? 1.0 : 0.0;
            survivors.push_back(bits.flatten().nonzero().flatten());
            multipliers.push_back(bits);
        }
    }
    std::vector<Tensor> multipliers;  ///< [batch x 1]
    std::vector<Tensor> survivors;    ///< rows that keep the layer
};

/// The batch and the masks in LibTorch's form; shared by all forms.
struct TorchProblem {
    template <class Scalar>
    explicit TorchProblem(const Problem<Scalar>& problem)
        : x(to_torch(problem.x)), labels(torch::empty({problem.shape.batch}, torch::kLong)) {
        for (Index j = 0; j < problem.shape.batch; ++j) labels[j] = problem.labels(j);
        for (std::uint64_t t = 0; t < mask_steps && !problem.shape.full_depth(); ++t)
            masks.emplace_back(problem.masks(t), torch_type<Scalar>);
    }
    Tensor x, labels;
    std::vector<TorchMasks> masks;
};

/// One layer's parameters, weights as [outputs x inputs], or transposed for Addmm.
struct TorchLayer {
    Tensor weight, bias;
};

/// relu(W h + b) of so many forms, h [batch x features].
using Affine = Tensor (*)(const TorchLayer&, const Tensor& h);
Tensor module(const TorchLayer& layer, const Tensor& h) {
    return torch::linear(h, layer.weight, layer.bias);
}
Tensor addmm(const TorchLayer& layer, const Tensor& h) {
    return torch::addmm(layer.bias, h, layer.weight);
}
Tensor mkldnn(const TorchLayer& layer, const Tensor& h) {
    return torch::mkldnn_linear(h.to_mkldnn(), layer.weight, layer.bias).to_dense();
}

/// h after block l, whose branch is relu(affine(layer, h)).
using Block = Tensor (*)(Affine affine, const TorchLayer& layer, const Tensor& h,
                         const TorchMasks* masks, std::size_t l);
Tensor row(Affine affine, const TorchLayer& layer, const Tensor& h, const TorchMasks* masks,
           std::size_t l) {
    return h + torch::relu(affine(layer, h)) * masks->multipliers[l];
}
Tensor addcmul(Affine affine, const TorchLayer& layer, const Tensor& h, const TorchMasks* masks,
               std::size_t l) {
    return torch::addcmul(h, affine(layer, h).relu_(), masks->multipliers[l]);
}
Tensor select(Affine affine, const TorchLayer& layer, const Tensor& h, const TorchMasks* masks,
              std::size_t l) {
    const Tensor& rows = masks->survivors[l];
    return h.index_add(0, rows, affine(layer, h.index_select(0, rows)).relu_());
}
Tensor all(Affine affine, const TorchLayer& layer, const Tensor& h, const TorchMasks*,
           std::size_t) {
    return h + affine(layer, h).relu_();
}

/// A way to train in LibTorch by its autograd and its optimizer.
struct Way {
    std::string name;
    Affine affine;
    Block block;
    bool zeroes = false;
};
[[nodiscard]] std::vector<Way> ways(const Shape& shape) {
    std::vector<Way> list;
    const std::vector<std::pair<std::string, Affine>> products{
        {"Module", module}, {"Addmm", addmm}, {"Mkldnn", mkldnn}};
    const auto add = [&](const char* name, Block block) {
        for (const auto& [product, affine] : products)
            list.push_back({product + name, affine, block});
    };
    if (shape.full_depth()) {
        add("All", all);
        list.push_back({"ModuleAllZeroed", module, all, true});
    } else {
        add("Row", row);
        add("Addcmul", addcmul);
        add("Select", select);
        list.push_back({"ModuleRowZeroed", module, row, true});
        list.push_back({"ModuleSelectZeroed", module, select, true});
    }
    return list;
}

/// LibTorch's side.
template <class Scalar>
class TorchTraining {
public:
    TorchTraining(const Problem<Scalar>& problem, const TorchProblem& data, const Way& way,
                  double rate)
        : data_(data), way_(way), layers_(layers_of(problem, way)), optimizer_(make(rate)) {}

    double step(std::uint64_t t) {
        const TorchMasks* const masks =
            data_.masks.empty() ? nullptr : &data_.masks[t % mask_steps];
        Tensor h = data_.x;
        const std::size_t depth = layers_.size() - 1;
        for (std::size_t l = 0; l < depth; ++l)
            h = way_.block(way_.affine, layers_[l], h, masks, l);
        const Tensor loss =
            torch::nn::functional::cross_entropy(way_.affine(layers_.back(), h), data_.labels);
        loss.backward();
        optimizer_.step();
        const double value = loss.item<double>();
        if (way_.zeroes)
            optimizer_.zero_grad();
        else
            for (TorchLayer& layer : layers_) {
                layer.weight.mutable_grad().reset();
                layer.bias.mutable_grad().reset();
            }
        return value;
    }

    /// As parameters_of.
    [[nodiscard]] std::vector<sd::Matrix<Scalar>> parameters() const {
        std::vector<sd::Matrix<Scalar>> list;
        for (const TorchLayer& layer : layers_) {
            list.push_back(from_torch<Scalar>(transposed(way_) ? layer.weight : layer.weight.t()));
            list.push_back(from_torch<Scalar>(layer.bias.unsqueeze(0)));
        }
        return list;
    }

private:
    static bool transposed(const Way& way) { return way.affine == addmm; }

    static std::vector<TorchLayer> layers_of(const Problem<Scalar>& problem, const Way& way) {
        std::vector<TorchLayer> list;
        for (const sd::Linear<Scalar>& layer : problem.layers) {
            const Tensor weight = to_torch<Scalar>(layer.weights());
            list.push_back({transposed(way) ? weight : weight.t().contiguous(),
                            to_torch<Scalar>(layer.bias()).flatten()});
            list.back().weight.requires_grad_();
            list.back().bias.requires_grad_();
        }
        return list;
    }

    torch::optim::SGD make(double rate) const {
        std::vector<Tensor> parameters;
        for (const TorchLayer& layer : layers_) {
            parameters.push_back(layer.weight);
            parameters.push_back(layer.bias);
        }
        return torch::optim::SGD{parameters, torch::optim::SGDOptions(rate).momentum(momentum)};
    }

    const TorchProblem& data_;
    Way way_;
    std::vector<TorchLayer> layers_;
    torch::optim::SGD optimizer_;
};

/// Requires that both sides, in three steps from the same weights under the same masks, go the same
/// way: losses are compared, and how far each parameter has moved.
template <class Scalar>
void check(const Shape& shape) {
    const std::string label =
        shape.label() + (std::is_same_v<Scalar, float> ? ", float" : ", double");
    const Problem<Scalar> problem{shape};
    const TorchProblem data{problem};
    LibraryTraining library{problem.network(), problem.x, problem.labels, checked_rate};
    const auto start = parameters_of(library.network());
    std::vector<double> losses;
    for (std::uint64_t t = 0; t < 3; ++t) losses.push_back(library.step(t));
    const auto end = parameters_of(library.network());
    double by_loss = 0, by_update = 0;
    for (const Way& way : ways(shape)) {
        // oneDNN has float alone.
        if (way.affine == mkldnn && std::is_same_v<Scalar, double>) continue;
        TorchTraining<Scalar> torch_side{problem, data, way, checked_rate};
        double loss = 0, update = 0;
        for (std::uint64_t t = 0; t < 3; ++t)
            loss = worse(loss, std::abs(torch_side.step(t) / losses[t] - 1));
        const auto theirs = torch_side.parameters();
        for (std::size_t i = 0; i < start.size(); ++i)
            update = worse(update, error<Scalar>(end[i] - start[i], theirs.at(i) - start[i]));
        require(label + ", " + way.name + ": losses", loss, loss_tolerance<Scalar>);
        require(label + ", " + way.name + ": updates", update, update_tolerance<Scalar>);
        by_loss = worse(by_loss, loss);
        by_update = worse(by_update, update);
    }
    std::printf(
        "three steps of %s: losses %.3f, %.3f, %.3f differ by %.1e relative at most, "
        "updates by %.1e\n",
        label.c_str(), losses[0], losses[1], losses[2], by_loss, by_update);
}

/// Softmax cross-entropy that also hands out the logits.
struct WatchedLoss : sd::SoftmaxCrossEntropy<float> {
    sd::Matrix<float>* seen;

    [[nodiscard]] double value_and_gradient(const sd::ConstMatrixRef<float>& logits,
                                            const Eigen::Ref<const Targets>& labels,
                                            sd::MatrixRef<float> gradient) const {
        *seen = logits;
        return SoftmaxCrossEntropy::value_and_gradient(logits, labels, gradient);
    }
};

/// torchvision.ops.stochastic_depth in training, but for the noise, which is given: one bit for
/// each row, or one for all.
[[nodiscard]] Tensor torchvision_stochastic_depth(const Tensor& input, double p, Tensor noise) {
    const double survival_rate = 1.0 - p;
    if (survival_rate > 0.0) noise = noise.div(survival_rate);
    return input * noise;
}

/// Requires that Scaling::inverted is what torchvision computes, forward and backward, float.
template <class Masks>
void check_torchvision(const char* mode, const Problem<float>& problem, const Masks& masks,
                       const std::vector<Tensor>& noise) {
    const Network<float> network = problem.network();
    sd::Matrix<float> logits;
    sd::TrainingStep<Network<float>, WatchedLoss> step{
        network, WatchedLoss{{}, &logits}, {.scaling = sd::Scaling::inverted}};
    const double loss = step.differentiate(network, problem.x, problem.labels, masks).loss;
    std::vector<sd::Matrix<float>> slopes;
    const auto collect = [&](const char*, const auto&, const auto& slope) {
        slopes.push_back(slope);
    };
    sd::detail::visit_parameters(network, collect, step.gradient());

    const TorchProblem data{problem};
    std::vector<TorchLayer> layers;
    for (const sd::Linear<float>& layer : problem.layers) {
        layers.push_back({to_torch<float>(layer.weights()).t().contiguous(),
                          to_torch<float>(layer.bias()).flatten()});
        layers.back().weight.requires_grad_();
        layers.back().bias.requires_grad_();
    }
    Tensor h = data.x;
    for (std::size_t l = 0; l < noise.size(); ++l)
        h = h + torchvision_stochastic_depth(torch::relu(module(layers[l], h)),
                                             1.0 - problem.survival(static_cast<Index>(l)),
                                             noise[l]);
    const Tensor their_logits = module(layers.back(), h);
    const Tensor their_loss = torch::nn::functional::cross_entropy(their_logits, data.labels);
    their_loss.backward();

    const std::string label = std::string("torchvision's mode \"") + mode + "\": ";
    const double forward = worse(error<float>(logits, from_torch<float>(their_logits)),
                                 std::abs(their_loss.item<double>() / loss - 1));
    require(label + "outputs", forward, torchvision_tolerance);
    double backward = 0;
    std::size_t reached = 0;
    for (std::size_t l = 0; l < layers.size(); ++l) {
        const Tensor weight = layers[l].weight.grad(), bias = layers[l].bias.grad();
        // A layer that nothing reached has no gradient here, and zeros there.
        if (l < noise.size() && noise[l].count_nonzero().item<std::int64_t>() == 0) {
            require(label + "gradients", weight.abs().max().item<double>(), 0);
            continue;
        }
        if (slopes.size() < reached + 2) require(label + "gradients", INFINITY, 0);
        backward = worse(backward, error<float>(slopes[reached], from_torch<float>(weight.t())));
        backward = worse(backward,
                         error<float>(slopes[reached + 1], from_torch<float>(bias.unsqueeze(0))));
        reached += 2;
    }
    if (reached != slopes.size()) require(label + "gradients", INFINITY, 0);
    require(label + "gradients", backward, torchvision_tolerance);
    std::printf("torchvision's mode \"%s\": outputs differ by %.1e relative, gradients by %.1e\n",
                mode, forward, backward);
}

void check_torchvision() {
    const Problem<float> problem{{8, 32, 24, 0.5}};
    const sd::MaskSampler sampler{problem.survival, mask_seed};
    const sd::SurvivalMasks rows = problem.masks(0);
    check_torchvision("row", problem, rows, TorchMasks{rows, torch::kFloat}.multipliers);
    const sd::SurvivalMask one = sampler.sample(0);
    std::vector<Tensor> noise;
    for (Index l = 0; l < one.size(); ++l) noise.push_back(torch::full({1, 1}, one[l] ? 1.0 : 0.0));
    check_torchvision("batch", problem, one, noise);
}

/// One shape on both sides.
struct Comparison {
    explicit Comparison(const Shape& shape) : problem(shape), data(problem) {}
    Problem<float> problem;
    TorchProblem data;
};

[[nodiscard]] std::string library_name(const Shape& shape, int threads) {
    return "BM_StochasticDepthStep/" + shape.label() + "/threads:" + std::to_string(threads);
}
[[nodiscard]] std::string torch_name(const Shape& shape, int threads, const std::string& way) {
    return "BM_LibTorchStep" + way + "/" + shape.label() + "/threads:" + std::to_string(threads);
}

template <class Training>
void measure(benchmark::State& state, int threads, Training training) {
    set_threads(threads);
    std::uint64_t t = 0;
    double loss = 0;
    for (; t < mask_steps / 2; ++t) loss = training.step(t);
    for (auto _ : state) {
        loss = training.step(t++);
        benchmark::DoNotOptimize(loss);
    }
    if (!std::isfinite(loss)) state.SkipWithError("the loss is not finite");
}

/// Long enough for both sides' second threads to settle: training takes minutes.
constexpr double seconds_for_each = 0.2;

void add(const std::string& name, int threads, const std::function<void(benchmark::State&)>& body) {
    auto* const added = benchmark::RegisterBenchmark(name.c_str(), body)
                            ->Unit(benchmark::kMillisecond)
                            ->MinTime(seconds_for_each);
    if (threads > 1) added->UseRealTime();
}

[[nodiscard]] std::vector<int> thread_counts(const Shape& shape) {
    return shape.full_depth() ? std::vector<int>{1} : std::vector<int>{1, 2};
}

void add_all(const Comparison& comparison) {
    const Problem<float>& problem = comparison.problem;
    for (const int threads : thread_counts(problem.shape)) {
        add(library_name(problem.shape, threads), threads, [&, threads](benchmark::State& state) {
            measure(state, threads,
                    LibraryTraining{problem.network(), problem.x, problem.labels, measured_rate,
                                    static_cast<unsigned>(threads)});
        });
        for (const Way& way : ways(problem.shape))
            add(torch_name(problem.shape, threads, way.name), threads,
                [&, threads, way](benchmark::State& state) {
                    measure(state, threads,
                            TorchTraining<float>{problem, comparison.data, way, measured_rate});
                });
    }
}

void add_ratios(const Shape& shape, std::vector<Ratio>& list) {
    // With AVX-512, and without.
    constexpr bool wide = sd::detail::widest_lanes<float> >= 16;
    const double target = shape.width == 128 ? shape.full_depth() ? wide ? 1.8 : 1.45
                                               : wide             ? 2.4
                                                                  : 1.9
                          : shape.full_depth() ? wide ? 1.35 : 1.1
                          : wide               ? 1.6
                                               : 1.3;
    for (const int threads : thread_counts(shape)) {
        std::vector<std::string> peers;
        for (const Way& way : ways(shape)) peers.push_back(torch_name(shape, threads, way.name));
        list.push_back({"training step / LibTorch's fastest form, " + shape.label() + " threads " +
                            std::to_string(threads),
                        library_name(shape, threads), peers, target});
    }
}

}  // namespace

int main(int argc, char** argv) {
    at::set_num_interop_threads(1);
    set_threads(1);
    check_torchvision();
    std::vector<std::unique_ptr<Comparison>> comparisons;
    std::vector<Ratio> ratios;
    for (const double last : {0.5, 1.0})
        for (const Index width : {128, 256}) {
            const Shape shape{24, width, width, last};
            check<double>(shape);
            check<float>(shape);
            comparisons.push_back(std::make_unique<Comparison>(shape));
            add_all(*comparisons.back());
            add_ratios(shape, ratios);
        }
    benchmark::AddCustomContext("LibTorch", TORCH_VERSION);
    benchmark::AddCustomContext("LibTorch's BLAS", blas());
    return run_benchmarks(argc, argv, std::move(ratios));
}
