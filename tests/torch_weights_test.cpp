// SPDX-License-Identifier: MIT

// Networks of models/ with weights that LibTorch has made, through files under PyTorch's names:
// they give LibTorch's outputs.

#include <torch/torch.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include <stochastic_depth/adapters/libtorch.hpp>
#include <stochastic_depth/io/safetensors.hpp>
#include <stochastic_depth/io/torch_names.hpp>
#include <stochastic_depth/models/resnet.hpp>
#include <stochastic_depth/models/transformer.hpp>
#include <stochastic_depth/random/philox.hpp>

#include "support/catch.hpp"
#include "support/files.hpp"
#include "support/layer_contract.hpp"
#include "support/matrices.hpp"

namespace {

using namespace stochastic_depth;
// LibTorch has a detail of its own.
namespace inner = stochastic_depth::detail;
using torch::Tensor;

/// A module's state in a file, as safetensors.torch.save_file writes it.
void save_state(const std::string& path, const torch::nn::Module& module) {
    std::string header = "{", data;
    for (const auto& [name, tensor] : inner::tensors_of(module)) {
        std::string shape;
        for (const auto size : tensor.sizes())
            shape += inner::message(shape.empty() ? "" : ",", size);
        const Tensor numbers = tensor.detach().contiguous();
        const std::size_t first = data.size();
        data.append(static_cast<const char*>(numbers.data_ptr()), numbers.nbytes());
        const char* const dtype = tensor.scalar_type() == torch::kLong ? "I64" : "F32";
        header += inner::message(header.size() > 1 ? "," : "", inner::json_string(name),
                                 ":{\"dtype\":\"", dtype, "\",\"shape\":[", shape,
                                 "],\"data_offsets\":[", first, ",", data.size(), "]}");
    }
    header += "}";
    std::ofstream file(path, std::ios::binary);
    for (int i = 0; i < 8; ++i)
        file.put(static_cast<char>(std::uint64_t{header.size()} >> (8 * i) & 0xff));
    file << header << data;
}

/// Numbers of LibTorch for every tensor, so that no gain is 1 and no mean 0.
void draw(torch::nn::Module& module) {
    const torch::NoGradGuard no_gradients;
    for (auto& each : module.named_parameters())
        if (each.value().dim() < 2) each.value().add_(torch::randn_like(each.value()), 0.2);
    for (auto& each : module.named_buffers()) {
        if (!each.value().is_floating_point()) continue;
        if (each.key().find("mean") != std::string::npos)
            each.value().normal_(0, 0.3);
        else
            each.value().uniform_(0.5, 1.5);
    }
}

torch::nn::Conv2d convolution(Index inputs, Index outputs, Index kernel, Index stride) {
    return torch::nn::Conv2d(torch::nn::Conv2dOptions(inputs, outputs, kernel)
                                 .stride(stride)
                                 .padding(kernel / 2)
                                 .bias(false));
}

/// torchvision's BasicBlock.
struct BlockImpl : torch::nn::Module {
    BlockImpl(Index inputs, Index outputs, Index stride) {
        conv1 = register_module("conv1", convolution(inputs, outputs, 3, stride));
        bn1 = register_module("bn1", torch::nn::BatchNorm2d(outputs));
        conv2 = register_module("conv2", convolution(outputs, outputs, 3, 1));
        bn2 = register_module("bn2", torch::nn::BatchNorm2d(outputs));
        if (inputs != outputs)
            downsample = register_module(
                "downsample", torch::nn::Sequential(convolution(inputs, outputs, 1, stride),
                                                    torch::nn::BatchNorm2d(outputs)));
    }
    Tensor forward(const Tensor& x) {
        const Tensor h = bn2(conv2(torch::relu(bn1(conv1(x)))));
        return torch::relu(h + (downsample ? downsample->forward(x) : x));
    }
    torch::nn::Conv2d conv1{nullptr}, conv2{nullptr};
    torch::nn::BatchNorm2d bn1{nullptr}, bn2{nullptr};
    torch::nn::Sequential downsample{nullptr};
};
TORCH_MODULE(Block);

/// torchvision's ResNet, of the stages that images of 32 x 32 go through.
struct TorchResNet : torch::nn::Module {
    TorchResNet(Index depth, Index channels) {
        conv1 = register_module("conv1", convolution(3, channels, 3, 1));
        bn1 = register_module("bn1", torch::nn::BatchNorm2d(channels));
        Index inputs = channels;
        for (Index stage = 0; stage < 3; ++stage) {
            torch::nn::Sequential layer;
            for (Index k = 0; k < (depth - 2) / 6; ++k) {
                layer->push_back(Block(inputs, channels << stage, stage > 0 && k == 0 ? 2 : 1));
                inputs = channels << stage;
            }
            layers.push_back(register_module(inner::message("layer", stage + 1), layer));
        }
        fc = register_module("fc", torch::nn::Linear(inputs, 10));
    }
    Tensor forward(const Tensor& x) {
        Tensor h = torch::relu(bn1(conv1(x)));
        for (torch::nn::Sequential& layer : layers) h = layer->forward(h);
        return fc(h.mean({2, 3}));
    }
    torch::nn::Conv2d conv1{nullptr};
    torch::nn::BatchNorm2d bn1{nullptr};
    std::vector<torch::nn::Sequential> layers;
    torch::nn::Linear fc{nullptr};
};

/// A classifier of token sequences around LibTorch's encoder, for ids as numbers, -1 behind the
/// sequences' ends.
struct TorchEncoder : torch::nn::Module {
    explicit TorchEncoder(const TransformerOptions& options) {
        tokens = register_module("tokens", torch::nn::Embedding(options.vocabulary, options.width));
        positions =
            register_parameter("positions", torch::randn({options.positions, options.width}));
        const torch::nn::TransformerEncoderLayer layer(
            torch::nn::TransformerEncoderLayerOptions(options.width, options.heads)
                .dim_feedforward(options.feed_forward)
                .dropout(0)
                .activation(torch::kGELU));
        encoder = register_module("encoder",
                                  torch::nn::TransformerEncoder(
                                      torch::nn::TransformerEncoderOptions(layer, options.blocks)
                                          .norm(torch::nn::AnyModule(torch::nn::LayerNorm(
                                              torch::nn::LayerNormOptions({options.width}))))));
        fc = register_module("fc", torch::nn::Linear(options.width, options.classes));
    }
    Tensor forward(const Tensor& x) {
        const Tensor h = tokens(x.clamp_min(0).to(torch::kLong)) + positions.slice(0, 0, x.size(1));
        const Tensor y = encoder(h.transpose(0, 1), Tensor{}, x < 0).transpose(0, 1);
        const Tensor is_there = (x >= 0).to(torch::kFloat).unsqueeze(2);
        return fc((y * is_there).sum(1) / is_there.sum(1));
    }
    torch::nn::Embedding tokens{nullptr};
    Tensor positions;
    torch::nn::TransformerEncoder encoder{nullptr};
    torch::nn::Linear fc{nullptr};
};

/// The largest difference, in parts of the largest output.
template <class Network>
double error(const Network& network, const TorchLayer<float>& torch_network,
             const Matrix<float>& x) {
    const Matrix<float> theirs = test::run(torch_network, x);
    return test::largest_difference(network(x), theirs) /
           static_cast<double>(theirs.cwiseAbs().maxCoeff());
}

}  // namespace

TEST_CASE("torchvision_resnet_names: a ResNet-20 of LibTorch's weights gives its outputs",
          "[torch_weights]") {
    torch::manual_seed(11);
    const auto module = std::make_shared<TorchResNet>(20, 8);
    draw(*module);
    const test::TemporaryFile file;
    save_state(file.path(), *module);
    Philox random{1};
    const ResNetOptions options{.input = {3, 16, 16}, .depth = 20, .channels = 8};
    constexpr ResNetStyle style{.shortcut = ShapeShortcut::projection};
    auto network = resnet<float, style>(options, random);
    const Matrix<float> x = test::random_matrix<float>(random, options.input.size(), 4);
    const TorchLayer<float> torch_network{module, options.input};
    REQUIRE(error(network, torch_network, x) > 0.1);
    load_safetensors(file.path(), network, torchvision_resnet_names(20));
    CHECK(error(network, torch_network, x) <= 1e-5);
}

TEST_CASE("torch_encoder_names: an encoder of LibTorch's weights gives its outputs",
          "[torch_weights]") {
    torch::manual_seed(12);
    const TransformerOptions options{.vocabulary = 12,
                                     .positions = 7,
                                     .width = 16,
                                     .heads = 4,
                                     .feed_forward = 24,
                                     .blocks = 2,
                                     .classes = 3};
    const auto module = std::make_shared<TorchEncoder>(options);
    draw(*module);
    const test::TemporaryFile file;
    save_state(file.path(), *module);
    Philox random{1};
    constexpr TransformerStyle style{.norm = NormOrder::post};
    auto network = transformer_classifier<float, style>(options, random);
    Matrix<float> x(7, 5);
    for (Index j = 0; j < x.cols(); ++j)
        for (Index i = 0; i < x.rows(); ++i)
            x(i, j) = i < 7 - j ? static_cast<float>(random() % 12) : -1;
    // What LibTorch tries a layer out with are no tokens but for those that are rounded to some.
    const TorchLayer<float> torch_network{module, 7};
    REQUIRE(error(network, torch_network, x) > 0.1);
    TensorNames names = torch_encoder_names(NormOrder::post, "encoder.");
    names.insert(names.end(), {{"tokens.weight", "0.0.weight"},
                               {"positions", "0.0.positions"},
                               {"fc.weight", "2.weight"},
                               {"fc.bias", "2.bias"}});
    load_safetensors(file.path(), network, names);
    CHECK(error(network, torch_network, x) <= 1e-5);
}
