// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/pass/differentiation.hpp>

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
class Concatenate {
public:
    using Scalar = typename std::tuple_element_t<0, std::tuple<Layers...>>::Scalar;
    static constexpr bool has_skippable_layers = false;
    static constexpr bool has_statistics = (detail::has_statistics<Layers> || ...);
    static constexpr bool parts_are_differentiable = (DifferentiableLayer<Layers> && ...);

    explicit Concatenate(Layers... layers) : layers_(std::move(layers)...) {}

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

    /// \param x  [features x batch].
    /// \param y  [outputs x batch], overwritten; must not overlap x.
    /// \throws std::invalid_argument  if sizes don't match.
    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) const {
        detail::check_forward("Concatenate", *this, x, y);
        Index first = 0;
        detail::for_each_index<sizeof...(Layers)>([&](auto i) {
            const auto& layer = std::get<i>(layers_);
            const Index rows = layer.output_size(x.rows());
            detail::forward_fused(layer, x, y.middleRows(first, rows), detail::Keep{});
            first += rows;
        });
    }

    /// What a recorded pass leaves: the record of each layer, and the number of its outputs.
    struct Recorded {
        std::tuple<detail::Record<Layers>...> layers;
        Index outputs[sizeof...(Layers)] = {};
    };
    using Cache = detail::RecordedPass<Recorded>;
    using Gradient = detail::GradientOfEach<Layers...>;

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache& cache) const {
        detail::forward_recorded("Concatenate", *this, x, y, cache);
    }

    [[nodiscard]] Gradient zero_gradient() const { return Gradient::zero(layers_); }

    /// dx is the sum of the layers' dx.
    /// \param x   [features x batch], the input of forward.
    /// \param dy  [outputs x batch], gradient by the output.
    /// \param dx  [features x batch], gradient by the input, overwritten.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy,
                  const Cache& cache, Gradient& gradient, MatrixRef<Scalar> dx) const {
        detail::backward_recorded("Concatenate", *this, x, dy, cache, gradient, dx);
    }

    template <class Mask, class Epilogue>
    void record(detail::Flow<Scalar>& flow, Recorded& recorded, const Mask& mask,
                const Epilogue& epilogue) const {
        auto y = flow.room(output_size(flow.rows()));
        Index first = 0;
        Mask here = mask;
        detail::for_each_index<sizeof...(Layers)>([&](auto i) {
            detail::Flow<Scalar> part = flow.shared();
            detail::record(std::get<i>(layers_), part, std::get<i>(recorded.layers), here);
            here = here.after(std::get<i>(layers_));
            recorded.outputs[i] = part.rows();
            detail::copy_columns(part.current(), y.middleRows(first, part.rows()));
            first += part.rows();
        });
        flow.advance(y);
        flow.apply(epilogue);
    }

    template <class Epilogue>
    void backpropagate(detail::Slopes<Scalar>& slopes, const Recorded& recorded, Gradient& gradient,
                       const Epilogue& epilogue) const {
        const auto dy = slopes.current();
        Index first = 0;
        const auto part_of = [&](auto i) {
            detail::Slopes<Scalar> part(slopes.team(), dy.middleRows(first, recorded.outputs[i]));
            first += recorded.outputs[i];
            detail::backpropagate(std::get<i>(layers_), part, std::get<i>(recorded.layers),
                                  std::get<i>(gradient.layers));
            return part;
        };
        detail::Slopes<Scalar> sum = part_of(std::integral_constant<std::size_t, 0>{});
        detail::for_each_index<sizeof...(Layers) - 1>([&](auto i) {
            const auto part = part_of(std::integral_constant<std::size_t, i + 1>{});
            const auto other = part.current();
            sum.apply(detail::AddMatrix<Scalar>{other.data(), other.outerStride()});
        });
        sum.apply(epilogue);
        (void)sum.writable();
        slopes = std::move(sum);
    }

    [[nodiscard]] Index random_layers() const {
        return std::apply([](const auto&... layer) { return (detail::random_layers(layer) + ...); },
                          layers_);
    }

    void update_statistics(const Recorded& recorded) {
        detail::for_each_index<sizeof...(Layers)>([&](auto i) {
            detail::update_statistics(std::get<i>(layers_), std::get<i>(recorded.layers));
        });
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parts(Self& self, Visit&& visit, Gradients&... gradients) {
        detail::for_each_index<sizeof...(Layers)>([&](auto i) {
            visit(std::size_t{i}, std::get<i>(self.layers_), std::get<i>(gradients.layers)...);
        });
    }

private:
    std::tuple<Layers...> layers_;
};

}  // namespace stochastic_depth
