// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <string>
#include <string_view>
#include <utility>

#include <stochastic_depth/layers/composition/shapes.hpp>
#include <stochastic_depth/pass/layer_base.hpp>

namespace stochastic_depth {

/// y = c layer(x), with a constant c.
///
/// The factor is applied in the layer's last matrix product, in training steps too. The layer must
/// have no skippable layers inside: where it has, `Sequential{layer, Scaled{Identity<Scalar>{},
/// c}}` is the same.
template <ForwardLayer Layer>
    requires(!detail::has_skippable_layers<Layer>)
class Scaled : public LayerBase<Scaled<Layer>, typename Layer::Scalar, Layer> {
public:
    using Scalar = typename Layer::Scalar;

    /// \param factor  c, finite.
    /// \throws std::invalid_argument  for another factor.
    Scaled(Layer layer, Scalar factor) : layer_(std::move(layer)), factor_(factor) {
        if (!std::isfinite(factor)) detail::refuse("Scaled: factor must be finite, got ", factor);
    }

    [[nodiscard]] const Layer& layer() const { return layer_; }
    [[nodiscard]] Scalar factor() const { return factor_; }

    [[nodiscard]] std::string description() const {
        return detail::message("Scaled by ", factor_);
    }

    /// \throws std::invalid_argument  if the layer cannot take the input.
    [[nodiscard]] Index output_size(Index input_size) const {
        return layer_.output_size(input_size);
    }

    /// The shapes of images, as the layer has them.
    void send_shapes(std::string_view who, detail::ShapesOnTheWay& shapes) const {
        detail::send_shapes(who, layer_, shapes);
    }

    template <class Memory>
    struct Record {
        detail::RecordOf<Layer, Memory> layer;
    };

    struct Gradient {
        typename Layer::Gradient layer;
        void set_zero() { layer.set_zero(); }
    };

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
             const Epilogue& epilogue) const {
        detail::run(layer_, batch, record.layer, mask,
                    detail::followed_by(detail::Multiply<Scalar>{factor_}, epilogue));
    }

    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        batch.apply(detail::Multiply<Scalar>{factor_});
        detail::backpropagate(layer_, batch, record.layer, gradient.layer, epilogue);
    }

    template <class Self, class Visit, class... Others>
    static void visit_parts(Self& self, Visit&& visit, Others&... others) {
        visit(detail::Unnamed{}, self.layer_, others.layer...);
    }

private:
    Layer layer_;
    Scalar factor_;
};

}  // namespace stochastic_depth
