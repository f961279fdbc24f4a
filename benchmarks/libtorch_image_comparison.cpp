// SPDX-License-Identifier: MIT
//
// Residual networks of 20 layers for images beside LibTorch's: those of `resnet`, post-activated,
// shortcuts of average pooling and channels of zeros, float. Forward passes, and training steps
// (softmax cross-entropy, backward, SGD with momentum 0.9) at full depth and with linear decay to
// p_L = 0.5, one survival mask for each sample. Both sides have the same weights and go through the
// same masks; single layers, outputs, losses and updates are compared before anything is measured.
//
// LibTorch's forward pass is one of
//     Eager      torch::conv2d, batch_norm, relu_, without gradients
//     Frozen     a torch::jit::Module defined from source, frozen: batch norm folded
//     Optimized  the same after optimize_for_inference
// its training step one of
//     All        no mask, for the comparison at full depth
//     Row        every layer runs, and its branch is multiplied by a column of bits: torchvision's
//                stochastic_depth in mode "row"
//     Select     the layer runs on the surviving images alone: index_select, index_add
// each with tensors that are channels_last, and with tensors that are not (Contiguous). The fastest
// is the peer. (Row takes its batch statistics over the skipped images too, so that it is compared
// where none is.) LibTorch's masks lie ready, as bits and as indices; the library draws its own
// inside the step.
//
// One thread is measured by its CPU time, two threads by real time. For a machine without AVX-512
// on one that has it: the preset x86-64-v3, and OPENBLAS_CORETYPE=ZEN, DNNL_MAX_CPU_ISA=AVX2 and
// ATEN_CPU_CAPABILITY=avx2 for LibTorch. A part of the comparison by --benchmark_filter: Forward,
// Step.*survival:100, Step.*survival:50.
#include <stochastic_depth/layers/image/max_pool2d.hpp>
#include <stochastic_depth/models/resnet.hpp>
#include <stochastic_depth/random/uniform.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>
#include <stochastic_depth/training/softmax_cross_entropy.hpp>
#include <stochastic_depth/training/training_step.hpp>

#include <benchmark/benchmark.h>
#include <torch/script.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libtorch.hpp"
#include "ratio_reporter.hpp"

namespace {

namespace sd = stochastic_depth;
using sd::Index;
using torch::Tensor;
using Matrix = sd::Matrix<float>;
using Network = sd::ResNet<float>;

constexpr Index depth = 20;
constexpr Index classes = 10;
constexpr Index images = 64;
constexpr std::size_t convolutions = depth - 1;
/// Large where updates are compared, so that the rounding of the weights does not blur them; small
/// where they are measured over and over on the same batch.
constexpr double checked_rate = 0.01;
constexpr double measured_rate = 1e-4;

/// How far the two sides may be apart, relative to the largest entry; an update, to its length.
/// Rounding moves a few pre-activations across ReLU's kink, and each then changes an update by far
/// more than rounding does.
constexpr double output_tolerance = 1e-5;
constexpr double loss_tolerance = 1e-4;
constexpr double update_tolerance = 1e-2;

[[nodiscard]] Matrix random_matrix(sd::Philox& random, Index rows, Index columns) {
    return Matrix::NullaryExpr(rows, columns,
                               [&] { return sd::uniform<float>(random, -1.0F, 1.0F); });
}

/// What is trained: p_L = 0.5, or 1 for full depth.
struct Shape {
    sd::ImageShape input;
    double last_survival = 1;

    [[nodiscard]] bool full_depth() const { return last_survival == 1.0; }
    [[nodiscard]] std::string image() const {
        return "input:" + std::to_string(input.height) + "x" + std::to_string(input.width) + "x" +
               std::to_string(input.channels);
    }
    [[nodiscard]] std::string label() const {
        return image() + "/survival:" + (full_depth() ? "100" : "50");
    }
};

/// A network of ours and a batch.
struct Problem {
    explicit Problem(const Shape& shape_)
        : shape(shape_),
          network(sd::resnet<float>({.input = shape.input,
                                     .depth = depth,
                                     .classes = classes,
                                     .final_survival = shape.last_survival},
                                    random)),
          x(random_matrix(random, shape.input.size(), images)),
          labels(images) {
        for (Index j = 0; j < images; ++j) labels(j) = static_cast<int>(random() % classes);
    }

    [[nodiscard]] sd::SurvivalMasks masks(std::uint64_t step) const {
        return sd::MaskSampler{network.survival_probabilities(), mask_seed}.sample(step, images);
    }

    Shape shape;
    sd::Philox random{7};
    Network network;
    Matrix x;
    Eigen::VectorXi labels;
};

/// Running statistics in the order of the layers.
template <class AnyNetwork>
[[nodiscard]] std::vector<Matrix> state_of(const AnyNetwork& network) {
    std::vector<Matrix> list;
    sd::detail::visit_state(network,
                            [&](const char*, const auto& state) { list.emplace_back(state); });
    return list;
}

/// How LibTorch holds images, [images x channels x height x width].
enum class Format { channels_last, contiguous };
[[nodiscard]] Tensor in_format(const Tensor& images_, Format format) {
    return images_.contiguous(format == Format::channels_last ? torch::MemoryFormat::ChannelsLast
                                                              : torch::MemoryFormat::Contiguous);
}
[[nodiscard]] std::string text_of(Format format) {
    return format == Format::channels_last ? "" : "Contiguous";
}

/// Our images, channels fastest, are LibTorch's in channels_last.
[[nodiscard]] Tensor to_images(const Matrix& x, const sd::ImageShape& shape) {
    return to_torch<float>(x)
        .view({x.cols(), shape.height, shape.width, shape.channels})
        .permute({0, 3, 1, 2});
}
[[nodiscard]] Matrix from_images(const Tensor& y) {
    return from_torch<float>(y.permute({0, 2, 3, 1}).flatten(1));
}
/// [outputs x (inputs, column, row)] and [outputs, inputs, row, column].
[[nodiscard]] Tensor to_windows(const Matrix& weights, Index kernel) {
    return to_torch<float>(weights)
        .view({kernel, kernel, -1, weights.rows()})
        .permute({3, 2, 0, 1});
}
[[nodiscard]] Matrix from_windows(const Tensor& weights) {
    return from_torch<float>(weights.detach().permute({2, 3, 1, 0}).flatten(0, 2));
}
[[nodiscard]] Tensor to_vector(const Matrix& entries) { return to_torch(entries).flatten(); }

[[nodiscard]] Tensor to_labels(const Eigen::VectorXi& labels) {
    Tensor list = torch::empty({labels.size()}, torch::kLong);
    for (Index j = 0; j < labels.size(); ++j) list[j] = labels(j);
    return list;
}

/// The masks of one step, as LibTorch's programs have them.
struct TorchMasks {
    explicit TorchMasks(const sd::SurvivalMasks& masks) {
        for (Index l = 0; l < masks.depth(); ++l) {
            Tensor bits = torch::zeros({masks.batch_size(), 1, 1, 1});
            for (Index j = 0; j < masks.batch_size(); ++j) bits[j] = masks(l, j) ? 1.0 : 0.0;
            survivors.push_back(bits.flatten().nonzero().flatten());
            multipliers.push_back(bits);
        }
    }
    std::vector<Tensor> multipliers;  ///< [images x 1 x 1 x 1]
    std::vector<Tensor> survivors;    ///< images that keep the layer
};

/// What a block is with its mask: shortcut + bit branch(h), for each image.
enum class Masking { all, row, select };

/// A convolution without bias, and its normalisation.
struct TorchConvolution {
    Tensor weight, gain, bias, mean, variance;
    Index stride;

    [[nodiscard]] Tensor operator()(const Tensor& h, bool training) const {
        return torch::batch_norm(torch::conv2d(h, weight, {}, stride, 1), gain, bias, mean,
                                 variance, training, 0.1, 1e-5, false);
    }
};

/// The network in LibTorch.
struct TorchNetwork {
    TorchNetwork(const Network& network, Format format_) : format(format_) {
        const std::vector<Matrix> parameters = parameters_of(network), state = state_of(network);
        for (std::size_t i = 0; i < convolutions; ++i) {
            const Index outputs = parameters.at(3 * i).rows();
            layers.push_back({in_format(to_windows(parameters.at(3 * i), 3), format),
                              to_vector(parameters.at(3 * i + 1)),
                              to_vector(parameters.at(3 * i + 2)), to_vector(state.at(2 * i)),
                              to_vector(state.at(2 * i + 1)),
                              i > 0 && outputs != parameters.at(3 * i - 3).rows() ? 2 : 1});
        }
        last_weight = to_torch(parameters.at(3 * convolutions)).t().contiguous();
        last_bias = to_vector(parameters.at(3 * convolutions + 1));
    }

    [[nodiscard]] std::vector<Tensor> parameters() const {
        std::vector<Tensor> list;
        for (const TorchConvolution& layer : layers)
            list.insert(list.end(), {layer.weight, layer.gain, layer.bias});
        list.insert(list.end(), {last_weight, last_bias});
        return list;
    }

    /// Those of ours.
    [[nodiscard]] std::vector<Matrix> values() const {
        std::vector<Matrix> list;
        for (const TorchConvolution& layer : layers) {
            list.push_back(from_windows(layer.weight));
            list.push_back(from_torch<float>(layer.gain.unsqueeze(0)));
            list.push_back(from_torch<float>(layer.bias.unsqueeze(0)));
        }
        list.push_back(from_torch<float>(last_weight.t()));
        list.push_back(from_torch<float>(last_bias.unsqueeze(0)));
        return list;
    }

    [[nodiscard]] Tensor operator()(const Tensor& x, bool training, Masking masking = Masking::all,
                                    const TorchMasks* masks = nullptr) const {
        Tensor h = layers[0](x, training).relu_();
        for (std::size_t l = 0; 2 * l + 2 < convolutions; ++l) {
            const TorchConvolution &first = layers[2 * l + 1], &second = layers[2 * l + 2];
            const auto branch = [&](const Tensor& input) {
                return second(first(input, training).relu_(), training);
            };
            const Tensor shortcut = first.stride == 1 ? h : padded(torch::avg_pool2d(h, 2));
            if (masking == Masking::all) {
                h = branch(h).add_(shortcut).relu_();
            } else if (masking == Masking::row) {
                h = torch::addcmul(shortcut, branch(h), masks->multipliers[l]).relu_();
            } else {
                const Tensor& rows = masks->survivors[l];
                h = unlaid(laid(shortcut).index_add(
                               0, rows, laid(branch(unlaid(laid(h).index_select(0, rows))))))
                        .relu_();
            }
        }
        return torch::linear(h.mean({2, 3}), last_weight, last_bias);
    }

    Format format;
    std::vector<TorchConvolution> layers;
    Tensor last_weight, last_bias;

private:
    /// As many channels of zeros as there are channels.
    [[nodiscard]] static Tensor padded(const Tensor& h) {
        return torch::constant_pad_nd(h, {0, 0, 0, 0, 0, h.size(1)});
    }
    /// As they lie in memory: index_select and index_add keep no channels_last.
    [[nodiscard]] Tensor laid(const Tensor& h) const {
        return format == Format::channels_last ? h.permute({0, 2, 3, 1}) : h;
    }
    [[nodiscard]] Tensor unlaid(const Tensor& h) const {
        return format == Format::channels_last ? h.permute({0, 3, 1, 2}) : h;
    }
};

/// The same in use, as source.
[[nodiscard]] torch::jit::Module script_of(const TorchNetwork& network) {
    torch::jit::Module module{"network"};
    module.register_attribute("training", c10::BoolType::get(), false);
    const auto layer = [&](std::size_t i, const std::string& input) {
        const TorchConvolution& c = network.layers[i];
        const std::string n = std::to_string(i), stride = std::to_string(c.stride);
        const std::pair<const char*, const Tensor&> buffers[] = {
            {"w", c.weight}, {"g", c.gain}, {"b", c.bias}, {"m", c.mean}, {"v", c.variance}};
        for (const auto& [name, tensor] : buffers) module.register_buffer(name + n, tensor);
        return "torch.batch_norm(torch.conv2d(" + input + ", self.w" + n + ", None, [" + stride +
               ", " + stride + "], [1, 1]), self.g" + n + ", self.b" + n + ", self.m" + n +
               ", self.v" + n + ", False, 0.1, 1e-05, False)";
    };
    module.register_buffer("w", network.last_weight);
    module.register_buffer("b", network.last_bias);
    std::string text = "def forward(self, x):\n    h = torch.relu(" + layer(0, "x") + ")\n";
    for (std::size_t i = 1; i + 1 < convolutions; i += 2) {
        text += "    s = h\n";
        if (network.layers[i].stride == 2)
            text += "    s = torch.constant_pad_nd(torch.avg_pool2d(h, [2, 2]), [0, 0, 0, 0, 0, " +
                    std::to_string(network.layers[i].weight.size(1)) + "])\n";
        text += "    h = torch.relu(" + layer(i, "h") + ")\n";
        text += "    h = torch.relu(" + layer(i + 1, "h") + " + s)\n";
    }
    text += "    return torch.linear(torch.mean(h, [2, 3]), self.w, self.b)\n";
    module.define(text);
    return module;
}

/// A way through the network without gradients.
struct ForwardWay {
    std::string name;
    Format format;
    std::function<Tensor(const Tensor&)> run;
};

/// A network that has been trained for a while, so that its statistics are its own, in all ways.
struct ForwardComparison {
    explicit ForwardComparison(const Shape& shape) : problem(shape) {
        LibraryTraining training{problem.network, problem.x, problem.labels, checked_rate};
        for (std::uint64_t t = 0; t < 4; ++t) (void)training.step(t);
        problem.network = training.network();
        for (const Format format : {Format::channels_last, Format::contiguous}) {
            const TorchNetwork network{problem.network, format};
            const auto frozen = std::make_shared<torch::jit::Module>(
                torch::jit::freeze(script_of(network)));
            torch::jit::Module script = script_of(network);
            const auto optimized = std::make_shared<torch::jit::Module>(
                torch::jit::optimize_for_inference(script));
            const auto run = [](const auto& module) {
                return [module](const Tensor& x) { return module->forward({x}).toTensor(); };
            };
            ways.push_back({"Eager" + text_of(format), format,
                            [network](const Tensor& x) { return network(x, false); }});
            ways.push_back({"Frozen" + text_of(format), format, run(frozen)});
            ways.push_back({"Optimized" + text_of(format), format, run(optimized)});
        }
    }

    [[nodiscard]] Matrix input(Index count) const { return problem.x.leftCols(count); }
    [[nodiscard]] Tensor input(Index count, Format format) const {
        return in_format(to_images(input(count), problem.shape.input), format);
    }

    /// Requires the same outputs.
    void check() const {
        double found = 0;
        for (const Index count : {Index{1}, images}) {
            const Matrix ours = problem.network(input(count));
            for (const ForwardWay& way : ways) {
                const Tensor x = input(count, way.format);
                // The first calls of a script are those that it is compiled in.
                for (int call = 0; call < 3; ++call) {
                    const double apart = error(ours, from_torch<float>(way.run(x)));
                    require(problem.shape.image() + ", " + way.name + ": outputs", apart,
                            output_tolerance);
                    found = worse(found, apart);
                }
            }
        }
        std::printf("forward, %s: outputs differ by %.1e relative at most\n",
                    problem.shape.image().c_str(), found);
    }

    Problem problem;
    std::vector<ForwardWay> ways;
};

/// A way to train by LibTorch's autograd and its optimizer.
struct Way {
    std::string name;
    Masking masking;
    Format format;
};
[[nodiscard]] std::vector<Way> ways(bool all, bool sampled) {
    std::vector<Way> list;
    for (const Format format : {Format::channels_last, Format::contiguous}) {
        if (all) list.push_back({"All" + text_of(format), Masking::all, format});
        if (sampled) {
            list.push_back({"Row" + text_of(format), Masking::row, format});
            list.push_back({"Select" + text_of(format), Masking::select, format});
        }
    }
    return list;
}

/// LibTorch's side.
class TorchTraining {
public:
    TorchTraining(const Problem& problem, const Way& way, double rate)
        : way_(way),
          network_(problem.network, way.format),
          x_(in_format(to_images(problem.x, problem.shape.input), way.format)),
          labels_(to_labels(problem.labels)),
          parameters_(network_.parameters()),
          optimizer_(parameters_, torch::optim::SGDOptions(rate).momentum(momentum)) {
        for (Tensor& parameter : parameters_) parameter.requires_grad_();
        for (std::uint64_t t = 0; t < mask_steps; ++t) masks_.emplace_back(problem.masks(t));
    }

    double step(std::uint64_t t) {
        const Tensor loss = torch::nn::functional::cross_entropy(
            network_(x_, true, way_.masking, &masks_[t % mask_steps]), labels_);
        loss.backward();
        optimizer_.step();
        for (Tensor& parameter : parameters_) parameter.mutable_grad().reset();
        return loss.item<double>();
    }
    [[nodiscard]] const TorchNetwork& network() const { return network_; }

private:
    Way way_;
    TorchNetwork network_;
    Tensor x_, labels_;
    std::vector<Tensor> parameters_;
    std::vector<TorchMasks> masks_;
    torch::optim::SGD optimizer_;
};

/// Requires that both sides, in three steps from the same weights under the same masks, go the same
/// way: losses are compared, how far the parameters have moved, and the running statistics.
void check_steps(const Problem& problem) {
    LibraryTraining library{problem.network, problem.x, problem.labels, checked_rate};
    const auto start = parameters_of(problem.network);
    std::vector<double> losses;
    for (std::uint64_t t = 0; t < 3; ++t) losses.push_back(library.step(t));
    const auto end = parameters_of(library.network()), state = state_of(library.network());
    double by_loss = 0, by_update = 0, by_state = 0;
    for (const Way& way : ways(problem.shape.full_depth(), true)) {
        if (way.masking == Masking::row && !problem.shape.full_depth()) continue;
        TorchTraining torch_side{problem, way, checked_rate};
        for (std::uint64_t t = 0; t < 3; ++t)
            by_loss = worse(by_loss, std::abs(torch_side.step(t) / losses[t] - 1));
        const auto theirs = torch_side.network().values();
        double apart = 0, all = 0;
        for (std::size_t i = 0; i < start.size(); ++i) {
            apart += static_cast<double>((end[i] - theirs.at(i)).squaredNorm());
            all += static_cast<double>((end[i] - start[i]).squaredNorm());
        }
        by_update = worse(by_update, std::sqrt(apart / all));
        for (std::size_t i = 0; i < convolutions; ++i) {
            const TorchConvolution& layer = torch_side.network().layers[i];
            by_state = worse(by_state, error(state.at(2 * i),
                                             from_torch<float>(layer.mean.unsqueeze(0))));
            by_state = worse(by_state, error(state.at(2 * i + 1),
                                             from_torch<float>(layer.variance.unsqueeze(0))));
        }
        const std::string label = problem.shape.label() + ", " + way.name;
        require(label + ": losses", by_loss, loss_tolerance);
        require(label + ": updates", by_update, update_tolerance);
        require(label + ": running statistics", by_state, loss_tolerance);
    }
    std::printf(
        "three steps of %s: losses %.3f, %.3f, %.3f differ by %.1e relative at most, updates by "
        "%.1e, running statistics by %.1e\n",
        problem.shape.label().c_str(), losses[0], losses[1], losses[2], by_loss, by_update,
        by_state);
}

/// Both sides' passes through one layer, forward and back.
class LayerCheck {
public:
    explicit LayerCheck(std::string what) : what_(std::move(what)) {}
    ~LayerCheck() {
        std::printf("%s: %d shapes, outputs and gradients differ by %.1e relative at most\n",
                    what_.c_str(), count_, largest_);
    }

    void compare(const Matrix& ours, const Matrix& theirs) {
        require(what_, error(ours, theirs), output_tolerance);
        largest_ = worse(largest_, error(ours, theirs));
    }

    /// One more shape: a layer, and what is to be the same function of LibTorch's images.
    template <class Layer, class Function>
    void check(const Layer& layer, typename Layer::Gradient& gradient, sd::Philox& random,
               const Function& theirs) {
        const sd::ImageShape in = layer.input_shape();
        const Matrix x = random_matrix(random, in.size(), 8);
        Matrix y(layer.output_shape().size(), 8), dx(x.rows(), 8);
        const Matrix dy = random_matrix(random, y.rows(), 8);
        typename Layer::Cache cache;
        layer.forward(x, y, cache);
        layer.backward(x, dy, cache, gradient, dx);
        const Tensor input = in_format(to_images(x, in), Format::channels_last).requires_grad_();
        const Tensor output = theirs(input);
        output.backward(to_images(dy, layer.output_shape()));
        compare(y, from_images(output));
        compare(dx, from_images(input.grad()));
        count();
    }
    void count() { ++count_; }

private:
    std::string what_;
    int count_ = 0;
    double largest_ = 0;
};

[[nodiscard]] Index whole(sd::Philox& random, Index low, Index high) {
    return low + static_cast<Index>(random() % static_cast<std::uint32_t>(high - low + 1));
}

/// A normalisation by the batch, its running statistics, and its way back, through to the weights
/// of a convolution before it.
void check_norm_step(LayerCheck& result, const sd::ImageShape& shape,
                     const sd::BatchNorm<float>& channels, const std::vector<Tensor>& theirs,
                     sd::Philox& random) {
    using Convolved = sd::Sequential<sd::Conv2d<float>, sd::BatchNorm2d<float>>;
    // Of more channels: a normalisation takes away what a single factor does.
    const sd::ImageShape input{shape.channels + 2, shape.height, shape.width};
    Convolved network{sd::Conv2d<float>{input,
                                        {.channels = shape.channels, .kernel = 1, .bias = false},
                                        random},
                      sd::BatchNorm2d<float>{shape, channels}};
    const Matrix x = random_matrix(random, input.size(), 8);
    Eigen::VectorXi labels(x.cols());
    for (int& label : labels) label = static_cast<int>(whole(random, 0, shape.size() - 1));
    const Tensor weight = to_windows(parameters_of(network)[0], 1).contiguous().requires_grad_();
    const Tensor y = torch::batch_norm(torch::conv2d(to_images(x, input), weight), theirs[0],
                                       theirs[1], theirs[2], theirs[3], true, 0.1, 1e-5, false);
    torch::nn::functional::cross_entropy(y.permute({0, 2, 3, 1}).flatten(1), to_labels(labels))
        .backward();

    sd::TrainingStep<Convolved, sd::SoftmaxCrossEntropy<float>> step{network, {}};
    (void)step.differentiate(network, x, labels, 0);
    std::vector<Matrix> slopes;
    sd::detail::visit_parameters(
        network,
        [&](const char*, const auto&, const auto& slope) { slopes.emplace_back(slope); },
        step.gradient());
    step.finish(network);
    const std::vector<Matrix> state = state_of(network);
    const auto column = [](const Tensor& entries) {
        return from_torch<float>(entries.unsqueeze(0));
    };
    result.compare(slopes.at(0), from_windows(weight.grad()));
    result.compare(slopes.at(1), column(theirs[0].grad()));
    result.compare(slopes.at(2), column(theirs[1].grad()));
    result.compare(state.at(0), column(theirs[2]));
    result.compare(state.at(1), column(theirs[3]));
    result.count();
}

/// Single layers of random shapes: strides, borders, kernels larger than the image.
void check_layers() {
    sd::Philox random{11};
    LayerCheck convolution{"Conv2d"}, largest{"MaxPool2d"}, mean{"AveragePool2d"},
        norm{"BatchNorm2d in use"}, step{"BatchNorm2d in a step"};
    for (int trial = 0; trial < 100; ++trial) {
        const sd::ImageShape shape{whole(random, 1, 20), whole(random, 1, 9), whole(random, 1, 9)};
        const Index kernel = whole(random, 1, 5), stride = whole(random, 1, 3);
        const Index side = std::min(shape.height, shape.width);
        const auto stride_of = [&] { return torch::IntArrayRef{&stride, 1}; };

        const Index padding = whole(random, std::max<Index>(0, (kernel - side + 1) / 2), kernel);
        const sd::Conv2d<float> conv{shape,
                                     {.channels = whole(random, 1, 20),
                                      .kernel = kernel,
                                      .stride = stride,
                                      .padding = padding},
                                     random};
        auto by_conv = conv.zero_gradient();
        const Tensor weight = to_windows(conv.weights(), kernel).contiguous().requires_grad_();
        const Tensor shift = to_vector(conv.bias()).requires_grad_();
        convolution.check(conv, by_conv, random, [&](const Tensor& h) {
            return torch::conv2d(h, weight, shift, stride_of(), padding);
        });
        convolution.compare(by_conv.weights, from_windows(weight.grad()));
        convolution.compare(by_conv.bias, from_torch<float>(shift.grad().unsqueeze(0)));

        // LibTorch's pooling allows no more padding than half of the window.
        const Index inside = std::min(kernel, side), border = whole(random, 0, inside / 2);
        const sd::Pool2dOptions options{.kernel = inside, .stride = stride, .padding = border};
        sd::detail::NoGradient none;
        largest.check(sd::MaxPool2d<float>{shape, options}, none, random, [&](const Tensor& h) {
            return torch::max_pool2d(h, inside, stride_of(), border);
        });
        mean.check(sd::AveragePool2d<float>{shape, options}, none, random, [&](const Tensor& h) {
            return torch::avg_pool2d(h, inside, stride_of(), border, false, false);
        });

        const auto numbers = [&] {
            return sd::Vector<float>(random_matrix(random, shape.channels, 1));
        };
        const sd::Vector<float> variance = numbers().array().square() + 0.1F;
        const sd::BatchNorm<float> channels{numbers(), numbers(), numbers(), variance};
        const sd::BatchNorm2d<float> layer{shape, channels};
        const auto tensors = [](const sd::BatchNorm<float>& from) {
            return std::vector<Tensor>{to_vector(from.gain()).requires_grad_(),
                                       to_vector(from.bias()).requires_grad_(),
                                       to_vector(from.running_mean()),
                                       to_vector(from.running_variance())};
        };
        const std::vector<Tensor> use = tensors(channels);
        auto by_norm = layer.zero_gradient();
        norm.check(layer, by_norm, random, [&](const Tensor& h) {
            return torch::batch_norm(h, use[0], use[1], use[2], use[3], false, 0.1, 1e-5, false);
        });
        norm.compare(by_norm.gain, from_torch<float>(use[0].grad().unsqueeze(0)));
        norm.compare(by_norm.bias, from_torch<float>(use[1].grad().unsqueeze(0)));
        // A softmax over one channel takes no notice of its bias.
        if (shape.channels == 1) continue;
        check_norm_step(step, {shape.channels, shape.height + 2, shape.width + 2}, channels,
                        tensors(channels), random);
    }
}

[[nodiscard]] std::string library_forward(const Shape& shape, Index count) {
    return "BM_StochasticDepthForward/" + shape.image() + "/images:" + std::to_string(count);
}
[[nodiscard]] std::string torch_forward(const Shape& shape, Index count, const std::string& way) {
    return "BM_LibTorchForward" + way + "/" + shape.image() + "/images:" + std::to_string(count);
}
[[nodiscard]] std::string library_step(const Shape& shape, int threads) {
    return "BM_StochasticDepthStep/" + shape.label() + "/threads:" + std::to_string(threads);
}
[[nodiscard]] std::string torch_step(const Shape& shape, const std::string& way) {
    return "BM_LibTorchStep" + way + "/" + shape.label() + "/threads:1";
}

benchmark::internal::Benchmark* add(const std::string& name,
                                    const std::function<void(benchmark::State&)>& body) {
    // Enough that the memory of the program that ran before is no longer felt.
    return benchmark::RegisterBenchmark(name.c_str(), body)
        ->Unit(benchmark::kMillisecond)
        ->MinTime(0.3);
}

void add_forward(const ForwardComparison& comparison, std::vector<Ratio>& ratios) {
    const Shape& shape = comparison.problem.shape;
    for (const Index count : {images, Index{1}}) {
        add(library_forward(shape, count), [&, count](benchmark::State& state) {
            const Matrix x = comparison.input(count);
            Matrix y(classes, count);
            comparison.problem.network.forward(x, y);
            for (auto _ : state) {
                comparison.problem.network.forward(x, y);
                benchmark::ClobberMemory();
            }
        });
        std::vector<std::string> peers;
        for (const ForwardWay& way : comparison.ways) {
            peers.push_back(torch_forward(shape, count, way.name));
            add(peers.back(), [&, count](benchmark::State& state) {
                const c10::InferenceMode no_gradients;
                const Tensor x = comparison.input(count, way.format);
                (void)way.run(x);
                for (auto _ : state) {
                    const Tensor y = way.run(x);
                    benchmark::DoNotOptimize(y.data_ptr<float>());
                }
            });
        }
        ratios.push_back({"forward / LibTorch's fastest form, " + shape.image() + ", images " +
                              std::to_string(count),
                          library_forward(shape, count), peers, count == 1 ? 2.0 : 1.4});
    }
}

template <class Training>
void measure(benchmark::State& state, Training training) {
    std::uint64_t t = 0;
    double loss = 0;
    // The first steps find the memory that the later ones use again.
    while (t < 3) loss = training.step(t++);
    for (auto _ : state) {
        loss = training.step(t++);
        benchmark::DoNotOptimize(loss);
    }
    if (!std::isfinite(loss)) state.SkipWithError("the loss is not finite");
}

void add_steps(const Problem& problem, std::vector<Ratio>& ratios) {
    const Shape& shape = problem.shape;
    for (const int threads : {1, 2}) {
        auto* const added = add(library_step(shape, threads), [&, threads](auto& state) {
            measure(state,
                    LibraryTraining{problem.network, problem.x, problem.labels, measured_rate,
                                    static_cast<unsigned>(threads), {},
                                    static_cast<Index>(threads)});
        });
        if (threads > 1) added->UseRealTime();
    }
    std::vector<std::string> peers;
    for (const Way& way : ways(shape.full_depth(), !shape.full_depth())) {
        peers.push_back(torch_step(shape, way.name));
        add(peers.back(), [&, way](benchmark::State& state) {
            measure(state, TorchTraining{problem, way, measured_rate});
        });
    }
    ratios.push_back({"training step / LibTorch's fastest form, " + shape.label(),
                      library_step(shape, 1), peers, shape.full_depth() ? 1.5 : 1.9});
    ratios.push_back({"training step, two threads with a shard each / one thread, " + shape.label(),
                      library_step(shape, 2),
                      {library_step(shape, 1)},
                      1.8});
}

}  // namespace

int main(int argc, char** argv) {
    at::set_num_interop_threads(1);
    set_threads(1);
    check_layers();
    std::vector<std::unique_ptr<ForwardComparison>> passes;
    std::vector<std::unique_ptr<Problem>> problems;
    std::vector<Ratio> ratios;
    for (const sd::ImageShape& input : {sd::ImageShape{3, 32, 32}, sd::ImageShape{1, 28, 28}}) {
        passes.push_back(std::make_unique<ForwardComparison>(Shape{input}));
        passes.back()->check();
        add_forward(*passes.back(), ratios);
        for (const double last : {1.0, 0.5}) {
            problems.push_back(std::make_unique<Problem>(Shape{input, last}));
            check_steps(*problems.back());
            add_steps(*problems.back(), ratios);
        }
    }
    benchmark::AddCustomContext("LibTorch", TORCH_VERSION);
    benchmark::AddCustomContext("LibTorch's BLAS", blas());
    return run_benchmarks(argc, argv, std::move(ratios));
}
