// SPDX-License-Identifier: MIT
#include <stochastic_depth/io/torch_names.hpp>

#include <set>
#include <stdexcept>
#include <string>

#include <stochastic_depth/io/safetensors.hpp>
#include <stochastic_depth/models/resnet.hpp>
#include <stochastic_depth/models/transformer.hpp>

#include "support/catch.hpp"
#include "support/thrown.hpp"

namespace {

using namespace stochastic_depth;

/// What a network's tensors are called in a file.
template <class Network>
std::set<std::string> names_in_file(const Network& network, const TensorNames& names) {
    std::set<std::string> found;
    detail::for_each_tensor(network, [&](const std::string& name, const TensorForm&, const auto*) {
        REQUIRE(found.insert(detail::name_in_file("test", names, name)).second);
    });
    return found;
}

void add(std::set<std::string>& names, const std::string& layer, bool has_bias, bool is_norm) {
    names.insert(layer + ".weight");
    if (has_bias) names.insert(layer + ".bias");
    if (is_norm) {
        names.insert(layer + ".running_mean");
        names.insert(layer + ".running_var");
    }
}

}  // namespace

TEST_CASE("torchvision_resnet_names: names are those of a torchvision ResNet", "[torch_names]") {
    Philox random{1};
    const ResNetOptions options{.input = {3, 8, 8}, .depth = 14, .channels = 2};
    constexpr ResNetStyle style{.shortcut = ShapeShortcut::projection};
    std::set<std::string> expected;
    add(expected, "conv1", false, false);
    add(expected, "bn1", true, true);
    for (const std::string stage : {"layer1", "layer2", "layer3"})
        for (const std::string block : {"0", "1"}) {
            const std::string path = stage + "." + block;
            add(expected, path + ".conv1", false, false);
            add(expected, path + ".bn1", true, true);
            add(expected, path + ".conv2", false, false);
            add(expected, path + ".bn2", true, true);
            if (stage == "layer1" || block == "1") continue;
            add(expected, path + ".downsample.0", false, false);
            add(expected, path + ".downsample.1", true, true);
        }
    add(expected, "fc", true, false);
    CHECK(names_in_file(resnet<float, style>(options, random), torchvision_resnet_names(14)) ==
          expected);
    CHECK(holds(thrown<std::invalid_argument>([] { (void)torchvision_resnet_names(15); }),
                "torchvision_resnet_names: depth must be 6 n + 2 with n >= 1, got 15"));
}

TEST_CASE("torch_encoder_names: names are those of a torch.nn.TransformerEncoder",
          "[torch_names]") {
    const TransformerOptions options{
        .vocabulary = 5, .positions = 3, .width = 4, .heads = 2, .feed_forward = 6, .blocks = 2};
    std::set<std::string> expected;
    for (const std::string layer : {"encoder.layers.0.", "encoder.layers.1."}) {
        for (const std::string name : {"in_proj_weight", "in_proj_bias", "out_proj.weight",
                                       "out_proj.bias"})
            expected.insert(layer + "self_attn." + name);
        for (const std::string name : {"linear1", "linear2", "norm1", "norm2"})
            add(expected, layer + name, true, false);
    }
    add(expected, "encoder.norm", true, false);
    // The embedding, and the scores of the classes.
    add(expected, "0.0", false, false);
    expected.insert("0.0.positions");
    add(expected, "2", true, false);
    Philox random{1};
    const auto pre = transformer_classifier<float>(options, random);
    CHECK(names_in_file(pre, torch_encoder_names(NormOrder::pre, "encoder.")) == expected);
    constexpr TransformerStyle post_style{.norm = NormOrder::post};
    const auto post = transformer_classifier<float, post_style>(options, random);
    CHECK(names_in_file(post, torch_encoder_names(NormOrder::post, "encoder.")) == expected);
}
