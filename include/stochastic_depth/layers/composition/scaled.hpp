// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/pass/differentiation.hpp>

namespace stochastic_depth {

/// y = c layer(x), with a constant c.
///
/// The factor is applied in the layer's last matrix product, in training steps too. The layer must
/// have no skippable layers inside: where it has, `Sequential{layer, Scaled{Identity<Scalar>{},
/// c}}` is the same.
template <ForwardLayer Layer>
    requires(!detail::has_skippable_layers<Layer>)
class Scaled {
public:
    using Scalar = typename Layer::Scalar;
    static constexpr bool has_skippable_layers = false;
    static constexpr bool has_statistics = detail::has_statistics<Layer>;
    static constexpr bool parts_are_differentiable = DifferentiableLayer<Layer>;

    /// \param factor  c, finite.
    /// \throws std::invalid_argument  for another factor.
    Scaled(Layer layer, Scalar factor) : layer_(std::move(layer)), factor_(factor) {
        if (!std::isfinite(factor)) detail::refuse("Scaled: factor must be finite, got ", factor);
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
        detail::forward_fused(*this, x, y, detail::Keep{});
    }

    /// y = epilogue(c layer(x)) in one pass where the layer can.
    template <class Epilogue>
    void forward_fused(const detail::ConstView<Scalar>& x, detail::View<Scalar> y,
                       const Epilogue& epilogue) const {
        detail::forward_fused(layer_, x, y,
                              detail::Then{detail::Multiply<Scalar>{factor_}, epilogue});
    }

    [[nodiscard]] Index widest(Index input_size) const {
        return detail::widest(layer_, input_size);
    }

    [[nodiscard]] Index random_layers() const { return detail::random_layers(layer_); }

    struct Recorded {
        detail::Record<Layer> layer;
    };
    using Cache = detail::RecordedPass<Recorded>;

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

    template <class Mask, class Epilogue>
    void record(detail::Flow<Scalar>& flow, Recorded& recorded, const Mask& mask,
                const Epilogue& epilogue) const {
        detail::record(layer_, flow, recorded.layer, mask,
                       detail::Then{detail::Multiply<Scalar>{factor_}, epilogue});
    }

    template <class Epilogue>
    void backpropagate(detail::Slopes<Scalar>& slopes, const Recorded& recorded, Gradient& gradient,
                       const Epilogue& epilogue) const {
        slopes.apply(detail::Multiply<Scalar>{factor_});
        detail::backpropagate(layer_, slopes, recorded.layer, gradient.layer, epilogue);
    }

    void update_statistics(const Recorded& recorded) {
        detail::update_statistics(layer_, recorded.layer);
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
