// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string_view>

#include <stochastic_depth/expectation/prefix_tree.hpp>
#include <stochastic_depth/expectation/progress.hpp>
#include <stochastic_depth/pass/evaluations.hpp>
#include <stochastic_depth/pass/run_into.hpp>
#include <stochastic_depth/pass/work.hpp>

/// A sweep over the whole prefix tree, within a budget.
namespace stochastic_depth::detail {

/// \param evaluations  Layer evaluations for each column.
/// \param advice       What else a caller can do.
/// \throws std::length_error  if they are more than the budget.
inline void check_budget(std::string_view name, Index depth, double evaluations,
                         std::uint64_t budget,
                         std::string_view advice = "sample with MonteCarloExpectation") {
    if (!(evaluations <= static_cast<double>(budget)))
        throw std::length_error(
            message(name, ": depth ", depth, " takes ", evaluations,
                    " layer evaluations for each column, and max_layer_evaluations is ", budget,
                    "; raise it, or ", advice));
}

/// Calls visit(array, power) for mean, variance and each derivative, each [outputs x columns] with
/// columns `to.stride` apart, where a scale of the outputs comes in with that power.
template <class Scalar, class Visit>
void visit_results(const MomentsView<Scalar>& to, Index layers, const Visit& visit) {
    visit(to.mean, 1);
    visit(to.variance, 2);
    if (!to.derivatives.data) return;
    for (Index k = 0; k < to.derivatives.count(layers); ++k)
        visit(to.derivatives.data + k * to.derivatives.stride, 1);
}

/// Whether column j of the results has numbers alone that are finite.
template <class Scalar>
[[nodiscard]] bool is_finite(const MomentsView<Scalar>& to, Index outputs, Index layers, Index j) {
    // Adds up to 0 unless a number is infinite or none.
    Scalar sum{0};
    visit_results(to, layers, [&](const Scalar* array, int) {
        for (Index i = 0; i < outputs; ++i) sum += array[i + j * to.stride] * Scalar(0);
    });
    return sum == Scalar(0);
}

/// Where a difference of two outputs overflows, or its square, the moments that are built from it
/// may be finite all the same. These columns are swept again with outputs scaled down by a power of
/// two, and what was not finite is taken from there.
template <class Scalar, class Tree, class Network>
void mend_overflow(const Network& network, const ConstMatrixRef<Scalar>& x,
                   typename Tree::Options options, const MomentsView<Scalar>& to) {
    const Index outputs = options.outputs, layers = options.law.depth();
    Index first = 0, end = x.cols();
    while (first < end && is_finite(to, outputs, layers, first)) ++first;
    while (first < end && is_finite(to, outputs, layers, end - 1)) --end;
    if (first == end || outputs == 0) return;
    // Outputs below 2^e come to less than 2^(e / 2 - 2), and the squares of differences to 2^(e - 2).
    const int halvings = std::numeric_limits<Scalar>::max_exponent / 2 + 2;
    options.scale = std::ldexp(Scalar(1), -halvings);
    const Scalar back = std::ldexp(Scalar(1), halvings);
    const Index size = outputs * (end - first);
    const Index derivatives = to.derivatives.data ? to.derivatives.count(layers) : 0;
    Matrix<Scalar> again(size, 2 + derivatives);
    MomentsView<Scalar> scaled{again.data(), again.data() + size, outputs};
    if (to.derivatives.data)
        scaled.derivatives = {again.data() + 2 * size, size, to.derivatives.pairs};
    Tree(options).walk(network, x.middleCols(first, end - first), scaled);
    Index k = 0;
    visit_results(to.from_column(first), layers, [&](Scalar* array, int power) {
        for (Index j = 0; j < end - first; ++j)
            for (Index i = 0; i < outputs; ++i) {
                Scalar& number = array[i + j * to.stride];
                if (std::isfinite(number)) continue;
                number = again(i + j * outputs, k) * back;
                if (power == 2) number *= back;
            }
        ++k;
    });
}

/// Sweeps the tree of the masks of a law.
template <Sweep sweep, class Scalar, class Network, class Law>
void sweep_tree_of(const Law& law, const Network& network, const ConstMatrixRef<Scalar>& x,
                   double evaluations, unsigned threads, const ProgressCallback& callback,
                   MomentsView<Scalar> to) {
    using Tree = PrefixTree<Scalar, sweep, Law>;
    typename Tree::Options options{law, network.output_size(x.rows()), most_rows(network, x.rows()),
                                   threads_for(network, x.rows(), x.cols(), evaluations, threads)};
    const auto run = [&] {
        Tree(options).walk(network, x, to);
        mend_overflow<Scalar, Tree>(network, x, options, to);
    };
    if (!callback) return run();
    ProgressMeter progress(callback, evaluations * static_cast<double>(x.cols()));
    options.progress = &progress;
    run();
}

/// The same under survival probabilities of independent masks, which may be others than the
/// network's own.
template <Sweep sweep, class Scalar, class Network>
void sweep_tree(const Network& network, const ConstMatrixRef<Scalar>& x,
                const Eigen::Ref<const Eigen::VectorXd>& p, double evaluations, unsigned threads,
                const ProgressCallback& callback, MomentsView<Scalar> to) {
    sweep_tree_of<sweep, Scalar>(IndependentBits{p}, network, x, evaluations, threads, callback,
                                 to);
}

}  // namespace stochastic_depth::detail
