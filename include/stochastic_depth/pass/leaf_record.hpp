// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/pass/memory_kinds.hpp>
#include <stochastic_depth/pass/parts.hpp>

/// What a leaf leaves on a tape: its input, or, of an element-wise layer whose derivative is known
/// from its output, that. An output is mostly the input that the next layer keeps, so that it is
/// there once.
namespace stochastic_depth::detail {

/// Whether nothing but a leaf's input is needed on its way back, so that columns may go through it
/// in parts.
template <class Layer>
inline constexpr bool needs_input_alone = [] {
    if constexpr (requires { typename Layer::Cache; })
        return !RunsItself<Layer> && std::is_same_v<typename Layer::Cache, NoCache>;
    else
        return false;
}();

/// Whether the way back through a leaf is a multiplication by its derivative, entry by entry.
template <class Layer>
inline constexpr bool has_derivative = ElementwiseLayer<Layer> && needs_input_alone<Layer> &&
    requires(const Layer& layer, typename Layer::Scalar z) { layer.derivative(z); };

/// Whether that derivative is a function of the leaf's output too.
template <class Layer>
inline constexpr bool keeps_output = has_derivative<Layer> &&
    requires(const Layer& layer, typename Layer::Scalar y) { layer.derivative_of_output(y); };

template <class Layer>
struct LeafRecord {
    RecordedMatrix<typename Layer::Scalar> input;
    typename Layer::Cache cache;
};
template <class Layer>
    requires keeps_output<Layer>
struct LeafRecord<Layer> {
    RecordedMatrix<typename Layer::Scalar> output;
};

/// Epilogue on the way back through an element-wise leaf: multiplies by its derivative.
template <class Layer>
[[nodiscard]] auto by_derivative(const Layer& layer, const LeafRecord<Layer>& record) {
    if constexpr (keeps_output<Layer>)
        return by_derivative<true>(layer, record.output.view());
    else
        return by_derivative(layer, record.input.view());
}

}  // namespace stochastic_depth::detail
