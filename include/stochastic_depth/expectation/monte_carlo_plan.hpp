// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <utility>

#include <stochastic_depth/concepts.hpp>
#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/expectation/expectation_result.hpp>
#include <stochastic_depth/expectation/sampled_blocks.hpp>
#include <stochastic_depth/pass/folds.hpp>

namespace stochastic_depth {

/// What MonteCarloExpectation does before it looks at an input, done once: masks drawn, sorted and
/// weighted. A call answers with the same bits as the rule does, sooner, and with threads = 1
/// allocates nothing after one like it.
///
/// `MonteCarloExpectation::plan(network)` makes it. It may be used by several threads at a time.
class MonteCarloPlan {
public:
    /// \param network  With the plan's survival probabilities; its parameters may be others.
    /// \param x        Inputs, [features x batch].
    /// \param result   Overwritten; memory that it has is used again.
    /// \throws std::invalid_argument  if the network cannot take x, or has other survival
    ///                                probabilities.
    /// \complexity     Fewer than `samples` masked forward passes.
    template <MaskedNetwork Network>
    void operator()(const Network& network,
                    const ConstMatrixRef<typename Network::Scalar>& x,
                    ExpectationResult<typename Network::Scalar>& result) const {
        const Index outputs = network.output_size(x.rows()), size = outputs * x.cols();
        check_survival_probabilities(network);
        const detail::ScratchArray<double> moments(3 * size);
        const detail::SampleMomentsView to{moments.data(), moments.data() + size,
                                           moments.data() + 2 * size};
        const detail::SampledBlocks<Network> blocks(network, x, sample_, threads_, to);
        blocks.run(0, blocks.count());
        detail::write_result(to, outputs, x.cols(), result);
        result.degrees_of_freedom =
            detail::degrees_of_freedom(sample_.samples, detail::spread_of(sample_));
        result.layer_evaluations = layer_evaluations_;
        result.samples = sample_.samples;
    }

    template <MaskedNetwork Network>
    [[nodiscard]] ExpectationResult<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) const {
        ExpectationResult<typename Network::Scalar> result;
        (*this)(network, x, result);
        return result;
    }

private:
    friend class MonteCarloExpectation;

    MonteCarloPlan(Eigen::VectorXd survival_probabilities, detail::MaskSample sample,
                   unsigned threads)
        : survival_probabilities_(std::move(survival_probabilities)),
          sample_(std::move(sample)),
          layer_evaluations_(sample_.masks.layer_evaluations()),
          threads_(threads) {}

    template <class Network>
    void check_survival_probabilities(const Network& network) const {
        const Index depth = network.depth();
        if (depth != survival_probabilities_.size())
            detail::refuse("MonteCarloPlan: network must have ", survival_probabilities_.size(),
                           " skippable layers as the plan's, got ", depth);
        const detail::ScratchArray<double> p(depth);
        double* end = p.data();
        detail::write_survival_probabilities(network, end);
        for (Index l = 0; l < depth; ++l)
            if (p[l] != survival_probabilities_(l))
                detail::refuse("MonteCarloPlan: survival probability of layer ", l, " must be ",
                               survival_probabilities_(l), " as in the plan, got ", p[l]);
    }

    Eigen::VectorXd survival_probabilities_;
    detail::MaskSample sample_;
    double layer_evaluations_;
    unsigned threads_;
};

}  // namespace stochastic_depth
