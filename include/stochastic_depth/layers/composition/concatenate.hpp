// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include <stochastic_depth/layers/composition/shapes.hpp>
#include <stochastic_depth/pass/layer_base.hpp>

namespace stochastic_depth {

/// Layers side by side on one input, their outputs stacked: y = [layer_1(x); ...; layer_n(x)].
///
/// Behind a network it makes several functions of the output one output: an expectation over masks
/// then takes the mean of all of them in one sweep,
///
///     Sequential{network, Softmax<double>{}, Concatenate{Identity<double>{}, Entropy<double>{}}}
///
/// The layers must have no skippable layers inside.
template <ForwardLayer... Layers>
    requires(sizeof...(Layers) > 0 && detail::one_scalar<Layers...> &&
             (!detail::has_skippable_layers<Layers> && ...))
class Concatenate
    : public LayerBase<Concatenate<Layers...>, detail::ScalarOfFirst<Layers...>, Layers...> {
public:
    using Scalar = detail::ScalarOfFirst<Layers...>;

    /// \throws std::invalid_argument  if layers take images of other shapes, where both have one.
    explicit Concatenate(Layers... layers) : layers_(std::move(layers)...) {
        detail::check_shapes("Concatenate", *this);
    }

    [[nodiscard]] const std::tuple<Layers...>& layers() const { return layers_; }

    /// The sum of the layers' output sizes.
    /// \throws std::invalid_argument  as the first layer that cannot take the input does.
    [[nodiscard]] Index output_size(Index input_size) const {
        return std::apply(
            [&](const auto&... layer) {
                return (static_cast<Index>(layer.output_size(input_size)) + ...);
            },
            layers_);
    }

    /// The shape of the images that go into each layer. What comes out of them, stacked, is none.
    void send_shapes(std::string_view who, detail::ShapesOnTheWay& shapes) const {
        const auto into = [&](const auto& layer) {
            detail::ShapesOnTheWay one = shapes;
            detail::send_shapes(who, layer, one);
            shapes.first = one.first;
            if (!shapes.now && shapes.is_first) shapes.now = one.first;
        };
        std::apply([&](const auto&... layer) { (into(layer), ...); }, layers_);
        shapes.become(std::nullopt);
    }

    /// The record of each layer, and the number of its outputs.
    template <class Memory>
    struct Record {
        std::tuple<detail::RecordOf<Layers, Memory>...> layers;
        Index outputs[sizeof...(Layers)] = {};
    };
    using Gradient = detail::GradientOfEach<Layers...>;

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
             const Epilogue& epilogue) const {
        Batch result = batch.room(output_size(batch.rows()));
        auto y = result.writable();
        Index first = 0;
        Mask here = mask;
        detail::for_each_index<sizeof...(Layers)>([&](auto i) {
            const auto& layer = std::get<i>(layers_);
            const Index rows = layer.output_size(batch.rows());
            Batch part = batch.shared();
            detail::run(layer, part, std::get<i>(record.layers), here,
                        detail::store_to(y.middleRows(first, rows)));
            here = here.behind(layer);
            record.outputs[i] = rows;
            first += rows;
        });
        batch = std::move(result);
        batch.apply(epilogue);
    }

    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        const auto dy = batch.current();
        Index first = 0;
        const auto part_of = [&](auto i) {
            Batch part(batch.team(), batch.memory(),
                       detail::const_view(dy.middleRows(first, record.outputs[i])));
            first += record.outputs[i];
            detail::backpropagate(std::get<i>(layers_), part, std::get<i>(record.layers),
                                  std::get<i>(gradient.layers), detail::HandOn<Epilogue>{});
            return part;
        };
        Batch sum = part_of(std::integral_constant<std::size_t, 0>{});
        detail::for_each_index<sizeof...(Layers) - 1>([&](auto i) {
            const auto part = part_of(std::integral_constant<std::size_t, i + 1>{});
            if constexpr (!detail::is_discarded<Epilogue>) {
                const auto other = part.current();
                sum.apply(detail::AddMatrix<Scalar>{other.data(), other.outerStride()});
            }
        });
        if constexpr (!detail::is_discarded<Epilogue>) {
            sum.apply(epilogue);
            (void)sum.writable();
            batch = std::move(sum);
        }
    }

    template <class Self, class Visit, class... Others>
    static void visit_parts(Self& self, Visit&& visit, Others&... others) {
        detail::for_each_index<sizeof...(Layers)>([&](auto i) {
            visit(std::size_t{i}, std::get<i>(self.layers_), std::get<i>(others.layers)...);
        });
    }

private:
    std::tuple<Layers...> layers_;
};

}  // namespace stochastic_depth
