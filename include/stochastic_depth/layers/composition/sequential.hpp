// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <tuple>
#include <utility>

#include <stochastic_depth/pass/activations.hpp>
#include <stochastic_depth/pass/differentiation.hpp>
#include <stochastic_depth/pass/fused_layers.hpp>

namespace stochastic_depth {

/// Layers one after another: y = layer_n(... layer_1(x)).
///
/// A Linear and the element-wise layers after it run as one pass, found at compile time.
template <ForwardLayer... Layers>
    requires(sizeof...(Layers) > 0)
&&(detail::one_scalar<Layers...>)class Sequential {
public:
    using Scalar = typename std::tuple_element_t<0, std::tuple<Layers...>>::Scalar;
    static constexpr bool has_skippable_layers = (detail::has_skippable_layers<Layers> || ...);
    static constexpr bool skips_branches_alone = (detail::skips_branches_alone<Layers> && ...);
    static constexpr bool has_statistics = (detail::has_statistics<Layers> || ...);
    static constexpr bool parts_are_differentiable = (DifferentiableLayer<Layers> && ...);
    static constexpr std::size_t size = sizeof...(Layers);

    explicit Sequential(Layers... layers) : layers_(std::move(layers)...) {}

    [[nodiscard]] const std::tuple<Layers...>& layers() const { return layers_; }

    /// \throws std::invalid_argument  as the first layer that cannot take its input does.
    [[nodiscard]] Index output_size(Index input_size) const {
        std::apply(
            [&](const auto&... layer) { ((input_size = layer.output_size(input_size)), ...); },
            layers_);
        return input_size;
    }

    /// NN(x, S), [outputs x batch], for x [features x batch].
    /// \param mask  One SurvivalMask for the batch, or SurvivalMasks, one mask for each sample.
    /// \throws std::invalid_argument  if sizes don't match.
    template <class Mask>
    [[nodiscard]] Matrix<Scalar> operator()(const ConstMatrixRef<Scalar>& x,
                                            const Mask& mask) const {
        return masked_forward(*this, x, mask);
    }

    /// Number of skippable layers.
    [[nodiscard]] Index depth() const {
        return std::apply([](const auto&... layer) { return (detail::depth(layer) + ...); },
                          layers_);
    }

    /// p_l in order of depth.
    [[nodiscard]] Eigen::VectorXd survival_probabilities() const {
        return detail::survival_probabilities(*this);
    }

    /// Every layer runs.
    /// \param x  [features x batch].
    /// \param y  [outputs x batch], overwritten; must not overlap x.
    /// \throws std::invalid_argument  if sizes don't match.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("Sequential", *this, x, y);
        detail::forward_fused(*this, x, y, detail::Keep{});
    }

    template <class Epilogue>
    void forward_fused(const detail::ConstView<Scalar>& x, detail::View<Scalar> y,
                       const Epilogue& epilogue) const {
        run_from<0>(x, y, epilogue);
    }

    /// Index of the step after the one that begins at layer I.
    template <std::size_t I>
    static constexpr std::size_t next_step() {
        std::size_t end = I + 1;
        if constexpr (takes_elementwise_epilogue<I>)
            while (end < size && is_elementwise[end]) ++end;
        return end;
    }

    /// The layers [I, next_step<I>()) as one layer.
    template <std::size_t I>
    [[nodiscard]] decltype(auto) step() const {
        constexpr std::size_t count = next_step<I>() - I;
        if constexpr (count == 1)
            return std::get<I>(layers_);
        else
            return fuse<I>(std::make_index_sequence<count - 1>{});
    }

    template <class Mask>
    void propagate(detail::Activations<Scalar>& activations, const Mask& mask) const {
        propagate_from<0>(activations, mask);
    }

    [[nodiscard]] Index widest(Index input_size) const {
        Index width = input_size;
        const auto pass = [&](const auto& layer) {
            width = std::max(width, detail::widest(layer, input_size));
            input_size = layer.output_size(input_size);
        };
        std::apply([&](const auto&... layer) { (pass(layer), ...); }, layers_);
        return width;
    }

    [[nodiscard]] Index random_layers() const {
        return std::apply([](const auto&... layer) { return (detail::random_layers(layer) + ...); },
                          layers_);
    }

    void write_survival_probabilities(double*& first) const {
        std::apply(
            [&](const auto&... layer) {
                (detail::write_survival_probabilities(layer, first), ...);
            },
            layers_);
    }

    void write_enclosing_layers(Index*& first, Index& next, Index enclosing) const {
        std::apply(
            [&](const auto&... layer) {
                (detail::write_enclosing_layers(layer, first, next, enclosing), ...);
            },
            layers_);
    }

    using Recorded = std::tuple<detail::Record<Layers>...>;
    using Cache = detail::RecordedPass<Recorded>;
    using Gradient = detail::GradientOfEach<Layers...>;

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache& cache) const {
        detail::forward_recorded("Sequential", *this, x, y, cache);
    }

    [[nodiscard]] Gradient zero_gradient() const { return Gradient::zero(layers_); }

    /// \param x   [features x batch], the input of forward.
    /// \param dy  [outputs x batch], gradient by the output.
    /// \param dx  [features x batch], gradient by the input, overwritten.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy,
                  const Cache& cache, Gradient& gradient, MatrixRef<Scalar> dx) const {
        detail::backward_recorded("Sequential", *this, x, dy, cache, gradient, dx);
    }

    template <class Mask, class Epilogue>
    void record(detail::Flow<Scalar>& flow, Recorded& recorded, const Mask& mask,
                const Epilogue& epilogue) const {
        record_from<0>(flow, recorded, mask, epilogue);
    }

    template <class Epilogue>
    void backpropagate(detail::Slopes<Scalar>& slopes, const Recorded& recorded, Gradient& gradient,
                       const Epilogue& epilogue) const {
        detail::for_each_index<size - 1>([&](auto i) {
            constexpr std::size_t last = size - 1 - i;
            detail::backpropagate(std::get<last>(layers_), slopes, std::get<last>(recorded),
                                  std::get<last>(gradient.layers));
        });
        detail::backpropagate(std::get<0>(layers_), slopes, std::get<0>(recorded),
                              std::get<0>(gradient.layers), epilogue);
    }

    void update_statistics(const Recorded& recorded) {
        detail::for_each_index<sizeof...(Layers)>([&](auto i) {
            detail::update_statistics(std::get<i>(layers_), std::get<i>(recorded));
        });
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parts(Self& self, Visit&& visit, Gradients&... gradients) {
        detail::for_each_index<sizeof...(Layers)>([&](auto i) {
            visit(std::size_t{i}, std::get<i>(self.layers_), std::get<i>(gradients.layers)...);
        });
    }

private:
    template <std::size_t I>
    using LayerAt = std::tuple_element_t<I, std::tuple<Layers...>>;

    static constexpr bool is_elementwise[size] = {ElementwiseLayer<Layers>...};

    template <std::size_t I>
    static constexpr bool takes_elementwise_epilogue =
        !detail::has_skippable_layers<LayerAt<I>> &&
        requires(const LayerAt<I>& layer, const detail::ConstView<Scalar>& x,
                 detail::View<Scalar> y) {
        layer.forward_fused(x, y, detail::Keep{});
    };

    template <std::size_t I, std::size_t... Offset>
    auto fuse(std::index_sequence<Offset...>) const {
        return detail::FusedLayers<LayerAt<I>, LayerAt<I + 1 + Offset>...>{
            std::get<I>(layers_), std::tie(std::get<I + 1 + Offset>(layers_)...)};
    }

    template <std::size_t I, class Epilogue>
    void run_from(const detail::ConstView<Scalar>& x, detail::View<Scalar> y,
                  const Epilogue& epilogue) const {
        const auto& here = step<I>();
        if constexpr (next_step<I>() == size) {
            detail::forward_fused(here, x, y, epilogue);
        } else {
            detail::ScratchMatrix<Scalar> h(here.output_size(x.rows()), x.cols());
            detail::forward_fused(here, x, *h, detail::Keep{});
            run_from<next_step<I>()>(detail::const_view(*h), y, epilogue);
        }
    }

    template <std::size_t I, class Mask>
    void propagate_from(detail::Activations<Scalar>& activations, const Mask& mask) const {
        if constexpr (I < size) {
            detail::propagate(step<I>(), activations, mask);
            propagate_from<next_step<I>()>(activations, mask.after(std::get<I>(layers_)));
        }
    }

    /// The layers from I on; a product and the element-wise layers after it in one pass, which
    /// leaves the input of each of these on the tape.
    template <std::size_t I, class Mask, class Epilogue>
    void record_from(detail::Flow<Scalar>& flow, Recorded& recorded, const Mask& mask,
                     const Epilogue& epilogue) const {
        constexpr std::size_t next = next_recorded_step<I>();
        const auto run = [&](const auto& behind) {
            const LayerAt<I>& layer = std::get<I>(layers_);
            if constexpr (next == I + 1)
                detail::record(layer, flow, std::get<I>(recorded), mask, behind);
            else
                detail::record(layer, flow, std::get<I>(recorded), mask,
                               recorded_chain<I + 1, next>(flow, layer.output_size(flow.rows()),
                                                           recorded, behind));
        };
        if constexpr (next == size) {
            run(epilogue);
        } else {
            run(detail::Keep{});
            record_from<next>(flow, recorded, mask.after(std::get<I>(layers_)), epilogue);
        }
    }

    /// As next_step, up to a layer that needs more than its input on the way back.
    template <std::size_t I>
    static constexpr std::size_t next_recorded_step() {
        constexpr bool keeps_input_alone[size] = {detail::runs_in_parts<Layers>...};
        std::size_t end = I + 1;
        while (end < next_step<I>() && keeps_input_alone[end]) ++end;
        return end;
    }

    /// The element-wise layers [I, End), and then an epilogue.
    template <std::size_t I, std::size_t End, class Epilogue>
    auto recorded_chain(detail::Flow<Scalar>& flow, Index rows, Recorded& recorded,
                        const Epilogue& epilogue) const {
        if constexpr (I == End) {
            return epilogue;
        } else {
            auto input = flow.room(rows);
            std::get<I>(recorded).input = {input.data(), input.rows(), input.cols(),
                                           input.outerStride()};
            return detail::Then{
                detail::StoreInto<Scalar>{input.data(), input.outerStride()},
                detail::Then{detail::ApplyElementwise<LayerAt<I>>{std::get<I>(layers_)},
                             recorded_chain<I + 1, End>(flow, rows, recorded, epilogue)}};
        }
    }

    std::tuple<Layers...> layers_;
};

}  // namespace stochastic_depth
