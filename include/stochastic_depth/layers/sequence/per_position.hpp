// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/sequence/positions.hpp>
#include <stochastic_depth/memory/scratch.hpp>
#include <stochastic_depth/pass/layer_base.hpp>

namespace stochastic_depth {

/// A layer at each position of a sequence: of x, [width T x batch] with T positions of `width`
/// numbers each, y is [outputs T x batch]. Positions past a sequence's end are left out, and hold
/// zeros in y.
///
/// So a Linear, a LayerNorm or a feed-forward network for columns is one for tokens, and for the
/// positions of an image, whose column holds the channels of one after another.
///
///     PerPosition{width, Sequential{LayerNorm<float>{width}, Linear<float>{width, 256, random}}}
///
/// In a training step a Dropout inside draws bits of its own for each position.
template <ForwardLayer Layer>
class PerPosition : public LayerBase<PerPosition<Layer>, typename Layer::Scalar, Layer> {
    static_assert(!detail::has_skippable_layers<Layer>,
                  "a mask keeps or skips a layer for all positions of a sample: put StochasticDepth "
                  "around PerPosition");

public:
    using Scalar = typename Layer::Scalar;

    /// \param width  Numbers of a position, at least 1.
    /// \throws std::invalid_argument  if it is less, or the layer cannot take so many.
    PerPosition(Index width, Layer layer) : width_(width), layer_(std::move(layer)) {
        if (width < 1) detail::refuse("PerPosition: width must be at least 1, got ", width);
        (void)layer_.output_size(width);
    }

    [[nodiscard]] Index width() const { return width_; }
    [[nodiscard]] const Layer& layer() const { return layer_; }

    [[nodiscard]] std::string description() const {
        return detail::message("PerPosition, width ", width_);
    }

    /// \throws std::invalid_argument  unless input_size is a multiple of width().
    [[nodiscard]] Index output_size(Index input_size) const {
        return positions_in(input_size) * layer_.output_size(width_);
    }

    /// Which positions the layer has seen, and its record.
    template <class Memory>
    struct Record {
        detail::Positions positions;
        detail::RecordOf<Layer, Memory> layer;
    };

    struct Gradient {
        typename Layer::Gradient layer;
        void set_zero() { layer.set_zero(); }
    };

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
             const Epilogue& epilogue) const {
        const Index in_column = positions_in(batch.rows());
        const auto places = batch.template array<detail::TokenPlace>(in_column * batch.columns());
        record.positions =
            detail::Positions::list(batch.lengths(), in_column, batch.columns(), places.data());
        const Index outputs = layer_.output_size(width_);
        Batch part = detail::batch_of_positions(batch, record.positions, width_);
        const auto run_layer = [&](const auto& of_positions) {
            detail::run(layer_, part, record.layer, of_positions,
                        detail::at_positions(epilogue, record.positions, outputs));
        };
        if constexpr (Batch::records && detail::HasRandomLayers<Layer>::value) {
            // In the upper half, the position.
            const detail::ScratchArray<Index> numbers(record.positions.count);
            for (Index k = 0; k < record.positions.count; ++k) {
                const detail::TokenPlace& place = record.positions.places[k];
                numbers[k] = (place.position << 32) + mask.sample(place.column);
            }
            run_layer(mask.of_samples(numbers.data()));
        } else {
            run_layer(mask);
        }
        detail::put_back_positions(batch, std::move(part), record.positions, outputs, epilogue);
    }

    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        Batch part =
            detail::batch_of_positions(batch, record.positions, layer_.output_size(width_));
        detail::backpropagate(layer_, part, record.layer, gradient.layer,
                              detail::at_positions(epilogue, record.positions, width_));
        detail::put_back_positions(batch, std::move(part), record.positions, width_, epilogue);
    }

    template <class Self, class Visit, class... Others>
    static void visit_parts(Self& self, Visit&& visit, Others&... others) {
        visit(detail::Unnamed{}, self.layer_, others.layer...);
    }

private:
    [[nodiscard]] Index positions_in(Index rows) const {
        if (rows < 1 || rows % width_ != 0)
            detail::refuse("PerPosition: input must have a multiple of ", width_, " rows, got ",
                           rows);
        return rows / width_;
    }

    Index width_;
    Layer layer_;
};

}  // namespace stochastic_depth
