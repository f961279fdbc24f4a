// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
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

/// A layer that knows at run time what it is made of: it answers by members what folds over parts
/// answer of others.
template <class Layer>
inline constexpr bool hides_its_parts = requires {
    requires Layer::hides_its_parts;
};

/// Whether a mask has a bit for the layer itself.
template <class Layer>
inline constexpr bool is_skippable = requires {
    requires Layer::is_skippable;
};

/// Whether a layer is skippable or contains skippable layers, or may do so.
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
        is_skippable<Layer> || hides_its_parts<Layer> ||
        any_part<HasSkippableLayers, PartsOf<Layer>>;
};
template <class Layer>
inline constexpr bool has_skippable_layers = HasSkippableLayers<Layer>::value;

/// Whether a layer reads chosen columns of a batch where they are (`Batch::chosen`). Others get
/// copies of them, side by side.
template <class Layer>
inline constexpr bool reads_chosen_columns = requires {
    requires Layer::reads_chosen_columns;
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

}  // namespace detail
}  // namespace stochastic_depth
