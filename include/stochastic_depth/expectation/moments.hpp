// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>

#include <stochastic_depth/kernels/epilogue.hpp>
#include <stochastic_depth/memory/scratch.hpp>

/// The moments of a block of outputs over the masks below a node of the prefix tree, and how those
/// of its two children combine, by the law of total variance:
///     mean = p m_active + (1 - p) m_skipped,
///     variance = p v_active + (1 - p) v_skipped + p (1 - p) (m_active - m_skipped)^2.
///
/// The skipped child is walked last, and carries its siblings' results along as a list; whoever
/// computes its outputs combines them in an epilogue, while they are in registers.
///
/// Derivatives of the mean by the survival probabilities come along where they are wanted: the mean
/// is linear in each p_l, so that by p of a node it is m_active - m_skipped, and by those of the
/// layers below, p times the active child's plus 1 - p times the skipped one's.
namespace stochastic_depth::detail {

/// What a sweep over the tree computes: mean and variance, or derivatives of the mean as well.
enum class Sweep { moments, derivatives };

/// Number of derivatives by n survival probabilities: by each of them, and by each pair of them.
[[nodiscard]] constexpr Index first_order(Index n) { return n; }
[[nodiscard]] constexpr Index second_order(Index n) { return n * (n + 1) / 2; }

/// Derivatives of a block's mean by the survival probabilities of the layers still to come, each
/// [outputs x columns] and `stride` apart. The derivative by the layer that has r layers after it
/// is number r, or number second_order(r) where there are pairs, followed by those by this layer
/// and the one with 0, ..., r - 1 layers after it: what the last layers need does not depend on how
/// many there are before.
template <class Scalar>
struct DerivativesView {
    Scalar* data = nullptr;
    Index stride = 0;
    bool pairs = false;

    [[nodiscard]] Index count(Index layers) const {
        return pairs ? second_order(layers) : first_order(layers);
    }
    [[nodiscard]] Scalar* by(Index r) const { return data + count(r) * stride; }
};

/// Mean and variance of a block, [outputs x columns], columns `stride` apart.
template <class Scalar>
struct MomentsView {
    Scalar* mean;
    Scalar* variance;
    Index stride;
    DerivativesView<Scalar> derivatives = {};

    [[nodiscard]] MomentsView from_column(Index j) const {
        MomentsView view = *this;
        view.mean += j * stride;
        view.variance += j * stride;
        if (derivatives.data) view.derivatives.data += j * stride;
        return view;
    }
};

/// Memory for the moments of some columns, with the derivatives by `layers` layers where those
/// of `like` are wanted.
template <class Scalar, Sweep sweep>
class ScratchMoments {
public:
    ScratchMoments(const MomentsView<Scalar>& like, Index outputs, Index columns, Index layers)
        : size_(outputs * columns),
          memory_((2 + (sweep == Sweep::derivatives ? like.derivatives.count(layers) : 0)) *
                  size_),
          view_{memory_.data(), memory_.data() + size_, outputs} {
        if constexpr (sweep == Sweep::derivatives)
            view_.derivatives = {memory_.data() + 2 * size_, size_, like.derivatives.pairs};
    }

    [[nodiscard]] const MomentsView<Scalar>& operator*() const { return view_; }

private:
    Index size_;
    ScratchArray<Scalar> memory_;
    MomentsView<Scalar> view_;
};

/// The moments of an active child, waiting for those of its skipped sibling.
template <class Scalar>
struct PendingSibling {
    MomentsView<Scalar> active;
    Scalar p;
    /// 1 - p, of the p that p was rounded from: 0 only where the sibling has no probability.
    Scalar q;
    /// Layers that come after the node, those inside it included, and those alone that come after
    /// both children.
    Index layers_after_active;
    Index layers_after_skipped;
    const PendingSibling* parent;
};

/// Where the moments of a block belong, after they have been combined with the siblings that wait
/// for them.
template <class Scalar>
struct Target {
    MomentsView<Scalar> moments;
    const PendingSibling<Scalar>* siblings = nullptr;

    /// Whether columns of `rows` numbers follow each other without gaps in all that belongs here.
    [[nodiscard]] bool is_contiguous(Index rows) const {
        return moments.stride == rows && (!siblings || siblings->active.stride == rows);
    }
};

template <class Value>
struct Moments {
    Value mean;
    Value variance;
};

/// Both moments over a layer that is kept with probability p = 1 - q. Equal moments combine to
/// themselves, and a variance stays at least 0: rounding is monotone.
template <class Value>
EIGEN_ALWAYS_INLINE Moments<Value> combine(Value p, Value q, Moments<Value> active,
                                           Moments<Value> skipped) {
    const Value difference = active.mean - skipped.mean;
    const Value spread =
        multiply_add(q * difference, difference, active.variance - skipped.variance);
    return {multiply_add(p, difference, skipped.mean), multiply_add(p, spread, skipped.variance)};
}

/// The derivatives by a node and each of the layers after it: the difference of the children's
/// derivatives by these layers.
template <class P, class Scalar>
[[gnu::noinline]] void differentiate_pairs(const PendingSibling<Scalar>& sibling,
                                           DerivativesView<Scalar> to, Index at, Index active_at) {
    const Index node = sibling.layers_after_active;
    for (Index r = 0; r < node; ++r) {
        const P by_active = P::load(sibling.active.derivatives.by(r) + active_at);
        const bool reached = r < sibling.layers_after_skipped;
        const P by_pair = reached ? by_active - P::load(to.by(r) + at) : by_active;
        by_pair.store(to.by(node) + (r + 1) * to.stride + at);
    }
}

/// Combines the derivatives of a sibling with those of the skipped child, which stand in `to`,
/// where the result goes.
template <class P, class Scalar>
EIGEN_ALWAYS_INLINE void combine_derivatives(const PendingSibling<Scalar>& sibling,
                                             P mean_difference, const DerivativesView<Scalar>& to,
                                             Index at, Index active_at) {
    const Index node = sibling.layers_after_active, count = to.count(node);
    if (to.pairs) differentiate_pairs<P>(sibling, to, at, active_at);
    // Layers inside the node don't matter where it is skipped; nothing there does where it never
    // is.
    const Index known = sibling.q == Scalar(0) ? 0 : to.count(sibling.layers_after_skipped);
    const P p = P::broadcast(sibling.p), q = P::broadcast(sibling.q);
    const Scalar* active = sibling.active.derivatives.data + active_at;
    const Index active_stride = sibling.active.derivatives.stride, stride = to.stride;
    Scalar* slope = to.data + at;
    Index k = 0;
    for (; k < known; ++k, active += active_stride, slope += stride)
        multiply_add(q, P::load(slope), p * P::load(active)).store(slope);
    for (; k < count; ++k, active += active_stride, slope += stride)
        (p * P::load(active)).store(slope);
    mean_difference.store(slope);
}

/// Copies the derivatives of a skipped child to where they will be combined.
template <class P, class Scalar>
[[gnu::noinline]] void copy_derivatives(const DerivativesView<Scalar>& from,
                                        const DerivativesView<Scalar>& to, Index count,
                                        Index from_at, Index at) {
    for (Index k = 0; k < count; ++k)
        P::load(from.data + k * from.stride + from_at).store(to.data + k * to.stride + at);
}

/// Combines with each waiting sibling in turn, from the deepest on.
template <Sweep sweep, class P, class Scalar>
EIGEN_ALWAYS_INLINE Moments<P> combine_all(Moments<P> skipped, const Target<Scalar>& to, Index i,
                                           Index j) {
    if (!to.siblings) return skipped;
    // All that wait are scratch memory of the same shape.
    const Index at = i + j * to.siblings->active.stride;
    for (auto* sibling = to.siblings; sibling; sibling = sibling->parent) {
        const Moments<P> active{P::load(sibling->active.mean + at),
                                P::load(sibling->active.variance + at)};
        if constexpr (sweep == Sweep::derivatives) {
            combine_derivatives(*sibling, active.mean - skipped.mean, to.moments.derivatives,
                                i + j * to.moments.stride, at);
            // The skipped child was walked for its derivative alone, and what it holds may be no
            // number.
            if (sibling->q == Scalar(0)) {
                skipped = active;
                continue;
            }
        }
        skipped = combine(P::broadcast(sibling->p), P::broadcast(sibling->q), active, skipped);
    }
    return skipped;
}

/// Epilogue: the output of one mask prefix is its own mean; the variance is 0.
template <Sweep sweep, class Scalar>
struct StoreOutput {
    Target<Scalar> to;

    template <class P>
    EIGEN_ALWAYS_INLINE P operator()(P value, Index i, Index j) const {
        const auto moments =
            combine_all<sweep>(Moments<P>{value, P::broadcast(Scalar(0))}, to, i, j);
        moments.variance.store(to.moments.variance + i + j * to.moments.stride);
        return moments.mean;
    }

    [[nodiscard]] bool crosses_columns(Index rows) const { return to.is_contiguous(rows); }
};

/// Epilogue of the last layer of a network: both of its children at once. `value` is the branch of
/// a residual layer with the identity as shortcut, or any other layer's output.
template <Sweep sweep, class Scalar, bool IsBranch>
struct StoreLastLayer {
    const Scalar* x;
    Index x_stride;
    Scalar p;
    Scalar q;  // as in PendingSibling
    Target<Scalar> to;

    template <class P>
    EIGEN_ALWAYS_INLINE P operator()(P value, Index i, Index j) const {
        const P skipped = P::load(x + i + j * x_stride);
        const P difference = IsBranch ? value : value - skipped;
        P mean = multiply_add(P::broadcast(p), difference, skipped);
        P variance = P::broadcast(p * q) * (difference * difference);
        const Index at = i + j * to.moments.stride;
        if constexpr (sweep == Sweep::derivatives) {
            difference.store(to.moments.derivatives.data + at);
            // As in combine_all: what has no probability has no part in the moments.
            if (q == Scalar(0)) {
                mean = IsBranch ? skipped + value : value;
                variance = P::broadcast(Scalar(0));
            }
        }
        const auto moments = combine_all<sweep>(Moments<P>{mean, variance}, to, i, j);
        moments.variance.store(to.moments.variance + at);
        return moments.mean;
    }

    [[nodiscard]] bool crosses_columns(Index rows) const {
        return x_stride == rows && to.is_contiguous(rows);
    }
};

/// Epilogue: the moments of a skipped child, whose sibling is the first that waits.
template <Sweep sweep, class Scalar>
struct StoreCombined {
    MomentsView<Scalar> skipped;
    Target<Scalar> to;

    template <class P>
    EIGEN_ALWAYS_INLINE P operator()(P mean, Index i, Index j) const {
        const Index from = i + j * skipped.stride;
        const P variance = P::load(skipped.variance + from);
        if constexpr (sweep == Sweep::derivatives) {
            const DerivativesView<Scalar>& derivatives = to.moments.derivatives;
            copy_derivatives<P>(skipped.derivatives, derivatives,
                                derivatives.count(to.siblings->layers_after_skipped), from,
                                i + j * to.moments.stride);
        }
        const auto moments = combine_all<sweep>(Moments<P>{mean, variance}, to, i, j);
        moments.variance.store(to.moments.variance + i + j * to.moments.stride);
        return moments.mean;
    }
};

}  // namespace stochastic_depth::detail
