// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
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

/// \throws std::invalid_argument  if a form of a layer's own leads past its `count` numbers, which
///                                lie within `reach`, or to more or fewer of them.
inline void check_form(std::string_view name, const TensorForm& form, Index count, Index reach) {
    const auto refuse_form = [&] {
        refuse("tensor_form: ", name, " must have shape and strides of its ", count, " numbers");
    };
    if (form.shape.size() != form.strides.size()) refuse_form();
    Index numbers = 1, last = 0;
    bool is_empty = false;
    for (std::size_t k = 0; k < form.shape.size(); ++k) {
        const Index size = form.shape[k], stride = form.strides[k];
        if (size < 0) refuse_form();
        is_empty = is_empty || size == 0;
        if (size < 2) continue;
        if (numbers > count / size || stride < 0 || stride > (reach - 1 - last) / (size - 1))
            refuse_form();
        numbers *= size;
        last += stride * (size - 1);
    }
    if ((is_empty ? 0 : numbers) != count) refuse_form();
}

/// What a layer calls a parameter elsewhere.
/// \throws std::invalid_argument  if the layer's own word for it leads elsewhere.
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
    if constexpr (requires { { layer.tensor_form(form) } -> std::same_as<TensorForm>; }) {
        form = layer.tensor_form(std::move(form));
        const Index reach = entries.size() == 0
                                ? 0
                                : 1 + (entries.rows() - 1) * entries.rowStride() +
                                      (entries.cols() - 1) * entries.colStride();
        check_form(name, form, entries.size(), reach);
    }
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

/// A visitor of tensors that passes on their names in the network.
template <class Visit>
class WithTensorNames {
public:
    explicit WithTensorNames(const Visit& visit) : visit_(&visit) {}

    void enter(std::string_view part) { parts_.emplace_back(part); }
    void enter(std::size_t part) { parts_.push_back(message(part)); }
    void leave() { parts_.pop_back(); }
    template <class Number>
    void operator()(const TensorForm& form, Number* first) const {
        std::string name;
        for (const std::string& part : parts_) {
            name += part;
            name += '.';
        }
        name += form.name;
        (*visit_)(name, form, first);
    }

private:
    const Visit* visit_;
    std::vector<std::string> parts_;
};

/// Calls visit(name, form, first) for each tensor of a network: parameters, and what layers keep
/// beside them.
template <class Network, class Visit>
void for_each_tensor(Network& network, const Visit& visit) {
    WithTensorNames<Visit> with_names{visit};
    visit_tensors(network, with_names);
}

}  // namespace detail
}  // namespace stochastic_depth
