// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <tuple>
#include <vector>

#include <stochastic_depth/expectation/progress.hpp>
#include <stochastic_depth/layers/composition/residual.hpp>
#include <stochastic_depth/layers/composition/sequential.hpp>
#include <stochastic_depth/layers/composition/stack.hpp>
#include <stochastic_depth/pass/differentiation.hpp>
#include <stochastic_depth/stochastic_depth.hpp>

namespace stochastic_depth::detail {

/// Backward through the tree of mask prefixes: the adjoint of the prefix tree.
///
/// A pass through a layer gets its input in h and leaves there the gradient by this input, summed
/// over all masks below. In between, `then(h, weight)` gets the layer's output under each way
/// through it, with the probability of the prefix that led there, and leaves the gradient by it; it
/// stands for the rest of the network. Gradients are weighted where they begin, at the outputs, so
/// that everything before adds them up.
template <class Scalar>
class GradientTree {
public:
    /// \param progress  Null: nobody asks.
    explicit GradientTree(ProgressMeter* progress) : progress_(progress) {}

    /// A layer with nothing to skip.
    template <class Layer, class Then>
    void pass(const Layer& layer, typename Layer::Gradient& gradient, Matrix<Scalar>& h,
              double weight, const Then& then) const {
        pass_plain(layer, gradient, h, weight, then);
    }

    template <class Layer, class Then>
    void pass(const StochasticDepth<Layer>& node,
              typename StochasticDepth<Layer>::Gradient& gradient, Matrix<Scalar>& h, double weight,
              const Then& then) const {
        if (progress_) progress_->add(static_cast<double>(h.cols()));
        const double p = node.survival_probability().value();
        gradient.reached = true;
        if (p == 1.0) return pass(node.layer(), gradient.layer, h, weight, then);
        Matrix<Scalar> active = h;
        pass(node.layer(), gradient.layer, active, p * weight, then);
        if constexpr (StochasticDepth<Layer>::skips_to_identity)
            then(h, (1 - p) * weight);
        else
            pass(node.shortcut(), ShortcutOf<Layer>::gradient(gradient.layer), h, (1 - p) * weight,
                 then);
        h += active;
    }

    template <class... Layers, class Then>
    void pass(const Sequential<Layers...>& network,
              typename Sequential<Layers...>::Gradient& gradient, Matrix<Scalar>& h, double weight,
              const Then& then) const {
        if constexpr (has_skippable_layers<Sequential<Layers...>>)
            pass_from<0>(network, gradient, h, weight, then);
        else
            pass_plain(network, gradient, h, weight, then);
    }

    template <class Layer, class Then>
    void pass(const Stack<Layer>& stack, typename Stack<Layer>::Gradient& gradient,
              Matrix<Scalar>& h, double weight, const Then& then) const {
        RestOfStack<Layer, Then>{*this, stack.layers(), gradient.layers, 0, then}(h, weight);
    }

    template <class Branch, class Shortcut, class Then>
    void pass(const Residual<Branch, Shortcut>& layer,
              typename Residual<Branch, Shortcut>::Gradient& gradient, Matrix<Scalar>& h,
              double weight, const Then& then) const {
        if constexpr (!has_skippable_layers<Residual<Branch, Shortcut>>)
            return pass_plain(layer, gradient, h, weight, then);
        const Matrix<Scalar> x = h;
        // Summed over the ways through the branch; each is followed by all those through the
        // shortcut.
        Matrix<Scalar> by_shortcut = Matrix<Scalar>::Zero(x.rows(), x.cols());
        const auto after_branch = [&](Matrix<Scalar>& branch, double branch_weight) {
            Matrix<Scalar> by_branch = Matrix<Scalar>::Zero(branch.rows(), branch.cols());
            Matrix<Scalar> shortcut = x;
            const auto after_shortcut = [&](Matrix<Scalar>& sum, double sum_weight) {
                sum += branch;
                then(sum, sum_weight);
                by_branch += sum;
            };
            pass(layer.shortcut(), gradient.shortcut, shortcut, branch_weight, after_shortcut);
            by_shortcut += shortcut;
            branch.swap(by_branch);
        };
        pass(layer.branch(), gradient.branch, h, weight, after_branch);
        h += by_shortcut;
    }

private:
    template <class Layer, class Then>
    void pass_plain(const Layer& layer, typename Layer::Gradient& gradient, Matrix<Scalar>& h,
                    double weight, const Then& then) const {
        const Tape::Mark before = tape_.mark();
        Record<Layer> kept;
        Flow<Scalar> flow(tape_, Team::alone(), h);
        record(layer, flow, kept, EveryLayer{});
        Matrix<Scalar> y = flow.current();
        then(y, weight);
        Slopes<Scalar> slopes(Team::alone(), y);
        backpropagate(layer, slopes, kept, gradient);
        h = slopes.current();
        tape_.release(before);
    }

    template <std::size_t I, class... Layers, class Then>
    void pass_from(const Sequential<Layers...>& network,
                   typename Sequential<Layers...>::Gradient& gradient, Matrix<Scalar>& h,
                   double weight, const Then& then) const {
        const auto& here = std::get<I>(network.layers());
        auto& gradient_here = std::get<I>(gradient.layers);
        if constexpr (I + 1 == sizeof...(Layers))
            pass(here, gradient_here, h, weight, then);
        else
            pass(here, gradient_here, h, weight, [&](Matrix<Scalar>& y, double y_weight) {
                pass_from<I + 1>(network, gradient, y, y_weight, then);
            });
    }

    /// The layers of a stack from `next` on, and then the rest of the network.
    template <class Layer, class Then>
    struct RestOfStack {
        const GradientTree& tree;
        const std::vector<Layer>& layers;
        std::vector<typename Layer::Gradient>& gradients;
        std::size_t next;
        const Then& then;

        void operator()(Matrix<Scalar>& h, double weight) const {
            if (next == layers.size()) return then(h, weight);
            tree.pass(layers[next], gradients[next], h, weight,
                      RestOfStack{tree, layers, gradients, next + 1, then});
        }
    };

    ProgressMeter* progress_;
    /// Passes begin and end on it as they are nested.
    mutable Tape tape_;
};

}  // namespace stochastic_depth::detail
