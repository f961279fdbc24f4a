// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/pass/folds.hpp>

namespace stochastic_depth {
namespace detail {

/// A visitor of parameters or state, reached or not, that passes on their paths for their names.
template <class Visit>
class WithPaths {
public:
    explicit WithPaths(const Visit& visit, bool visits_unreached = true)
        : visit_(&visit), visits_unreached_(visits_unreached) {}

    [[nodiscard]] bool visits_unreached() const { return visits_unreached_; }
    void enter(std::string_view part) { parts_.emplace_back(part); }
    void enter(std::size_t part) { parts_.push_back(message(part)); }
    void leave() { parts_.pop_back(); }
    template <class... Matrices>
    void operator()(const char* name, Matrices&... matrices) const {
        std::string path;
        for (const std::string& part : parts_) path += part + ".";
        (*visit_)(path + name, matrices...);
    }

private:
    const Visit* visit_;
    bool visits_unreached_;
    std::vector<std::string> parts_;
};

}  // namespace detail

/// Calls visit(path, parameter) for each parameter of a network, a matrix or a vector, in order.
/// The path is that through the network, as checkpoints have it: "0.branch.weights" is the first
/// layer's branch's.
///
///     for_each_parameter(network, [](const std::string& path, const auto& matrix) {
///         std::printf("%s: %td numbers\n", path.c_str(), matrix.size());
///     });
///
/// With gradients, or whatever else has their form, visit(path, parameter, gradients...) for what
/// the first of them was reached by: all that an optimizer has to move.
///
///     for_each_parameter(network, [&](const std::string&, auto& w, const auto& g, auto& v) {
///         w -= eta * (v = mu * v + g);
///     }, step.gradient(), velocity);  // velocity = network.zero_gradient()
///
/// \param network    May be const: its parameters are then.
/// \param gradients  Network::Gradient each.
template <class Network, class Visit, class... Gradients>
void for_each_parameter(Network& network, const Visit& visit, Gradients&... gradients) {
    detail::visit_parameters(network, detail::WithPaths{visit, false}, gradients...);
}

}  // namespace stochastic_depth
