// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <type_traits>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/layers/sequence/token_list.hpp>
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
        detail::TokenList tokens;
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
        const detail::ListedTokens<typename Batch::Memory> listed(batch, in_column);
        record.tokens = listed.list();
        const auto run_layer = [&](Batch& tokens, const auto& at_tokens) {
            if constexpr (Batch::records && detail::HasRandomLayers<Layer>::value) {
                // In the upper half, the position.
                const detail::ScratchArray<Index> numbers(tokens.columns());
                for (Index k = 0; k < tokens.columns(); ++k) {
                    const detail::TokenPlace& place = record.tokens.places[k];
                    numbers[k] = (place.position << 32) + mask.sample(place.column);
                }
                detail::run(layer_, tokens, record.layer, mask.of_samples(numbers.data()),
                            at_tokens);
            } else {
                detail::run(layer_, tokens, record.layer, mask, at_tokens);
            }
        };
        each_token<Batch::records>(batch, record.tokens, in_column, width_,
                                   layer_.output_size(width_), epilogue, run_layer);
    }

    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        const Index outputs = layer_.output_size(width_);
        each_token<true>(batch, record.tokens, batch.rows() / outputs, outputs, width_, epilogue,
                         [&](Batch& tokens, const auto& at_tokens) {
                             detail::backpropagate(layer_, tokens, record.layer, gradient.layer,
                                                   at_tokens);
                         });
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

    /// batch = epilogue(what run(tokens, epilogue of tokens) makes of its tokens), and epilogue(0)
    /// behind the sequences' ends.
    /// \tparam at_once  All tokens; else a few sequences at a time, where nothing is recorded.
    template <bool at_once, class Batch, class Epilogue, class Run>
    void each_token(Batch& batch, const detail::TokenList& tokens, Index in_column, Index inputs,
                    Index outputs, const Epilogue& epilogue, const Run& run) const {
        batch.flatten();
        const bool side_by_side = tokens.stand_side_by_side(batch.current(), inputs);
        const auto part_of = [&](Index first, Index count) {
            if (side_by_side) {
                Batch part = batch.shared();
                part.set_lengths({});
                part.reshape(inputs, tokens.size());
                return part.columns_from(first, count);
            }
            Batch part(batch.team(), batch.memory(), inputs, count);
            tokens.gather(batch.team(), batch.current(), inputs, first, count,
                          part.writable().data());
            return part;
        };
        if constexpr (detail::is_discarded<Epilogue>) {
            Batch part = part_of(0, tokens.size());
            run(part, epilogue);
        } else {
            if constexpr (at_once && std::is_same_v<Epilogue, detail::AsIs>)
                if (tokens.size() == in_column * tokens.columns) {
                    Batch part = part_of(0, tokens.size());
                    run(part, epilogue);
                    part.reshape(outputs * in_column, tokens.columns);
                    part.set_lengths(batch.lengths());
                    batch = std::move(part);
                    return;
                }
            Batch result = batch.room(outputs * in_column);
            detail::run_at_tokens<Scalar>(
                batch.team(), tokens, outputs, result.writable(), epilogue,
                [&](const auto& at_tokens) {
                    const auto run_part = [&](Index first, Index count) {
                        Batch part = part_of(first, count);
                        run(part, at_tokens.from(first));
                    };
                    if constexpr (at_once)
                        run_part(0, tokens.size());
                    else
                        tokens.in_groups(batch.team(), 1, [&](const auto&, Index j, Index end) {
                            run_part(tokens.first[j], tokens.first[end] - tokens.first[j]);
                        });
                });
            batch = std::move(result);
        }
    }

    Index width_;
    Layer layer_;
};

}  // namespace stochastic_depth
