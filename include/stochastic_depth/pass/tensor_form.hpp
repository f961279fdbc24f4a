// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/parts.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// What a parameter is elsewhere, in PyTorch above all: its name in its layer, its shape, and where
/// each entry of a tensor of that shape lies among the layer's numbers.
///
/// A layer that is known there by other names or shapes says so by a member; without it names stay
/// as they are, and a matrix is a tensor of two dimensions:
///
///     TensorForm tensor_form(TensorForm form) const {
///         if (form.name == "weights") form.name = "weight";
///         return form;
///     }
struct TensorForm {
    std::string name;
    /// The last index changes fastest in the tensor.
    std::vector<Index> shape;
    /// Entry (i, j, ...) is the layer's number i strides[0] + j strides[1] + ...
    std::vector<Index> strides;

    /// A matrix in columns.
    [[nodiscard]] static TensorForm of_matrix(std::string name, Index rows, Index columns) {
        return {std::move(name), {rows, columns}, {1, rows}};
    }
    /// The same numbers under another name, if that is what they are called.
    [[nodiscard]] TensorForm renamed(std::string_view from, std::string_view to) && {
        if (name == from) name = to;
        return std::move(*this);
    }
};

namespace detail {

/// What a layer calls a parameter elsewhere.
template <class Layer, class Entries>
[[nodiscard]] TensorForm tensor_form(const Layer& layer, const char* name, const Entries& entries) {
    TensorForm form{name, {}, {}};
    if constexpr (Entries::IsVectorAtCompileTime) {
        form.shape = {entries.size()};
        form.strides = {entries.innerStride()};
    } else {
        form.shape = {entries.rows(), entries.cols()};
        form.strides = {entries.rowStride(), entries.colStride()};
    }
    if constexpr (requires { { layer.tensor_form(form) } -> std::same_as<TensorForm>; })
        return layer.tensor_form(std::move(form));
    else
        return form;
}

/// A visitor of one layer's parameters and state, that passes on what they are elsewhere.
template <class Layer, class Visit>
class TensorsOfLayer {
public:
    TensorsOfLayer(const Layer& layer, Visit& visit) : layer_(&layer), visit_(&visit) {}

    template <class Name>
    void enter(const Name& name) const {
        enter_part(*visit_, name);
    }
    void leave() const { leave_part<std::string_view>(*visit_); }
    template <class Entries>
    void operator()(const char* name, Entries& entries) const {
        (*visit_)(tensor_form(*layer_, name, entries), entries.data());
    }

private:
    const Layer* layer_;
    Visit* visit_;
};

/// Calls visit(form, first) for each parameter of a layer, and for what it keeps beside them, as
/// they are elsewhere; `first` points to their numbers. A visitor that has `enter` and `leave`
/// learns from them which part it is in.
template <class Layer, class Visit>
void visit_tensors(Layer& layer, Visit& visit) {
    using Type = std::remove_const_t<Layer>;
    using Of = TensorsOfLayer<Type, Visit>;
    // A composite that names parameters of its own is taken at its word. That of a skippable layer
    // leaves out what wasn't reached, and names nothing itself.
    constexpr bool names_its_own = requires(const Of& of) { Type::visit_parameters(layer, of); };
    if constexpr (hides_its_parts<Type>) {
        Type::visit_tensors(layer, visit);
    } else if constexpr (HasParts<Type> && (is_skippable<Type> || !names_its_own)) {
        descend_into_parts(layer, visit, [&](auto& part) { visit_tensors(part, visit); });
    } else {
        const Of of_layer{layer, visit};
        visit_parameters(layer, of_layer);
        visit_state(layer, of_layer);
    }
}

}  // namespace detail
}  // namespace stochastic_depth
