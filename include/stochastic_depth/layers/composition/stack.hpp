// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include <stochastic_depth/pass/activations.hpp>
#include <stochastic_depth/pass/differentiation.hpp>

namespace stochastic_depth {

/// Any number of layers of one type, one after another; none is the identity.
template <ForwardLayer Layer>
class Stack {
public:
    using Scalar = typename Layer::Scalar;
    static constexpr bool has_skippable_layers = detail::has_skippable_layers<Layer>;
    static constexpr bool skips_branches_alone = detail::skips_branches_alone<Layer>;
    static constexpr bool has_statistics = detail::has_statistics<Layer>;
    static constexpr bool parts_are_differentiable = DifferentiableLayer<Layer>;

    explicit Stack(std::vector<Layer> layers) : layers_(std::move(layers)) {}

    [[nodiscard]] const std::vector<Layer>& layers() const { return layers_; }

    /// \throws std::invalid_argument  as the first layer that cannot take its input does.
    [[nodiscard]] Index output_size(Index input_size) const {
        for (const Layer& layer : layers_) input_size = layer.output_size(input_size);
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
        Index sum = 0;
        for (const Layer& layer : layers_) sum += detail::depth(layer);
        return sum;
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
        detail::check_forward("Stack", *this, x, y);
        detail::forward_fused(*this, x, y, detail::Keep{});
    }

    template <class Epilogue>
    void forward_fused(const detail::ConstView<Scalar>& x, detail::View<Scalar> y,
                       const Epilogue& epilogue) const {
        if (layers_.empty()) return detail::transform<Scalar>(x, y, epilogue);
        detail::Activations<Scalar> activations(x, widest(x.rows()));
        for (std::size_t i = 0; i + 1 < layers_.size(); ++i) activations.run(layers_[i]);
        detail::forward_fused(layers_.back(), activations.current(), y, epilogue);
    }

    template <class Mask>
    void propagate(detail::Activations<Scalar>& activations, const Mask& mask) const {
        Mask here = mask;
        for (const Layer& layer : layers_) {
            detail::propagate(layer, activations, here);
            here = here.after(layer);
        }
    }

    [[nodiscard]] Index random_layers() const {
        Index sum = 0;
        for (const Layer& layer : layers_) sum += detail::random_layers(layer);
        return sum;
    }

    [[nodiscard]] Index widest(Index input_size) const {
        Index width = input_size;
        for (const Layer& layer : layers_) {
            width = std::max(width, detail::widest(layer, input_size));
            input_size = layer.output_size(input_size);
        }
        return width;
    }

    void write_survival_probabilities(double*& first) const {
        for (const Layer& layer : layers_) detail::write_survival_probabilities(layer, first);
    }

    void write_enclosing_layers(Index*& first, Index& next, Index enclosing) const {
        for (const Layer& layer : layers_)
            detail::write_enclosing_layers(layer, first, next, enclosing);
    }

    using Recorded = std::vector<detail::Record<Layer>>;
    using Cache = detail::RecordedPass<Recorded>;

    struct Gradient {
        std::vector<typename Layer::Gradient> layers;
        void set_zero() {
            for (auto& layer : layers) layer.set_zero();
        }
    };

    void forward(const ConstMatrixRef<Scalar>& x, MatrixRef<Scalar> y, Cache& cache) const {
        detail::forward_recorded("Stack", *this, x, y, cache);
    }

    [[nodiscard]] Gradient zero_gradient() const {
        Gradient gradient;
        gradient.layers.reserve(layers_.size());
        for (const Layer& layer : layers_) gradient.layers.push_back(layer.zero_gradient());
        return gradient;
    }

    /// \param x   [features x batch], the input of forward.
    /// \param dy  [outputs x batch], gradient by the output.
    /// \param dx  [features x batch], gradient by the input, overwritten.
    void backward(const ConstMatrixRef<Scalar>& x, const ConstMatrixRef<Scalar>& dy,
                  const Cache& cache, Gradient& gradient, MatrixRef<Scalar> dx) const {
        check_layers("cache", cache.recorded.size());
        check_layers("gradient", gradient.layers.size());
        detail::backward_recorded("Stack", *this, x, dy, cache, gradient, dx);
    }

    template <class Mask, class Epilogue>
    void record(detail::Flow<Scalar>& flow, Recorded& recorded, const Mask& mask,
                const Epilogue& epilogue) const {
        recorded.resize(layers_.size());
        if (layers_.empty()) return flow.apply(epilogue);
        Mask here = mask;
        for (std::size_t i = 0; i + 1 < layers_.size(); ++i) {
            detail::record(layers_[i], flow, recorded[i], here);
            here = here.after(layers_[i]);
        }
        detail::record(layers_.back(), flow, recorded.back(), here, epilogue);
    }

    template <class Epilogue>
    void backpropagate(detail::Slopes<Scalar>& slopes, const Recorded& recorded, Gradient& gradient,
                       const Epilogue& epilogue) const {
        if (layers_.empty()) return slopes.apply(epilogue);
        for (std::size_t i = layers_.size(); i-- > 1;)
            detail::backpropagate(layers_[i], slopes, recorded[i], gradient.layers[i]);
        detail::backpropagate(layers_[0], slopes, recorded[0], gradient.layers[0], epilogue);
    }

    void update_statistics(const Recorded& recorded) {
        for (std::size_t i = 0; i < layers_.size(); ++i)
            detail::update_statistics(layers_[i], recorded[i]);
    }

    template <class Self, class Visit, class... Gradients>
    static void visit_parts(Self& self, Visit&& visit, Gradients&... gradients) {
        (self.check_layers("gradient", gradients.layers.size()), ...);
        for (std::size_t i = 0; i < self.layers_.size(); ++i)
            visit(i, self.layers_[i], gradients.layers[i]...);
    }

private:
    void check_layers(const char* what, std::size_t count) const {
        if (count != layers_.size())
            detail::refuse("Stack: ", what, " must have ", layers_.size(), " layers, got ", count);
    }

    std::vector<Layer> layers_;
};

}  // namespace stochastic_depth
