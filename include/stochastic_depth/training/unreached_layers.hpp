// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

namespace stochastic_depth {

/// What an optimizer does to a skippable layer that no sample of a step kept.
enum class UnreachedLayers {
    /// Nothing: parameters, momentum, moments and the count of updates wait. The step costs nothing
    /// for the layer, and a layer is trained as if its own steps were the only ones, however seldom
    /// they are.
    frozen,
    /// What a gradient of zero does: momentum moves the layer on, weight decay shrinks it, Adam's t
    /// advances. So do frameworks that multiply the output of a computed branch by zero; every step
    /// pays for every layer. For trainings that are to agree with theirs.
    as_zero_gradient,
};

namespace detail {

/// An optimizer's visitor of parameters, which asks for unreached layers as the option says: the
/// gradient of these is all zero.
template <class Update>
class UpdateOf {
public:
    UpdateOf(Update update, UnreachedLayers unreached)
        : update_(std::move(update)), unreached_(unreached) {}

    [[nodiscard]] bool visits_unreached() const {
        return unreached_ == UnreachedLayers::as_zero_gradient;
    }
    template <class... Matrices>
    void operator()(const char* name, Matrices&... matrices) const {
        update_(name, matrices...);
    }

private:
    Update update_;
    UnreachedLayers unreached_;
};

}  // namespace detail
}  // namespace stochastic_depth
