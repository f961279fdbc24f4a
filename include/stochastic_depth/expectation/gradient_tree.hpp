// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/expectation/progress.hpp>
#include <stochastic_depth/pass/walk.hpp>

namespace stochastic_depth::detail {

/// Backward through the tree of mask prefixes: the adjoint of the prefix tree.
///
/// A layer gets its input in h and leaves there the gradient by this input, summed over all masks
/// below. In between, `then(h, weight)` gets the layer's output under each way through it, with the
/// probability of the prefix that led there, and leaves the gradient by it. Gradients are weighted
/// where they begin, at the outputs, so that everything before adds them up.
template <class Scalar>
class GradientTree {
public:
    /// \param progress  Null: nobody asks.
    explicit GradientTree(ProgressMeter* progress) : progress_(progress) {}

    template <class Network, class Then>
    void walk(const Network& network, typename Network::Gradient& gradient, Matrix<Scalar>& h,
              const Then& then) const {
        Walk<GradientTree>{*this}(network, h, then, 1.0, gradient);
    }

private:
    friend Walk<GradientTree>;

    template <class Walk, class Node, class Then>
    void at(const Walk& walk, const Node& node, Matrix<Scalar>& h, const Then& then, double weight,
            typename Node::Gradient& gradient) const {
        if (progress_) progress_->add(static_cast<double>(h.cols()));
        const double p = node.survival_probability().value();
        gradient.reached = true;
        if (p == 1.0) return walk(node.layer(), h, then, weight, gradient.layer);
        Matrix<Scalar> active = h;
        walk(node.layer(), active, then, p * weight, gradient.layer);
        walk.skip(node, h, then, (1 - p) * weight, gradient);
        h += active;
    }

    /// A layer with nothing to skip.
    template <class Layer, class Then, class Gradient>
    void run(const Layer& layer, Matrix<Scalar>& h, const Then& then, double weight,
             Gradient& gradient) const {
        const Tape::Mark before = tape_.mark();
        RecordOf<Layer, Records> record;
        {
            Batch<Scalar, Records> batch(Team::alone(), tape_, const_view(h));
            detail::run(layer, batch, record, EveryLayer{});
            Matrix<Scalar> y = batch.current();
            then(y, weight);
            SparePiece spare;
            GradientBatch<Scalar> slopes(Team::alone(), {&spare}, const_view(y));
            backpropagate(layer, slopes, record, gradient);
            h = slopes.current();
        }
        tape_.release(before);
    }

    /// Gradients are summed over the ways through the first layer; each is followed by all those
    /// through the second.
    template <class Walk, class Join, class First, class Second, class Then>
    void join(const Walk& walk, const Join& join, const First& first, const Second& second,
              Matrix<Scalar>& h, const Then& then, double weight) const {
        const Matrix<Scalar> x = h;
        Matrix<Scalar> by_second = Matrix<Scalar>::Zero(x.rows(), x.cols());
        const auto after_first = [&](Matrix<Scalar>& a, double a_weight) {
            Matrix<Scalar> by_a = Matrix<Scalar>::Zero(a.rows(), a.cols());
            Matrix<Scalar> by_x = x;
            const auto after_second = [&](Matrix<Scalar>& b, double b_weight) {
                Matrix<Scalar> y(a.rows(), a.cols()), da, db;
                join(a, b, y);
                then(y, b_weight);
                join.backpropagate(a, b, y, da, db);
                by_a += da;
                b.swap(db);
            };
            walk(second, by_x, after_second, a_weight);
            by_second += by_x;
            a.swap(by_a);
        };
        walk(first, h, after_first, weight);
        h += by_second;
    }

    ProgressMeter* progress_;
    /// Passes begin and end on it as they are nested.
    mutable Tape tape_;
};

}  // namespace stochastic_depth::detail
