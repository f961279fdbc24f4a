// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include <stochastic_depth/types.hpp>

/// What a composite is made of, and what follows from that. A composite derives from LayerBase,
/// which lists the types of its parts, and has a member `visit_parts`, which visits them:
///
///     template <class Self, class Visit, class... Others>
///     static void visit_parts(Self& self, Visit&& visit, Others&... others) {
///         visit("branch", self.branch_, others.branch...);
///     }
///
/// `others` are what has the composite's shape: gradients, records. Everything that can be asked of
/// a structure is a fold over parts; a leaf says what it has.
namespace stochastic_depth {

template <class Derived, class Scalar_, class... Layers>
class LayerBase;

namespace detail {

template <class... Layers>
struct Types {};

template <class Derived, class Scalar, class... Layers>
Types<Layers...> types_of_parts(const LayerBase<Derived, Scalar, Layers...>*);
Types<> types_of_parts(const void*);

template <class Layer>
using PartsOf = decltype(types_of_parts(static_cast<const Layer*>(nullptr)));

/// Whether a layer is made of layers.
template <class Layer>
concept HasParts = !std::is_same_v<PartsOf<Layer>, Types<>>;

/// Trait<Part>::value of any part.
template <template <class> class Trait, class Parts>
inline constexpr bool any_part = false;
template <template <class> class Trait, class... Layers>
inline constexpr bool any_part<Trait, Types<Layers...>> = (Trait<Layers>::value || ...);

/// The memory of a pass: one that forgets keeps nothing for a way back.
struct Forgets;
class Records;

/// A layer that takes part in passes itself, with members `Record<Memory>`, `run` and
/// `backpropagate`: one that is made of layers, or that does in a training step what it doesn't do
/// in use.
template <class Layer>
concept RunsItself = requires {
    typename Layer::template Record<Forgets>;
};

/// Whether layers compute in one Scalar.
template <class First, class... Others>
inline constexpr bool one_scalar =
    (std::is_same_v<typename First::Scalar, typename Others::Scalar> && ...);

/// What the first of some layers computes in.
template <class... Layers>
using ScalarOfFirst = typename std::tuple_element_t<0, std::tuple<Layers...>>::Scalar;

/// Whether a mask has a bit for the layer itself.
template <class Layer>
inline constexpr bool is_skippable = requires {
    requires Layer::is_skippable;
};

/// Whether a layer is skippable or contains skippable layers.
template <class Layer>
struct HasSkippableLayers {
    static constexpr bool claims_some = requires(const Layer& layer) {
        layer.survival_probabilities();
    };
    static_assert(RunsItself<Layer> || !claims_some,
                  "a layer with survival probabilities has skippable layers inside: it must hand "
                  "the mask on to them. Derive it from LayerBase, with run, backpropagate, walk "
                  "and visit_parts (docs/extending.md)");
    static constexpr bool value =
        is_skippable<Layer> || any_part<HasSkippableLayers, PartsOf<Layer>>;
};
template <class Layer>
inline constexpr bool has_skippable_layers = HasSkippableLayers<Layer>::value;

/// Whether some skippable layer in a layer is no residual one, so that it has no branch to scale.
template <class Layer>
struct SkipsMoreThanBranches {
    static constexpr bool value = [] {
        if constexpr (requires { Layer::skips_more_than_a_branch; })
            if (Layer::skips_more_than_a_branch) return true;
        return any_part<SkipsMoreThanBranches, PartsOf<Layer>>;
    }();
};

/// Whether a layer keeps statistics of the batches that it is trained on, or contains such layers.
template <class Layer>
struct HasStatistics {
    static constexpr bool value = [] {
        if constexpr (requires { Layer::has_statistics; })
            return Layer::has_statistics;
        else
            return any_part<HasStatistics, PartsOf<Layer>>;
    }();
};
template <class Layer>
inline constexpr bool has_statistics = HasStatistics<Layer>::value;

/// Whether a layer draws random numbers of its own in a training step, or contains such layers.
template <class Layer>
struct HasRandomLayers {
    static constexpr bool value = [] {
        if constexpr (requires { Layer::draws_random_numbers; })
            return Layer::draws_random_numbers;
        else
            return any_part<HasRandomLayers, PartsOf<Layer>>;
    }();
};

template <class Layer>
struct IsDifferentiable;

template <class Parts>
inline constexpr bool all_differentiable = true;
template <class... Layers>
inline constexpr bool all_differentiable<Types<Layers...>> =
    (IsDifferentiable<Layers>::value && ...);

template <class Layer>
inline constexpr bool parts_are_differentiable = all_differentiable<PartsOf<Layer>>;

/// Any matrix and any gradients, for asking whether a call compiles.
struct AnyVisit {
    template <class... Arguments>
    void operator()(const Arguments&...) const {}
};

/// Whether a gradient is empty, or its layer names the parameters that it is by. Without, the
/// parameters would never be trained nor saved.
template <class Layer>
inline constexpr bool gradient_is_empty_or_visit_parameters_names_it =
    std::is_empty_v<typename Layer::Gradient> || HasParts<Layer> ||
    requires(Layer& layer, const AnyVisit& visit, typename Layer::Gradient& gradient) {
    Layer::visit_parameters(layer, visit, gradient);
};

/// Calls function(i) for i = 0, ..., N - 1 with compile-time indices, as std::get takes them.
template <std::size_t N, class Function>
void for_each_index(const Function& function) {
    [&]<std::size_t... i>(std::index_sequence<i...>) {
        (function(std::integral_constant<std::size_t, i>{}), ...);
    }
    (std::make_index_sequence<N>{});
}

/// Calls function(part, others...) for each part of a composite, in order.
template <class Layer, class Function, class... Others>
void for_each_part(Layer& layer, const Function& function, Others&... others) {
    std::remove_const_t<Layer>::visit_parts(
        layer,
        [&](const auto&, auto& part, auto&... of_part) { function(part, of_part...); }, others...);
}

/// The number of skippable layers in a layer.
template <class Layer>
[[nodiscard]] Index depth(const Layer& layer) {
    Index sum = is_skippable<Layer>;
    if constexpr (any_part<HasSkippableLayers, PartsOf<Layer>>)
        for_each_part(layer, [&](const auto& part) { sum += depth(part); });
    return sum;
}

/// Writes the survival probabilities of the skippable layers in a layer, in order of depth, from
/// `first` on, and moves `first` past them.
template <class Layer>
void write_survival_probabilities(const Layer& layer, double*& first) {
    if constexpr (is_skippable<Layer>) *first++ = layer.survival_probability().value();
    if constexpr (any_part<HasSkippableLayers, PartsOf<Layer>>)
        for_each_part(layer, [&](const auto& part) { write_survival_probabilities(part, first); });
}

template <class Network>
[[nodiscard]] Eigen::VectorXd survival_probabilities(const Network& network) {
    Eigen::VectorXd p(depth(network));
    double* first = p.data();
    write_survival_probabilities(network, first);
    return p;
}

/// Writes, for each skippable layer in a layer, the index of the innermost skippable layer around
/// it, or `enclosing` where there is none; `first` moves past them, `next` is the index of the
/// first of them.
template <class Layer>
void write_enclosing_layers(const Layer& layer, Index*& first, Index& next, Index enclosing) {
    if constexpr (is_skippable<Layer>) {
        *first++ = enclosing;
        enclosing = next++;
    }
    if constexpr (any_part<HasSkippableLayers, PartsOf<Layer>>)
        for_each_part(layer, [&](const auto& part) {
            write_enclosing_layers(part, first, next, enclosing);
        });
}

/// The number of layers in a layer that draw random numbers of their own in a training step.
template <class Layer>
[[nodiscard]] Index random_layers(const Layer& layer) {
    if constexpr (!HasRandomLayers<Layer>::value) {
        return 0;
    } else if constexpr (HasParts<Layer>) {
        Index sum = 0;
        for_each_part(layer, [&](const auto& part) { sum += random_layers(part); });
        return sum;
    } else {
        return 1;
    }
}

/// What a layer without parameters has as its gradient.
struct NoGradient {
    void set_zero() {}
};

/// Gradients by the parameters of layers that stand in a tuple.
template <class... Layers>
struct GradientOfEach {
    std::tuple<typename Layers::Gradient...> layers;

    void set_zero() {
        std::apply([](auto&... layer) { (layer.set_zero(), ...); }, layers);
    }
};

/// What a layer keeps that needs nothing but its input for backward.
struct NoCache {};

/// The name of a part that stands for the composite itself: it is no part of a path.
struct Unnamed {};

/// Calls descend(part, others...) for each part of a composite, in order. A visitor that has
/// `enter` and `leave` learns from them which part it is in.
template <class Layer, class Visit, class Descend, class... Others>
void descend_into_parts(Layer& layer, Visit& visit, const Descend& descend, Others&... others) {
    const auto visit_part = [&]<class Name>(const Name& name, auto& part, auto&... of_part) {
        constexpr bool named = !std::is_same_v<Name, Unnamed>;
        if constexpr (named && requires { visit.enter(name); }) visit.enter(name);
        descend(part, of_part...);
        if constexpr (named && requires { visit.leave(); }) visit.leave();
    };
    std::remove_const_t<Layer>::visit_parts(layer, visit_part, others...);
}

/// Calls visit(name, parameter, gradients...) for each parameter of a layer, with what stands in
/// its place in each of the gradients. Of a skippable layer that the first of these was not reached
/// by, the parameters are left out, unless the visitor has `visits_unreached` and that says true.
template <class Layer, class Visit, class... Gradients>
void visit_parameters(Layer& layer, Visit&& visit, Gradients&... gradients) {
    using Type = std::remove_const_t<Layer>;
    if constexpr (requires { Type::visit_parameters(layer, visit, gradients...); })
        Type::visit_parameters(layer, visit, gradients...);
    else if constexpr (HasParts<Type>)
        descend_into_parts(
            layer, visit,
            [&](auto& part, auto&... of_part) { visit_parameters(part, visit, of_part...); },
            gradients...);
    else if constexpr (requires { typename Type::Gradient; })
        static_assert(std::is_empty_v<typename Type::Gradient>,
                      "a layer whose Gradient holds something must name its parameters: template "
                      "<class Self, class Visit, class... Gradients> static void "
                      "visit_parameters(Self&, Visit&&, Gradients&...) (docs/extending.md)");
}

/// Calls visit(name, matrix) for what a layer keeps beside its parameters from step to step, such
/// as batch statistics: no gradient belongs to it. A layer that has some says so with
///     template <class Self, class Visit> static void visit_state(Self& self, Visit&& visit);
template <class Layer, class Visit>
void visit_state(Layer& layer, Visit&& visit) {
    using Type = std::remove_const_t<Layer>;
    if constexpr (requires { Type::visit_state(layer, visit); })
        Type::visit_state(layer, visit);
    else if constexpr (HasParts<Type>)
        descend_into_parts(layer, visit, [&](auto& part) { visit_state(part, visit); });
}

/// Lets layers that keep statistics take over those of a recorded step.
template <class Layer, class Record>
void update_statistics(Layer& layer, const Record& record) {
    if constexpr (has_statistics<Layer>) {
        if constexpr (requires { layer.update_statistics(record); })
            layer.update_statistics(record);
        else
            for_each_part(
                layer,
                [](auto& part, const auto& of_part) { update_statistics(part, of_part); }, record);
    }
}

/// Tells such layers that statistics begin anew.
template <class Layer>
void begin_statistics(Layer& layer) {
    if constexpr (has_statistics<Layer>) {
        if constexpr (requires { layer.begin_statistics(); })
            layer.begin_statistics();
        else
            for_each_part(layer, [](auto& part) { begin_statistics(part); });
    }
}

/// Whether a visitor asks for the parameters of layers too that no sample has reached.
template <class Visit>
[[nodiscard]] bool visits_unreached(const Visit& visit) {
    if constexpr (requires { visit.visits_unreached(); })
        return visit.visits_unreached();
    else
        return false;
}

/// The name of a type as messages call it: "Sequential", without namespaces and arguments.
template <class Type>
[[nodiscard]] constexpr std::string_view name_of() {
    constexpr std::string_view function = __PRETTY_FUNCTION__;
    constexpr std::size_t begin = function.find("Type = ") + 7;
    std::string_view name = function.substr(begin);
    name = name.substr(0, name.find_first_of("<;]"));
    const std::size_t colon = name.rfind(':');
    return colon == std::string_view::npos ? name : name.substr(colon + 1);
}

}  // namespace detail
}  // namespace stochastic_depth
