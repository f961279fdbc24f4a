// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/detail/differentiation.hpp>
#include <stochastic_depth/detail/epilogue.hpp>

namespace stochastic_depth {
namespace detail {

/// Epilogue: factor * value.
template <class Scalar>
struct MultiplyBy {
    Scalar factor;

    template <class P>
    EIGEN_ALWAYS_INLINE P operator()(P value, Index, Index) const {
        return P::broadcast(factor) * value;
    }

    [[nodiscard]] static bool crosses_columns(Index) { return true; }
};

}  // namespace detail

/// y = c layer(x), with a constant c.
///
/// The factor is applied in the layer's last matrix product. The layer must have no skippable
/// layers inside: where it has, `Sequential{layer, Scaled{Identity<Scalar>{}, c}}` is the same.
template <ForwardLayer Layer>
    requires(!detail::has_skippable_layers<Layer>)
class Scaled {
public:
    using Scalar = typename Layer::Scalar;
    static constexpr bool has_skippable_layers = false;
    static constexpr bool parts_are_differentiable = DifferentiableLayer<Layer>;

    /// \param factor  c, finite.
    /// \throws std::invalid_argument  for another factor.
    Scaled(Layer layer, Scalar factor) : layer_(std::move(layer)), factor_(factor) {
        if (!std::isfinite(factor))
            detail::refuse("Scaled: factor must be finite, got ", factor);
    }

    [[nodiscard]] const Layer& layer() const { return layer_; }
    [[nodiscard]] Scalar factor() const { return factor_; }

    /// \throws std::invalid_argument  if the layer cannot take the input.
    [[nodiscard]] Index output_size(Index input_size) const {
        return layer_.output_size(input_size);
    }

    /// \param x  [features x batch].
    /// \param y  [outputs x batch], overwritten; must not overlap x.
    /// \throws std::invalid_argument  if sizes don't match.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("Scaled", *this, x, y);
        forward_fused(x, y, detail::Keep{});
    }

    /// y = epilogue(c layer(x)) in one pass where the layer can.
    template <class Epilogue>
    void forward_fused(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y,
                       const Epilogue& epilogue) const {
        detail::forward_fused(layer_, x, y,
                              detail::Then{detail::MultiplyBy<Scalar>{factor_}, epilogue});
    }

    [[nodiscard]] Index widest(Index input_size) const {
        return detail::widest(layer_, input_size);
    }

    struct Cache {
        detail::Record<Layer> layer;
    };

    struct Gradient {
        typename Layer::Gradient layer;
        void set_zero() { layer.set_zero(); }
    };

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache& cache) const {
        detail::forward_recorded("Scaled", *this, x, y, cache);
    }

    [[nodiscard]] Gradient zero_gradient() const { return {layer_.zero_gradient()}; }

    /// \param x   [features x batch], the input of forward.
    /// \param dy  [outputs x batch], gradient by the output.
    /// \param dx  [features x batch], gradient by the input, overwritten.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy,
                  const Cache& cache, Gradient& gradient, MatrixRef<Scalar> dx) const {
        detail::backward_recorded("Scaled", *this, x, dy, cache, gradient, dx);
    }

    template <class Mask>
    void record(Matrix<Scalar>& h, Cache& cache, const Mask& mask) const {
        detail::record(layer_, h, cache.layer, mask);
        h *= factor_;
    }

    void backpropagate(Matrix<Scalar>& d, const Cache& cache, Gradient& gradient) const {
        d *= factor_;
        detail::backpropagate(layer_, d, cache.layer, gradient.layer);
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parameters(Self& self, Visit&& visit, Gradients&... gradients) {
        detail::visit_parameters(self.layer_, visit, gradients.layer...);
    }
    template <class Self, class Visit>
    static void visit_state(Self& self, Visit&& visit) {
        detail::visit_state(self.layer_, visit);
    }

private:
    Layer layer_;
    Scalar factor_;
};

}  // namespace stochastic_depth
