// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth::detail {

/// Gradients of a network as plain vectors, in the order in which visit_parameters names its
/// parameters.
template <class Network>
class FlatGradient {
public:
    /// \param network  Must stay where it is: parameters are told apart by where they are.
    explicit FlatGradient(const Network& network) : network_(network) {
        visit_parameters(network, [&](const char*, const auto& parameter) {
            if (parameter.size() > 0) places_.push_back({parameter.data(), size_});
            size_ += parameter.size();
        });
        std::sort(places_.begin(), places_.end());
    }

    /// Number of parameters.
    [[nodiscard]] Index size() const { return size_; }

    /// Calls visit(first, slope) for what the gradient has reached: the place of its first number
    /// in the vector, and the matrix.
    template <class Visit>
    void for_each(typename Network::Gradient& gradient, const Visit& visit) const {
        visit_parameters(
            network_,
            [&](const char*, const auto& parameter, const auto& slope) {
                if (slope.size() > 0) visit(place_of(parameter.data()), slope);
            },
            gradient);
    }

    /// The gradient as a vector, [size()]; 0 for what it has not reached.
    template <class Out>
    void write(typename Network::Gradient& gradient, Out&& out) const {
        out.setZero();
        for_each(gradient, [&](Index first, const auto& slope) {
            out.segment(first, slope.size()) = slope.reshaped().template cast<double>();
        });
    }

private:
    [[nodiscard]] Index place_of(const void* parameter) const {
        return std::lower_bound(places_.begin(), places_.end(), std::pair{parameter, Index{0}})
            ->second;
    }

    const Network& network_;
    std::vector<std::pair<const void*, Index>> places_;
    Index size_ = 0;
};

}  // namespace stochastic_depth::detail
