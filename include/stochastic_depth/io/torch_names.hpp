// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/tensor_names.hpp>
#include <stochastic_depth/models/transformer.hpp>
#include <stochastic_depth/types.hpp>

/// Names that networks of models/ have in PyTorch, for load_safetensors and save_safetensors.
namespace stochastic_depth {
namespace detail {

/// Names of layers, each with all of its tensors.
class LayerNames {
public:
    void add(const std::string& in_file, const std::string& in_network,
             const std::vector<std::string_view>& tensors) {
        for (const std::string_view tensor : tensors)
            names_.push_back({message(in_file, ".", tensor), message(in_network, ".", tensor)});
    }
    void add_convolution(const std::string& in_file, const std::string& in_network) {
        add(in_file, in_network, {"weight"});
    }
    void add_linear(const std::string& in_file, const std::string& in_network) {
        add(in_file, in_network, {"weight", "bias"});
    }
    void add_batch_norm(const std::string& in_file, const std::string& in_network) {
        add(in_file, in_network, {"weight", "bias", "running_mean", "running_var"});
    }
    [[nodiscard]] TensorNames take() && { return std::move(names_); }

private:
    TensorNames names_;
};

}  // namespace detail

/// Of `resnet` with activations behind the sums, as torchvision calls the layers of a ResNet of basic
/// blocks: "layer1.0.conv1.weight", "layer2.0.downsample.0.weight" (of shortcuts that are
/// projections), "fc.weight".
/// \param depth  As in ResNetOptions.
/// \throws std::invalid_argument  unless depth is 6 n + 2 with n >= 1.
[[nodiscard]] inline TensorNames torchvision_resnet_names(Index depth) {
    if (depth < 8 || (depth - 2) % 6 != 0)
        detail::refuse("torchvision_resnet_names: depth must be 6 n + 2 with n >= 1, got ", depth);
    detail::LayerNames names;
    names.add_convolution("conv1", "0.0");
    names.add_batch_norm("bn1", "0.1");
    const Index blocks = (depth - 2) / 6;
    for (Index stage = 1; stage <= 3; ++stage)
        for (Index k = 0; k < blocks; ++k) {
            const std::string in_file = detail::message("layer", stage, ".", k, ".");
            // A first block that changes the shape is a layer of its own, before the others.
            const bool changes = stage > 1 && k == 0;
            const std::string in_network =
                stage == 1 ? detail::message("1.", k, ".0.")
                : changes  ? detail::message(2 * stage - 2, ".0.")
                           : detail::message(2 * stage - 1, ".", k - 1, ".0.");
            names.add_convolution(in_file + "conv1", in_network + "branch.0");
            names.add_batch_norm(in_file + "bn1", in_network + "branch.1");
            names.add_convolution(in_file + "conv2", in_network + "branch.3");
            names.add_batch_norm(in_file + "bn2", in_network + "branch.4");
            if (!changes) continue;
            names.add_convolution(in_file + "downsample.0", in_network + "shortcut.0");
            names.add_batch_norm(in_file + "downsample.1", in_network + "shortcut.1");
        }
    names.add_linear("fc", "6.1");
    return std::move(names).take();
}

/// Of the blocks of `transformer_classifier` and `transformer_language_model`, as
/// torch.nn.TransformerEncoder calls its layers: "layers.0.self_attn.in_proj_weight". (Their
/// activation is GELU, there activation="gelu", and the order `pre` is norm_first=True.)
/// \param in_file  What stands before "layers" and "norm" there: "encoder.", say.
[[nodiscard]] inline TensorNames torch_encoder_names(NormOrder norm = NormOrder::pre,
                                                     const std::string& in_file = "") {
    const bool is_pre = norm == NormOrder::pre;
    const std::string layer = in_file + "layers.*.";
    const std::string attention = is_pre ? "0.2.*.0.branch." : "0.2.*.0.0.branch.";
    const std::string feed_forward = is_pre ? "0.2.*.1.branch." : "0.2.*.1.0.branch.";
    detail::LayerNames names;
    names.add(layer + "self_attn", attention + (is_pre ? "1" : "0"),
              {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"});
    names.add_linear(layer + "linear1", feed_forward + (is_pre ? "1" : "0"));
    names.add_linear(layer + "linear2", feed_forward + (is_pre ? "3" : "2"));
    names.add_linear(layer + "norm1", is_pre ? attention + "0" : "0.2.*.0.1");
    names.add_linear(layer + "norm2", is_pre ? feed_forward + "0" : "0.2.*.1.1");
    names.add_linear(in_file + "norm", "0.3");
    return std::move(names).take();
}

}  // namespace stochastic_depth
