// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include <stochastic_depth/io/safetensors.hpp>
#include <stochastic_depth/layers/composition/any_layer.hpp>
#include <stochastic_depth/layers/image/image_shape.hpp>

#include "fields.hpp"

namespace inspect {

namespace sd = stochastic_depth;

/// Whatever a description says.
using Network = sd::AnyLayer<float>;

/// What a description says of a network: all but its weights.
struct Architecture {
    /// The network, of random weights, with survival probabilities [depth]; of none: of any.
    std::function<Network(const Eigen::VectorXd&)> make = {};
    sd::Index depth = 0;
    /// Rows of an input: exactly so many, or of token ids at most.
    sd::Index inputs = 0;
    std::optional<sd::ImageShape> image = std::nullopt;
    bool takes_tokens = false;
    /// Whether outputs are scores of classes, before the softmax.
    bool is_classifier = true;
    std::string survival = {};  // as --survival has it; empty: not said
    sd::TensorNames names = {};
    sd::ExtraTensors extra = sd::ExtraTensors::refuse;
};

/// Reads a description.
/// \throws common::UsageError  naming the file, the field and its value, if something is wrong.
[[nodiscard]] Architecture read_architecture(const std::string& path);

/// A description to start from. \param kind  dense, resnet or transformer.
[[nodiscard]] std::string template_of(const std::string& kind);

/// The parts of a description that one kind of network has: make, inputs and what else differs.
/// \param fields  Of which those of the kind are asked for.
[[nodiscard]] Architecture dense_architecture(Fields& fields);
[[nodiscard]] Architecture resnet_architecture(Fields& fields);
[[nodiscard]] Architecture transformer_architecture(Fields& fields);

}  // namespace inspect
