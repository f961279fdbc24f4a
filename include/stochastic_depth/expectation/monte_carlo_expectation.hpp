// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <stochastic_depth/detail/columns.hpp>
#include <stochastic_depth/detail/evaluations.hpp>
#include <stochastic_depth/detail/parallel.hpp>
#include <stochastic_depth/expectation/expectation_result.hpp>
#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/survival/mask_sampler.hpp>

namespace stochastic_depth {

struct MonteCarloExpectationOptions {
    /// Number of masks, at least 1.
    Index samples = 100;
    std::uint64_t seed = 0;
    /// Threads to share the work, at least 1. The result has the same bits for any number.
    unsigned threads = 1;
};

namespace detail {

/// Mean and sum of squared deviations of the samples so far, for each of a number of outputs.
/// \source Welford 1962; the merge: Chan, Golub & LeVeque 1983, Eq. (1.5).
struct RunningMoments {
    explicit RunningMoments(Index size)
        : mean(static_cast<std::size_t>(size)), deviations(static_cast<std::size_t>(size)) {}

    template <class Scalar>
    void add(const Scalar* outputs) {
        count += 1;
        const double share = 1 / count;
        for (std::size_t i = 0; i < mean.size(); ++i) {
            const double value = static_cast<double>(outputs[i]);
            const double before = value - mean[i];
            mean[i] += share * before;
            deviations[i] += before * (value - mean[i]);
        }
    }

    void merge(const RunningMoments& other) {
        if (other.count == 0) return;
        const double total = count + other.count;
        for (std::size_t i = 0; i < mean.size(); ++i) {
            const double difference = other.mean[i] - mean[i];
            mean[i] += other.count / total * difference;
            deviations[i] += other.deviations[i] + count * other.count / total * difference * difference;
        }
        count = total;
    }

    double count = 0;
    std::vector<double> mean;
    std::vector<double> deviations;
};

}  // namespace detail

/// Estimates mean and variance of the network output from independent random masks: mask k is that of
/// sample k of step 0 of `MaskSampler{network.survival_probabilities(), seed}`.
///
/// All columns see the same masks, so a column's result does not depend on the batch that it stands in,
/// and the errors of two columns are correlated. The mean is unbiased, the variance is (with the divisor
/// samples - 1), the standard error is sqrt(variance / samples). With one sample, variance and standard
/// error are NaN.
class MonteCarloExpectation {
public:
    MonteCarloExpectation() = default;

    /// \throws std::invalid_argument  if options.samples or options.threads is below 1.
    explicit MonteCarloExpectation(MonteCarloExpectationOptions options) : options_(options) {
        if (options.samples < 1)
            detail::refuse("MonteCarloExpectation: samples must be at least 1, got ", options.samples);
        if (options.threads < 1)
            detail::refuse("MonteCarloExpectation: threads must be at least 1, got ", options.threads);
    }

    /// \param network  L skippable layers.
    /// \param x        Inputs, [features x batch].
    /// \throws std::invalid_argument  if the network cannot take x.
    /// \complexity     `samples` masked forward passes for each column.
    template <MaskedNetwork Network>
    [[nodiscard]] ExpectationResult<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) const {
        using Scalar = typename Network::Scalar;
        const Index outputs = network.output_size(x.rows());
        const MaskSampler sampler{network.survival_probabilities(), options_.seed};
        ExpectationResult<Scalar> result;
        result.mean.resize(outputs, x.cols());
        result.variance.resize(outputs, x.cols());
        result.standard_error.resize(outputs, x.cols());
        result.layer_evaluations = count_evaluations(network, sampler);

        const Index blocks = (x.cols() + block_columns - 1) / block_columns;
        const bool blocks_for_all = blocks >= 4 * static_cast<Index>(options_.threads);
        detail::parallel_for(blocks, blocks_for_all ? options_.threads : 1, [&](Index b) {
            const Index first = b * block_columns;
            const Index columns = std::min(block_columns, x.cols() - first);
            const detail::RunningMoments moments = sample_block(
                network, sampler, x.middleCols(first, columns), outputs, blocks_for_all ? 1 : options_.threads);
            // 0 / 0 is NaN: one sample tells nothing of the variance.
            for (Index i = 0; i < outputs * columns; ++i) {
                const auto at = static_cast<std::size_t>(i);
                const double variance = moments.deviations[at] / (moments.count - 1);
                const Index to = first * outputs + i;
                result.mean.data()[to] = static_cast<Scalar>(moments.mean[at]);
                result.variance.data()[to] = static_cast<Scalar>(variance);
                result.standard_error.data()[to] = static_cast<Scalar>(std::sqrt(variance / moments.count));
            }
        });
        return result;
    }

private:
    /// Columns of x that pass the network together.
    static constexpr Index block_columns = 96;
    /// The samples are split into this many runs, whose moments are merged in order: the threads share
    /// them, and the result does not depend on how.
    static constexpr Index runs = 16;

    template <class Network>
    [[nodiscard]] double count_evaluations(const Network& network, const MaskSampler& sampler) const {
        detail::EvaluationsUnderMasks evaluations(network);
        SurvivalMasks masks;
        double kept = 0;
        for (Index first = 0; first < options_.samples; first += 4096) {
            masks.resize(sampler.depth(), std::min<Index>(4096, options_.samples - first));
            sampler.sample(0, first, masks);
            kept += evaluations(masks);
        }
        return kept;
    }

    template <class Network>
    [[nodiscard]] detail::RunningMoments sample_block(const Network& network, const MaskSampler& sampler,
                                                      const ConstMatrixRef<typename Network::Scalar>& x,
                                                      Index outputs, unsigned threads) const {
        std::vector<detail::RunningMoments> moments(runs, detail::RunningMoments(outputs * x.cols()));
        detail::parallel_for(runs, threads, [&](Index r) {
            sample_run(network, sampler, x, outputs, r * options_.samples / runs,
                       (r + 1) * options_.samples / runs, moments[static_cast<std::size_t>(r)]);
        });
        for (std::size_t r = 1; r < moments.size(); ++r) moments.front().merge(moments[r]);
        return moments.front();
    }

    /// Samples [first, last). A narrow batch passes the network under several masks at once.
    template <class Network>
    static void sample_run(const Network& network, const MaskSampler& sampler,
                           const ConstMatrixRef<typename Network::Scalar>& x, Index outputs, Index first,
                           Index last, detail::RunningMoments& moments) {
        using Scalar = typename Network::Scalar;
        const Index columns = x.cols();
        const Index at_once = std::max<Index>(1, block_columns / columns);
        SurvivalMasks masks, repeated;
        Matrix<Scalar> many, y;
        for (Index sample = first; sample < last; sample += at_once) {
            const Index count = std::min(at_once, last - sample);
            masks.resize(sampler.depth(), count);
            sampler.sample(0, sample, masks);
            y.resize(outputs, count * columns);
            if (count == 1) {
                masked_forward(network, x, masks.mask(0), y);
            } else {
                many.resize(x.rows(), count * columns);
                for (Index k = 0; k < count; ++k)
                    detail::copy_columns(x, many.middleCols(k * columns, columns));
                repeated.resize(sampler.depth(), count * columns);
                for (Index l = 0; l < masks.depth(); ++l)
                    for (Index j = 0; j < repeated.batch_size(); ++j)
                        if (masks(l, j / columns)) repeated.keep(l, j);
                masked_forward(network, many, repeated, y);
            }
            for (Index k = 0; k < count; ++k) moments.add(y.data() + k * outputs * columns);
        }
    }

    MonteCarloExpectationOptions options_;
};

}  // namespace stochastic_depth
