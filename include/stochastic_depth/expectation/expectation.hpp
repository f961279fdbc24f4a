// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <utility>

#include <stochastic_depth/expectation/exact_expectation.hpp>
#include <stochastic_depth/expectation/options_within_budget.hpp>

namespace stochastic_depth {

struct ExpectationOptions {
    /// The most evaluations of skippable layers that one column may take, at least 1.
    std::uint64_t max_layer_evaluations = std::uint64_t{1} << 16;
    /// Of the masks, if they are sampled.
    std::uint64_t seed = 0;
    /// Threads to share the work, at least 1; no more begin than find enough to do. The result has
    /// the same bits for any number.
    unsigned threads = 1;
    /// Told of the progress. When it asks to stop, a sampled answer comes from the masks so far,
    /// and in place of an exact one Cancelled is thrown.
    ProgressCallback progress = nullptr;
};

/// The best that is known about f_SD for a budget of layer evaluations: exact if that fits, else
/// sampled as `options_within_budget` says. The answer's `method` says which it was, `layer_evaluations`
/// what it cost.
class Expectation {
public:
    Expectation() = default;

    /// \throws std::invalid_argument  if options.max_layer_evaluations or options.threads is 0.
    explicit Expectation(ExpectationOptions options) : options_(std::move(options)) {
        if (options_.max_layer_evaluations < 1)
            detail::refuse("Expectation: max_layer_evaluations must be at least 1, got 0");
        if (options_.threads < 1) detail::refuse("Expectation: threads must be at least 1, got 0");
    }

    /// \param network  L skippable layers.
    /// \param x        Inputs, [features x batch].
    /// \throws std::invalid_argument  if the network cannot take x.
    /// \throws Cancelled              if the progress callback asks an exact computation to stop.
    /// \complexity     At most max_layer_evaluations layer evaluations for each column, unless the
    ///                 fewest masks that tell an error take more.
    template <MaskedNetwork Network>
    [[nodiscard]] ExpectationResult<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) const {
        ExpectationResult<typename Network::Scalar> result;
        (*this)(network, x, result);
        return result;
    }

    /// The same into the caller's result.
    template <MaskedNetwork Network>
    void operator()(const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
                    ExpectationResult<typename Network::Scalar>& result) const {
        const Eigen::VectorXd p = network.survival_probabilities();
        const double evaluations = detail::evaluations_of_tree(network, p);
        const std::uint64_t budget = options_.max_layer_evaluations;
        if (evaluations <= static_cast<double>(budget)) {
            ExactExpectation{{.threads = options_.threads,
                              .max_layer_evaluations = budget,
                              .progress = options_.progress}}(network, x, result);
            return;
        }
        auto sampled = options_within_budget(static_cast<double>(budget), p, options_.seed);
        sampled.threads = options_.threads;
        sampled.progress = options_.progress;
        MonteCarloExpectation{std::move(sampled)}(network, x, result);
    }

private:
    ExpectationOptions options_;
};

}  // namespace stochastic_depth
