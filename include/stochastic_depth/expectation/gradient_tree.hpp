// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/expectation/progress.hpp>
#include <stochastic_depth/expectation/tree_law.hpp>
#include <stochastic_depth/pass/walk.hpp>

namespace stochastic_depth::detail {

/// Backward through the tree of mask prefixes: the adjoint of the prefix tree.
///
/// A layer gets its input in h and leaves there the gradient by this input, summed over all masks
/// below. In between, `then(h, weight)` gets the layer's output under each way through it, with the
/// probability of the prefix that led there, and leaves the gradient by it. Gradients are weighted
/// where they begin, at the outputs, so that everything before adds them up.
template <class Scalar, class Law>
class GradientTree {
public:
    /// \param law       As TreeLaw, or IndependentBits.
    /// \param progress  Null: nobody asks.
    GradientTree(const Law& law, ProgressMeter* progress) : law_(law), progress_(progress) {}

    /// \param then  then(y, weight).
    template <class Network, class Then>
    void walk(const Network& network, typename Network::Gradient& gradient, Matrix<Scalar>& h,
              const Then& then) const {
        const auto at_end = [&](Matrix<Scalar>& y, const Prefix& prefix) {
            then(y, prefix.weight);
        };
        Walk<GradientTree>{*this}(network, h, at_end, Prefix{1.0, 0, law_.start(), {}}, gradient);
    }

private:
    friend Walk<GradientTree>;

    struct Prefix {
        double weight;
        /// How many skippable layers are behind.
        Index layer;
        /// What the law knows of their bits.
        [[no_unique_address]] LawState<Law> bits;
        /// Of the sequences in the columns.
        SequenceLengths lengths;
    };

    template <class Walk, class Node, class Then>
    void at(const Walk& walk, const Node& node, Matrix<Scalar>& h, const Then& then,
            const Prefix& prefix, typename Node::Gradient& gradient) const {
        const Index layer = prefix.layer, inside = node.depth() - 1;
        const double p = law_.survival_probability(layer, prefix.bits);
        const auto keep = [&](Matrix<Scalar>& active) {
            if (progress_) progress_->add(static_cast<double>(active.cols()));
            gradient.reached = true;
            walk(node.layer(), active, then,
                 Prefix{p * prefix.weight, layer + 1, law_.next(layer, prefix.bits, true),
                        prefix.lengths},
                 gradient.layer);
        };
        if (p == 1.0) return keep(h);
        const auto skip = [&] {
            walk.skip(node, h, then,
                      Prefix{(1 - p) * prefix.weight, layer + 1 + inside,
                             behind_skipped(law_, layer, inside, prefix.bits), prefix.lengths},
                      gradient);
        };
        if (p == 0.0) {
            if constexpr (!Node::skips_to_identity) gradient.shortcut_reached = true;
            return skip();
        }
        Matrix<Scalar> active = h;
        keep(active);
        skip();
        h += active;
    }

    /// A layer with nothing to skip.
    template <class Layer, class Then, class Gradient>
    void run(const Layer& layer, Matrix<Scalar>& h, const Then& then, const Prefix& prefix,
             Gradient& gradient) const {
        const Tape::Mark before = tape_.mark();
        RecordOf<Layer, Records> record;
        {
            Batch<Scalar, Records> batch(Team::alone(), tape_, const_view(h));
            batch.set_lengths(prefix.lengths);
            detail::run(layer, batch, record, EveryLayer{});
            Matrix<Scalar> y = batch.current();
            Prefix behind = prefix;
            behind.lengths = batch.lengths();
            then(y, behind);
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
              Matrix<Scalar>& h, const Then& then, const Prefix& prefix) const {
        const Matrix<Scalar> x = h;
        Matrix<Scalar> by_second = Matrix<Scalar>::Zero(x.rows(), x.cols());
        const auto after_first = [&](Matrix<Scalar>& a, const Prefix& a_prefix) {
            Matrix<Scalar> by_a = Matrix<Scalar>::Zero(a.rows(), a.cols());
            Matrix<Scalar> by_x = x;
            const auto after_second = [&](Matrix<Scalar>& b, const Prefix& b_prefix) {
                Matrix<Scalar> y(a.rows(), a.cols()), da, db;
                join(a, b, y);
                then(y, b_prefix);
                join.backpropagate(a, b, y, da, db);
                by_a += da;
                b.swap(db);
            };
            walk(second, by_x, after_second, a_prefix);
            by_second += by_x;
            a.swap(by_a);
        };
        walk(first, h, after_first, prefix);
        h += by_second;
    }

    const Law& law_;
    ProgressMeter* progress_;
    /// Passes begin and end on it as they are nested.
    mutable Tape tape_;
};

}  // namespace stochastic_depth::detail
