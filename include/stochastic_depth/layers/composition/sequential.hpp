// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/layers/composition/fused_steps.hpp>
#include <stochastic_depth/layers/composition/shapes.hpp>
#include <stochastic_depth/pass/affine_in_use.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/walk.hpp>

namespace stochastic_depth {
namespace detail {

/// Consecutive layers of a Sequential, [Begin, End), without skippable layers inside, as one layer:
/// its record and its gradient are those of the Sequential. Refers to it; lives for one call.
template <class Sequential, std::size_t Begin, std::size_t End>
struct Segment {
    using Scalar = typename Sequential::Scalar;
    template <class Memory>
    using Record = typename Sequential::template Record<Memory>;
    using Gradient = typename Sequential::Gradient;

    /// Whether gradients pass through it, if they do through the whole.
    static constexpr bool has_way_back = DifferentiableLayer<Sequential>;

    const Sequential& whole;

    [[nodiscard]] Index output_size(Index input_size) const {
        for_each_index<End - Begin>([&](auto i) {
            input_size = std::get<Begin + i>(whole.layers()).output_size(input_size);
        });
        return input_size;
    }

    template <class Batch, class Record, class Mask, class Epilogue>
    void run(Batch& batch, Record& record, const Mask& mask, const Epilogue& epilogue) const {
        whole.template run_layers<Begin, End>(batch, record, mask, epilogue);
    }
    template <class Batch, class Record, class Epilogue>
    void backpropagate(Batch& batch, const Record& record, auto& gradient,
                       const Epilogue& epilogue) const {
        whole.template backpropagate_layers<Begin, End>(batch, record, gradient, epilogue);
    }
};

}  // namespace detail

/// Layers one after another: y = layer_n(... layer_1(x)).
///
/// A Linear or Conv2d and the element-wise layers after it run as one pass, found at compile time,
/// and in use the normalisations by running statistics too.
template <ForwardLayer... Layers>
    requires(sizeof...(Layers) > 0 && detail::one_scalar<Layers...>)
class Sequential : public LayerBase<Sequential<Layers...>, detail::ScalarOfFirst<Layers...>, Layers...> {
public:
    static constexpr bool reads_chosen_columns =
        detail::reads_chosen_columns<std::tuple_element_t<0, std::tuple<Layers...>>>;

    /// \throws std::invalid_argument  if neighbours' shapes, where both have one, differ.
    explicit Sequential(Layers... layers) : layers_(std::move(layers)...) {
        detail::check_shapes("Sequential", *this);
    }

    [[nodiscard]] const std::tuple<Layers...>& layers() const { return layers_; }

    /// \throws std::invalid_argument  as the first layer that cannot take its input does.
    [[nodiscard]] Index output_size(Index input_size) const {
        std::apply(
            [&](const auto&... layer) { ((input_size = layer.output_size(input_size)), ...); },
            layers_);
        return input_size;
    }

    /// The shapes of images, from layer to layer.
    void send_shapes(std::string_view who, detail::ShapesOnTheWay& shapes) const {
        std::apply([&](const auto&... layer) { (detail::send_shapes(who, layer, shapes), ...); },
                   layers_);
    }

    template <class Memory>
    struct Record {
        std::tuple<detail::RecordOf<Layers, Memory>...> layers;
    };
    using Gradient = detail::GradientOfEach<Layers...>;

    template <class Batch, class Mask, class Epilogue>
    void run(Batch& batch, Record<typename Batch::Memory>& record, const Mask& mask,
             const Epilogue& epilogue) const {
        run_layers<0, size>(batch, record, mask, epilogue);
    }

    template <class Batch, class Epilogue>
    void backpropagate(Batch& batch, const Record<detail::Records>& record, Gradient& gradient,
                       const Epilogue& epilogue) const {
        backpropagate_layers<0, size>(batch, record, gradient, epilogue);
    }

    template <class Walk, class X, class Then, class State, class... Gradients>
    void walk(const Walk& walk, X& x, const Then& then, const State& state,
              Gradients&... gradients) const {
        walk_from<0>(walk, x, then, state, gradients...);
    }

    template <class Self, class Visit, class... Others>
    static void visit_parts(Self& self, Visit&& visit, Others&... others) {
        detail::for_each_index<size>([&](auto i) {
            visit(std::size_t{i}, std::get<i>(self.layers_), std::get<i>(others.layers)...);
        });
    }

    /// The layers f(part), one after another.
    template <class Function>
    [[nodiscard]] friend auto map_parts(const Sequential& self, const Function& f) {
        return std::apply(
            [&](const Layers&... layer) {
                return Sequential<decltype(f(layer))...>{f(layer)...};
            },
            self.layers_);
    }

private:
    template <class Whole, std::size_t Begin, std::size_t End>
    friend struct detail::Segment;

    static constexpr std::size_t size = sizeof...(Layers);

    template <std::size_t I>
    using LayerAt = std::tuple_element_t<I, std::tuple<Layers...>>;

    /// The layers [I, End), and then an epilogue.
    template <std::size_t I, std::size_t End, class Batch, class Record, class Mask, class Epilogue>
    void run_layers(Batch& batch, Record& record, const Mask& mask,
                    const Epilogue& epilogue) const {
        constexpr std::size_t next = detail::end_of_step<Batch::records, Layers...>(I, End);
        const LayerAt<I>& layer = std::get<I>(layers_);
        const auto run_step = [&](const auto& behind) {
            if constexpr (next == I + 1)
                detail::run(layer, batch, std::get<I>(record.layers), mask, behind);
            else if constexpr (!Batch::records)
                with_epilogue<I + 1, next>(behind, [&](const auto& chain) {
                    detail::run(layer, batch, std::get<I>(record.layers), mask, chain);
                });
            else
                detail::run(layer, batch, std::get<I>(record.layers), mask,
                            chain<I + 1, next>(batch, layer.output_size(batch.rows()), record,
                                               behind));
        };
        if constexpr (next == End) {
            run_step(epilogue);
            if constexpr (next > I + 1 && ends_in_output<next - 1, Batch, Epilogue>)
                std::get<next - 1>(record.layers).output = batch.keep();
        } else {
            run_step(detail::AsIs{});
            if constexpr (next > I + 1 && ends_in_output<next - 1, Batch, detail::AsIs>)
                std::get<next - 1>(record.layers).output = batch.keep();
            run_layers<next, End>(batch, record, mask.behind(layer), epilogue);
        }
    }

    /// Calls use(the layers [I, End) as an epilogue, and then another).
    template <std::size_t I, std::size_t End, class Epilogue, class Use>
    void with_epilogue(const Epilogue& epilogue, const Use& use) const {
        if constexpr (I == End) {
            use(epilogue);
        } else {
            constexpr std::size_t last = End - 1;
            const LayerAt<last>& layer = std::get<last>(layers_);
            const auto go_on = [&](const auto& here) {
                with_epilogue<I, last>(detail::followed_by(here, epilogue), use);
            };
            if constexpr (AffineInUse<LayerAt<last>>)
                go_on(detail::FoldedLayer<typename LayerAt<last>::Scalar>{layer}.epilogue());
            else
                go_on(detail::ApplyElementwise<LayerAt<last>>{layer});
        }
    }

    /// Whether what a step leaves in the batch is the output that an element-wise layer, its last
    /// one, keeps.
    template <std::size_t I, class Batch, class Epilogue>
    static constexpr bool ends_in_output =
        Batch::records && detail::keeps_output<LayerAt<I>> && std::is_same_v<Epilogue, detail::AsIs>;

    /// The element-wise layers [I, End) as an epilogue of a recorded pass, and then another: the
    /// input of each of them, or its output, is left on the tape.
    template <std::size_t I, std::size_t End, class Batch, class Record, class Epilogue>
    auto chain(Batch& batch, Index rows, Record& record, const Epilogue& epilogue) const {
        if constexpr (I == End) {
            return epilogue;
        } else {
            const detail::ApplyElementwise<LayerAt<I>> apply{std::get<I>(layers_)};
            const auto rest = [&] { return chain<I + 1, End>(batch, rows, record, epilogue); };
            if constexpr (I + 1 == End && ends_in_output<I, Batch, Epilogue>) {
                return detail::followed_by(apply, rest());
            } else {
                auto room = batch.room(rows);
                auto numbers = room.writable();
                const detail::StoreInto<typename Batch::Scalar> store{numbers.data(),
                                                                      numbers.outerStride()};
                if constexpr (detail::keeps_output<LayerAt<I>>) {
                    std::get<I>(record.layers).output = room.keep();
                    return detail::Then{apply, detail::followed_by(store, rest())};
                } else {
                    std::get<I>(record.layers).input = room.keep();
                    return detail::Then{store, detail::followed_by(apply, rest())};
                }
            }
        }
    }

    /// The way back through the layers [Begin, End), and then an epilogue.
    template <std::size_t Begin, std::size_t End, class Batch, class Record, class Epilogue>
    void backpropagate_layers(Batch& batch, const Record& record, Gradient& gradient,
                              const Epilogue& epilogue) const {
        constexpr std::size_t last = End - 1;
        constexpr std::size_t first = detail::begin_of_way_back<Layers...>(Begin, End);
        const auto step_back = [&](const auto& behind) {
            detail::backpropagate(std::get<last>(layers_), batch, std::get<last>(record.layers),
                                  std::get<last>(gradient.layers),
                                  derivatives<first, last>(record, behind));
        };
        if constexpr (first == Begin) {
            step_back(epilogue);
        } else {
            step_back(detail::AsIs{});
            backpropagate_layers<Begin, first>(batch, record, gradient, epilogue);
        }
    }

    /// The way back through the element-wise layers [I, End) as an epilogue, and then another.
    template <std::size_t I, std::size_t End, class Record, class Epilogue>
    auto derivatives(const Record& record, const Epilogue& epilogue) const {
        if constexpr (I == End)
            return epilogue;
        else
            return detail::followed_by(
                detail::by_derivative(std::get<End - 1>(layers_),
                                      std::get<End - 1>(record.layers)),
                derivatives<I, End - 1>(record, epilogue));
    }

    /// The end of the layers from I on that have nothing to skip.
    template <std::size_t I>
    static constexpr std::size_t end_of_segment() {
        constexpr bool parts_ways[size] = {detail::has_skippable_layers<Layers>...};
        std::size_t end = I;
        while (end < size && !parts_ways[end]) ++end;
        return end;
    }

    template <std::size_t I, class Walk, class X, class Then, class State, class... Gradients>
    void walk_from(const Walk& walk, X& x, const Then& then, const State& state,
                   Gradients&... gradients) const {
        constexpr std::size_t end = end_of_segment<I>();
        const auto go = [&](const auto& go_on) {
            if constexpr (end > I)
                walk(detail::Segment<Sequential, I, end>{*this}, x, go_on, state, gradients...);
            else
                walk(std::get<I>(layers_), x, go_on, state, std::get<I>(gradients.layers)...);
        };
        constexpr std::size_t next = end > I ? end : I + 1;
        if constexpr (next == size)
            go(then);
        else
            go([&](auto& y, const State& y_state) {
                walk_from<next>(walk, y, then, y_state, gradients...);
            });
    }

    std::tuple<Layers...> layers_;
};

}  // namespace stochastic_depth
