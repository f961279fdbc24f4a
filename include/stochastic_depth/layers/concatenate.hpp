// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/detail/differentiation.hpp>
#include <stochastic_depth/detail/epilogue.hpp>

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
    struct Cache {
        std::tuple<detail::Record<Layers>...> layers;
        Index outputs[sizeof...(Layers)] = {};
    };

    struct Gradient {
        std::tuple<typename Layers::Gradient...> layers;
        void set_zero() {
            std::apply([](auto&... layer) { (layer.set_zero(), ...); }, layers);
        }
    };

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache& cache) const {
        detail::forward_recorded("Concatenate", *this, x, y, cache);
    }

    [[nodiscard]] Gradient zero_gradient() const {
        return std::apply([](const auto&... layer) { return Gradient{{layer.zero_gradient()...}}; },
                          layers_);
    }

    /// dx is the sum of the layers' dx.
    /// \param x   [features x batch], the input of forward.
    /// \param dy  [outputs x batch], gradient by the output.
    /// \param dx  [features x batch], gradient by the input, overwritten.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy,
                  const Cache& cache, Gradient& gradient, MatrixRef<Scalar> dx) const {
        detail::backward_recorded("Concatenate", *this, x, dy, cache, gradient, dx);
    }

    template <class Mask>
    void record(Matrix<Scalar>& h, Cache& cache, const Mask& mask) const {
        Matrix<Scalar> y(output_size(h.rows()), h.cols());
        Index first = 0;
        detail::for_each_index<sizeof...(Layers)>([&](auto i) {
            Matrix<Scalar> part = h;
            detail::record(std::get<i>(layers_), part, std::get<i>(cache.layers), mask);
            cache.outputs[i] = part.rows();
            y.middleRows(first, part.rows()) = part;
            first += part.rows();
        });
        h.swap(y);
    }

    void backpropagate(Matrix<Scalar>& d, const Cache& cache, Gradient& gradient) const {
        Matrix<Scalar> sum;
        Index first = 0;
        detail::for_each_index<sizeof...(Layers)>([&](auto i) {
            Matrix<Scalar> part = d.middleRows(first, cache.outputs[i]);
            first += part.rows();
            detail::backpropagate(std::get<i>(layers_), part, std::get<i>(cache.layers),
                                  std::get<i>(gradient.layers));
            if constexpr (i == 0)
                sum.swap(part);
            else
                sum += part;
        });
        d.swap(sum);
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
