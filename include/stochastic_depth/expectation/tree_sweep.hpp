// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string_view>

#include <stochastic_depth/expectation/prefix_tree.hpp>
#include <stochastic_depth/expectation/progress.hpp>
#include <stochastic_depth/pass/evaluations.hpp>

/// A sweep over the whole prefix tree, within a budget.
namespace stochastic_depth::detail {

/// \param evaluations  Layer evaluations for each column.
/// \throws std::length_error  if they are more than the budget.
inline void check_budget(std::string_view name, Index depth, double evaluations,
                         std::uint64_t budget) {
    if (!(evaluations <= static_cast<double>(budget)))
        throw std::length_error(
            message(name, ": depth ", depth, " takes ", evaluations,
                    " layer evaluations for each column, and max_layer_evaluations is ", budget,
                    "; raise it, or sample with MonteCarloExpectation"));
}

/// Sweeps the tree under survival probabilities that may be others than the network's own.
template <Sweep sweep, class Scalar, class Network>
void sweep_tree(const Network& network, const ConstMatrixRef<Scalar>& x,
               const Eigen::Ref<const Eigen::VectorXd>& p, double evaluations, unsigned threads,
               const ProgressCallback& callback, MomentsView<Scalar> to) {
    using Tree = PrefixTree<Scalar, sweep>;
    typename Tree::Options options{p, network.output_size(x.rows()), most_rows(network, x.rows()),
                                   threads};
    if (!callback) return Tree(options).walk(network, x, to);
    ProgressMeter progress(callback, evaluations * static_cast<double>(x.cols()));
    options.progress = &progress;
    Tree(options).walk(network, x, to);
}

}  // namespace stochastic_depth::detail
