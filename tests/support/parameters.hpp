// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/pass/folds.hpp>

/// All parameters of a layer as one vector, whatever the layer is made of.
namespace stochastic_depth::test {

/// Calls visit(parameter) for each number of the layer, in a fixed order.
template <class Layer, class Visit>
void for_each_parameter(Layer& layer, const Visit& visit) {
    detail::visit_parameters(layer, [&](const char*, auto& parameter) {
        for (Index i = 0; i < parameter.size(); ++i) visit(parameter.data()[i]);
    });
}

template <class Layer>
[[nodiscard]] Eigen::VectorXd parameters(const Layer& layer) {
    Index count = 0;
    for_each_parameter(layer, [&](auto) { ++count; });
    Eigen::VectorXd values(count);
    Index next = 0;
    for_each_parameter(layer, [&](auto value) { values(next++) = static_cast<double>(value); });
    return values;
}

/// A gradient in the order of `parameters`; 0 for what it was not reached by.
template <class Layer>
[[nodiscard]] Eigen::VectorXd slopes(Layer& layer, typename Layer::Gradient& gradient) {
    Eigen::VectorXd values = Eigen::VectorXd::Zero(parameters(layer).size());
    detail::visit_parameters(
        layer,
        [&](const char*, auto& parameter, auto& slope) {
            Index place = 0, at = -1;
            for_each_parameter(layer, [&](auto& value) {
                if (static_cast<const void*>(&value) == static_cast<const void*>(parameter.data()))
                    at = place;
                ++place;
            });
            for (Index i = 0; i < slope.size(); ++i)
                values(at + i) = static_cast<double>(slope.data()[i]);
        },
        gradient);
    return values;
}

}  // namespace stochastic_depth::test
