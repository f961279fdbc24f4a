// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <string>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/detail/name_of.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/parts.hpp>

/// What a network is made of, in words.
namespace stochastic_depth {
namespace detail {

/// What a layer says of itself, `description()`, or else the name of its class. Two layers of the
/// same parameters that answer differently are to be told apart by it.
template <class Layer>
[[nodiscard]] std::string description(const Layer& layer) {
    if constexpr (requires { { layer.description() } -> std::convertible_to<std::string>; })
        return layer.description();
    else
        return std::string(name_of<Layer>());
}

/// The path of a part of what has a path itself: "0.branch".
template <class Name>
[[nodiscard]] std::string path_of_part(const std::string& path, const Name& name) {
    return path.empty() ? message(name) : message(path, ".", name);
}
[[nodiscard]] inline std::string path_of_part(const std::string& path, Unnamed) { return path; }

/// Calls visit(path, description) for a layer and all layers inside it, outer before inner.
template <class Layer, class Visit>
void visit_layers(const Layer& layer, const Visit& visit, const std::string& path = {}) {
    if constexpr (hides_its_parts<Layer>) return layer.visit_layers(visit, path);
    visit(path, description(layer));
    if constexpr (HasParts<Layer>)
        Layer::visit_parts(layer, [&](const auto& name, const auto& part) {
            visit_layers(part, visit, path_of_part(path, name));
        });
}

/// A line for a layer: "0.branch.1: ReLU", or of the whole network without a path.
[[nodiscard]] inline std::string line_of_layer(const std::string& path,
                                               const std::string& description) {
    return path.empty() ? description : path + ": " + description;
}

}  // namespace detail

/// What a network is made of: a line for each layer, outer before inner, with its path, as in
/// "0.branch.1: ReLU", and what it says of itself. Checkpoints hold the same.
///
/// A layer of one's own is called by the name of its class, or by what its member
/// `std::string description() const` says.
template <class Network>
[[nodiscard]] std::string describe(const Network& network) {
    std::string lines;
    detail::visit_layers(network, [&](const std::string& path, const std::string& description) {
        lines += detail::line_of_layer(path, description) + "\n";
    });
    return lines;
}

}  // namespace stochastic_depth
