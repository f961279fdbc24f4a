// SPDX-License-Identifier: MIT
#pragma once

#include <type_traits>

#include <stochastic_depth/pass/parts.hpp>
#include <stochastic_depth/types.hpp>

/// What can be asked of a structure, and what is done to each of its layers: folds over parts.
namespace stochastic_depth::detail {

/// The number of skippable layers in a layer.
template <class Layer>
[[nodiscard]] Index depth(const Layer& layer) {
    if constexpr (hides_its_parts<Layer>) return layer.depth();
    Index sum = is_skippable<Layer>;
    if constexpr (any_part<HasSkippableLayers, PartsOf<Layer>>)
        for_each_part(layer, [&](const auto& part) { sum += depth(part); });
    return sum;
}

/// Writes the survival probabilities of the skippable layers in a layer, in order of depth, from
/// `first` on, and moves `first` past them.
template <class Layer>
void write_survival_probabilities(const Layer& layer, double*& first) {
    if constexpr (hides_its_parts<Layer>) layer.write_survival_probabilities(first);
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
    if constexpr (hides_its_parts<Layer>) layer.write_enclosing_layers(first, next, enclosing);
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
    if constexpr (hides_its_parts<Layer>) {
        return layer.random_layers();
    } else if constexpr (!HasRandomLayers<Layer>::value) {
        return 0;
    } else if constexpr (HasParts<Layer>) {
        Index sum = 0;
        for_each_part(layer, [&](const auto& part) { sum += random_layers(part); });
        return sum;
    } else {
        return 1;
    }
}

/// Whether some skippable layer in a layer is no residual one, so that it has no branch to scale.
template <class Layer>
[[nodiscard]] bool skips_more_than_branches(const Layer& layer) {
    if constexpr (hides_its_parts<Layer>) {
        return layer.skips_more_than_branches();
    } else {
        bool found = false;
        if constexpr (is_skippable<Layer>) found = Layer::skips_more_than_a_branch;
        if constexpr (any_part<HasSkippableLayers, PartsOf<Layer>>)
            for_each_part(layer, [&](const auto& part) {
                found = found || skips_more_than_branches(part);
            });
        return found;
    }
}

/// Whether some layer in a layer takes the ids of tokens, between which there is nothing.
template <class Layer>
[[nodiscard]] bool takes_tokens(const Layer& layer) {
    if constexpr (hides_its_parts<Layer>) {
        return layer.takes_tokens();
    } else {
        bool found = requires { requires Layer::takes_tokens; };
        if constexpr (HasParts<Layer>)
            for_each_part(layer, [&](const auto& part) { found = found || takes_tokens(part); });
        return found;
    }
}

/// The name of a part that stands for the composite itself: it is no part of a path.
struct Unnamed {};

/// Tells a visitor that wants to know it which part it comes into, and that it leaves it. (Functions,
/// not expressions where they are called: clang 14 takes a requirement in a generic lambda for met.)
template <class Visit, class Name>
void enter_part(Visit& visit, const Name& name) {
    if constexpr (!std::is_same_v<Name, Unnamed> && requires { visit.enter(name); })
        visit.enter(name);
}
template <class Name, class Visit>
void leave_part(Visit& visit) {
    if constexpr (!std::is_same_v<Name, Unnamed> && requires { visit.leave(); }) visit.leave();
}

/// Tells a visitor that wants to know it that it comes to a skippable layer, with the flags of its
/// gradient, which it may set, and that it leaves it.
template <class Visit, class Flag>
void enter_skippable(Visit& visit, Flag& reached, Flag& shortcut_reached) {
    if constexpr (requires { visit.enter_skippable(reached, shortcut_reached); })
        visit.enter_skippable(reached, shortcut_reached);
}
template <class Visit, class Flag>
void leave_skippable(Visit& visit, Flag& reached, Flag& shortcut_reached) {
    if constexpr (requires { visit.leave_skippable(reached, shortcut_reached); })
        visit.leave_skippable(reached, shortcut_reached);
}

/// Calls descend(part, others...) for each part of a composite, in order. A visitor that has
/// `enter` and `leave` learns from them which part it is in.
template <class Layer, class Visit, class Descend, class... Others>
void descend_into_parts(Layer& layer, Visit& visit, const Descend& descend, Others&... others) {
    const auto visit_part = [&]<class Name>(const Name& name, auto& part, auto&... of_part) {
        enter_part(visit, name);
        descend(part, of_part...);
        leave_part<Name>(visit);
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

}  // namespace stochastic_depth::detail

namespace stochastic_depth {

/// For optimizers: visit(name, parameter, gradients...) for what a gradient has reached.
using detail::visit_parameters;

}  // namespace stochastic_depth
