// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <tuple>
#include <utility>

#include <stochastic_depth/detail/activations.hpp>
#include <stochastic_depth/detail/differentiation.hpp>

namespace stochastic_depth {
namespace detail {

/// A layer that takes an epilogue, and the element-wise layers after it, as one layer: one pass
/// over the output. Refers to the layers; lives for one call.
template <class Product, class... Elementwise>
struct FusedLayers {
    using Scalar = typename Product::Scalar;
    const Product& product;
    std::tuple<const Elementwise&...> elementwise;

    [[nodiscard]] Index output_size(Index input_size) const {
        return product.output_size(input_size);
    }

    template <class Epilogue>
    void forward_fused(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y,
                       const Epilogue& epilogue) const {
        product.forward_fused(x, y, chain<0>(epilogue));
    }

private:
    template <std::size_t I, class Epilogue>
    auto chain(const Epilogue& epilogue) const {
        if constexpr (I == sizeof...(Elementwise)) {
            return epilogue;
        } else {
            using Layer = std::tuple_element_t<I, std::tuple<Elementwise...>>;
            return Then{ApplyElementwise<Layer>{std::get<I>(elementwise)}, chain<I + 1>(epilogue)};
        }
    }
};

}  // namespace detail

/// Layers one after another: y = layer_n(... layer_1(x)).
///
/// A Linear and the element-wise layers after it run as one pass, found at compile time.
template <ForwardLayer... Layers>
    requires(sizeof...(Layers) > 0)
&&(detail::one_scalar<Layers...>)class Sequential {
public:
    using Scalar = typename std::tuple_element_t<0, std::tuple<Layers...>>::Scalar;
    static constexpr bool has_skippable_layers = (detail::has_skippable_layers<Layers> || ...);
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
        forward_fused(x, y, detail::Keep{});
    }

    template <class Epilogue>
    void forward_fused(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y,
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

    using Cache = std::tuple<detail::Record<Layers>...>;

    struct Gradient {
        std::tuple<typename Layers::Gradient...> layers;
        void set_zero() {
            std::apply([](auto&... layer) { (layer.set_zero(), ...); }, layers);
        }
    };

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache& cache) const {
        detail::forward_recorded("Sequential", *this, x, y, cache);
    }

    [[nodiscard]] Gradient zero_gradient() const {
        return std::apply([](const auto&... layer) { return Gradient{{layer.zero_gradient()...}}; },
                          layers_);
    }

    /// \param x   [features x batch], the input of forward.
    /// \param dy  [outputs x batch], gradient by the output.
    /// \param dx  [features x batch], gradient by the input, overwritten.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy,
                  const Cache& cache, Gradient& gradient, MatrixRef<Scalar> dx) const {
        detail::backward_recorded("Sequential", *this, x, dy, cache, gradient, dx);
    }

    template <class Mask>
    void record(Matrix<Scalar>& h, Cache& cache, const Mask& mask) const {
        Index first = 0;
        detail::for_each_index<sizeof...(Layers)>([&](auto i) {
            detail::record(std::get<i>(layers_), h, std::get<i>(cache), mask.from(first));
            first += detail::depth(std::get<i>(layers_));
        });
    }

    void backpropagate(Matrix<Scalar>& d, const Cache& cache, Gradient& gradient) const {
        detail::for_each_index<sizeof...(Layers)>([&](auto i) {
            constexpr std::size_t last = size - 1 - i;
            detail::backpropagate(std::get<last>(layers_), d, std::get<last>(cache),
                                  std::get<last>(gradient.layers));
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
        requires(const LayerAt<I>& layer, const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y) {
        layer.forward_fused(x, y, detail::Keep{});
    };

    template <std::size_t I, std::size_t... Offset>
    auto fuse(std::index_sequence<Offset...>) const {
        return detail::FusedLayers<LayerAt<I>, LayerAt<I + 1 + Offset>...>{
            std::get<I>(layers_), std::tie(std::get<I + 1 + Offset>(layers_)...)};
    }

    template <std::size_t I, class Epilogue>
    void run_from(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y,
                  const Epilogue& epilogue) const {
        const auto& here = step<I>();
        if constexpr (next_step<I>() == size) {
            detail::forward_fused(here, x, y, epilogue);
        } else {
            detail::ScratchMatrix<Scalar> h(here.output_size(x.rows()), x.cols());
            detail::forward_fused(here, x, *h, detail::Keep{});
            run_from<next_step<I>()>(*h, y, epilogue);
        }
    }

    template <std::size_t I, class Mask>
    void propagate_from(detail::Activations<Scalar>& activations, const Mask& mask) const {
        if constexpr (I < size) {
            detail::propagate(step<I>(), activations, mask);
            const Index passed = detail::depth(std::get<I>(layers_));
            propagate_from<next_step<I>()>(activations, mask.from(passed));
        }
    }

    std::tuple<Layers...> layers_;
};

}  // namespace stochastic_depth
