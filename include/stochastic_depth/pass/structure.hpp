// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include <stochastic_depth/concepts.hpp>

/// How composites treat their parts alike, whether these are composites themselves or plain layers.
namespace stochastic_depth::detail {

/// Whether layers compute in one Scalar.
template <class First, class... Others>
inline constexpr bool one_scalar =
    (std::is_same_v<typename First::Scalar, typename Others::Scalar> && ...);

/// Whether a layer is skippable or contains skippable layers. Composites say so; any other layer
/// has none.
template <class Layer>
inline constexpr bool has_skippable_layers = [] {
    if constexpr (requires { Layer::has_skippable_layers; })
        return Layer::has_skippable_layers;
    else
        return false;
}();

/// Whether each skippable layer in a layer is residual, so that its branch can be scaled.
template <class Layer>
inline constexpr bool skips_branches_alone = [] {
    if constexpr (requires { Layer::skips_branches_alone; })
        return Layer::skips_branches_alone;
    else
        return true;
}();

/// The number of skippable layers in a layer.
template <class Layer>
[[nodiscard]] Index depth(const Layer& layer) {
    if constexpr (has_skippable_layers<Layer>)
        return layer.depth();
    else
        return 0;
}

/// Writes the survival probabilities of the skippable layers in a layer, in order of depth, from
/// `first` on, and moves `first` past them.
template <class Layer>
void write_survival_probabilities(const Layer& layer, double*& first) {
    if constexpr (has_skippable_layers<Layer>) layer.write_survival_probabilities(first);
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
    if constexpr (has_skippable_layers<Layer>) layer.write_enclosing_layers(first, next, enclosing);
}

/// Calls function(i) for i = 0, ..., N - 1 with compile-time indices, as std::get takes them.
template <std::size_t N, class Function>
void for_each_index(const Function& function) {
    [&]<std::size_t... i>(std::index_sequence<i...>) {
        (function(std::integral_constant<std::size_t, i>{}), ...);
    }
    (std::make_index_sequence<N>{});
}

/// The largest number of rows that activations have on their way through a layer.
template <class Layer>
[[nodiscard]] Index widest(const Layer& layer, Index input_size) {
    if constexpr (requires { layer.widest(input_size); })
        return layer.widest(input_size);
    else
        return std::max(input_size, static_cast<Index>(layer.output_size(input_size)));
}

/// The number of layers in a layer that draw random numbers of their own in a training step.
template <class Layer>
[[nodiscard]] Index random_layers(const Layer& layer) {
    if constexpr (requires { layer.random_layers(); })
        return layer.random_layers();
    else
        return 0;
}

struct StepDraw;

/// The mask of a pass in which every layer runs.
struct EveryLayer {
    [[nodiscard]] constexpr EveryLayer from(Index) const { return {}; }
    template <class Layer>
    [[nodiscard]] constexpr EveryLayer after(const Layer&) const {
        return {};
    }
    [[nodiscard]] constexpr double scale(double) const { return 1; }
    [[nodiscard]] constexpr const StepDraw* step() const { return nullptr; }
    [[nodiscard]] constexpr Index random_layer() const { return 0; }
    [[nodiscard]] constexpr EveryLayer with(const Index*) const { return {}; }
    [[nodiscard]] constexpr Index sample(Index column) const { return column; }
    [[nodiscard]] constexpr bool keeps(Index) const { return true; }
    [[nodiscard]] constexpr bool is_one_for_all() const { return true; }
    Index list_survivors(Index columns, Index* survivors) const {
        for (Index j = 0; j < columns; ++j) survivors[j] = j;
        return columns;
    }
};

/// What a layer without parameters has as its gradient.
struct NoGradient {
    void set_zero() {}
};

/// Gradients by the parameters of layers that stand in a tuple.
template <class... Layers>
struct GradientOfEach {
    std::tuple<typename Layers::Gradient...> layers;

    [[nodiscard]] static GradientOfEach zero(const std::tuple<Layers...>& of) {
        return std::apply(
            [](const auto&... layer) { return GradientOfEach{{layer.zero_gradient()...}}; }, of);
    }
    void set_zero() {
        std::apply([](auto&... layer) { (layer.set_zero(), ...); }, layers);
    }
};

/// What a layer keeps that needs nothing but its input for backward.
struct NoCache {};

/// Calls descend(part, gradients...) for each part of a composite, in order. A visitor that has
/// `enter` and `leave` learns from them which part it is in.
template <class Layer, class Visit, class Descend, class... Gradients>
void visit_parts(Layer& layer, Visit& visit, const Descend& descend, Gradients&... gradients) {
    const auto visit_part = [&](const auto& name, auto& part, auto&... part_gradients) {
        if constexpr (requires { visit.enter(name); }) visit.enter(name);
        descend(part, part_gradients...);
        if constexpr (requires { visit.leave(); }) visit.leave();
    };
    std::remove_const_t<Layer>::visit_parts(layer, visit_part, gradients...);
}

template <class Layer>
concept HasParts = requires(Layer& layer, const NoCache& visit) {
    std::remove_const_t<Layer>::visit_parts(layer, visit);
};

/// Calls visit(name, parameter, gradients...) for each parameter of a layer, with what stands in
/// its place in each of the gradients. Of a skippable layer that the first of these was not reached
/// by, the parameters are left out, unless the visitor has `visits_unreached` and that says true.
template <class Layer, class Visit, class... Gradients>
void visit_parameters(Layer& layer, Visit&& visit, Gradients&... gradients) {
    using Type = std::remove_const_t<Layer>;
    if constexpr (requires { Type::visit_parameters(layer, visit); })
        Type::visit_parameters(layer, visit, gradients...);
    else if constexpr (HasParts<Layer>)
        visit_parts(
            layer, visit,
            [&](auto& part, auto&... of_part) { visit_parameters(part, visit, of_part...); },
            gradients...);
}

/// Calls visit(name, matrix) for what a layer keeps beside its parameters from step to step, such
/// as batch statistics: no gradient belongs to it. A layer that has some says so with
///     template <class Self, class Visit> static void visit_state(Self& self, Visit&& visit);
template <class Layer, class Visit>
void visit_state(Layer& layer, Visit&& visit) {
    using Type = std::remove_const_t<Layer>;
    if constexpr (requires { Type::visit_state(layer, visit); })
        Type::visit_state(layer, visit);
    else if constexpr (HasParts<Layer>)
        visit_parts(layer, visit, [&](auto& part) { visit_state(part, visit); });
}

/// Whether a visitor asks for the parameters of layers too that no sample has reached.
template <class Visit>
[[nodiscard]] bool visits_unreached(const Visit& visit) {
    if constexpr (requires { visit.visits_unreached(); })
        return visit.visits_unreached();
    else
        return false;
}

}  // namespace stochastic_depth::detail
