// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>
#include <vector>

#include <stochastic_depth/expectation/mask_tree.hpp>
#include <stochastic_depth/expectation/tree_sweep.hpp>
#include <stochastic_depth/masked_forward.hpp>
#include <stochastic_depth/pass/work.hpp>

namespace stochastic_depth {

struct MaskHistogramOptions {
    /// The range that is cut into bins, finite, and how many, at least 1. What lies below or above
    /// is counted there.
    double lowest = 0;
    double highest = 1;
    Index bins = 1024;
    /// Threads to share the work, at least 1; no more begin than find enough to do. The result has
    /// the same bits for any number; scores are then computed on several threads at once.
    unsigned threads = 1;
    /// The most evaluations of skippable layers that one column may take: 2^L - 1.
    std::uint64_t max_layer_evaluations = std::uint64_t{1} << 28;
    /// Told of the progress; when it asks to stop, Cancelled is thrown.
    ProgressCallback progress = nullptr;
};

/// The distribution of a scalar over the masks, up to the width of a bin: what MaskDistribution
/// knows exactly from a table, in memory that does not grow with L.
struct MaskHistogram {
    /// Two ends between which a number surely lies.
    struct Between {
        double least;
        double most;
    };

    /// The ends of the bins, in rising order, [bins + 1].
    Eigen::VectorXd edges;
    /// P(v(S) < edges(0)), P(edges(k) <= v(S) < edges(k + 1)), P(edges(bins) <= v(S)), [bins + 2].
    Eigen::VectorXd probabilities;
    /// How far a sum of them may be from what it stands for: 2^(L - 63), and rounding.
    double probability_error = 0;

    /// F(y) = P(v(S) <= y), between what lies in the bins below that of y and what lies in it too.
    /// \throws std::invalid_argument  if y is NaN.
    [[nodiscard]] Between distribution(double y) const {
        if (!(y == y)) detail::refuse("MaskHistogram: y must be a number, got ", y);
        const Index bin = bin_of(edges, y);
        const double below = probabilities.head(bin).sum();
        return {std::max(0.0, below - probability_error),
                std::min(1.0, below + probabilities(bin) + probability_error)};
    }

    /// The least y with F(y) >= u: between the ends of its bin, infinite outside the range; of two
    /// bins or more where u is within the error of a sum.
    /// \throws std::invalid_argument  unless 0 < u < 1.
    [[nodiscard]] Between quantile(double u) const {
        if (!(u > 0 && u < 1)) detail::refuse("MaskHistogram: u must lie in (0, 1), got ", u);
        const double inf = std::numeric_limits<double>::infinity();
        const Index last = probabilities.size() - 1, first = bin_reaching(u - probability_error),
                    end = bin_reaching(u + probability_error);
        return {first == 0 ? -inf : edges(first - 1), end == last ? inf : edges(end)};
    }

    /// The place in `probabilities` of a value, which is a number.
    [[nodiscard]] static Index bin_of(const Eigen::VectorXd& edges, double value) {
        return std::upper_bound(edges.begin(), edges.end(), value) - edges.begin();
    }

private:
    [[nodiscard]] Index bin_reaching(double u) const {
        double sum = probabilities(0);
        Index bin = 0;
        while (sum < u && bin + 1 < probabilities.size()) sum += probabilities(++bin);
        return bin;
    }
};

/// The distribution of score(NN(x, S)) over independent masks of the network's survival
/// probabilities, for networks too deep for a table of all masks.
///
/// Probabilities are added as whole multiples of 2^-62, so that their order makes no difference.
///
/// \param network  L skippable layers.
/// \param x        Inputs, [features x batch].
/// \param score    As `mask_values` takes it; a number for every mask that has probability.
/// \throws std::invalid_argument  if the network cannot take x, an option is out of range or a
///                                score is NaN.
/// \throws std::length_error      if the evaluations exceed the budget; nothing has run then.
/// \throws Cancelled              if the progress callback asks to stop.
/// \complexity     2^L - 1 layer evaluations for each column, and 2^L scores; `bins` numbers in
///                 memory beside what a walk of the tree takes.
template <MaskedNetwork Network, class Score>
    requires(std::is_invocable_r_v<double, const Score&,
                                   const ConstMatrixRef<typename Network::Scalar>&>)
[[nodiscard]] MaskHistogram mask_histogram(const Network& network,
                                           const ConstMatrixRef<typename Network::Scalar>& x,
                                           const Score& score,
                                           const MaskHistogramOptions& options) {
    using Scalar = typename Network::Scalar;
    if (options.threads < 1) detail::refuse("mask_histogram: threads must be at least 1, got 0");
    if (options.bins < 1)
        detail::refuse("mask_histogram: bins must be at least 1, got ", options.bins);
    if (!(options.lowest < options.highest && std::isfinite(options.highest - options.lowest)))
        detail::refuse("mask_histogram: highest must be above lowest, both finite, got ",
                       options.highest, " and ", options.lowest);
    (void)network.output_size(x.rows());
    const Eigen::VectorXd p = network.survival_probabilities();
    const Index depth = p.size();
    const double evaluations = detail::evaluations_of_whole_tree(network);
    detail::check_budget("mask_histogram", depth, evaluations, options.max_layer_evaluations);
    if (depth > 62) detail::refuse("mask_histogram: depth must be at most 62, got ", depth);

    MaskHistogram histogram;
    histogram.edges =
        Eigen::VectorXd::LinSpaced(options.bins + 1, options.lowest, options.highest);
    const std::vector<Index> enclosing = detail::enclosing_layers(network);
    const auto probability_of = [&](std::uint64_t mask) {
        double product = 1;
        for (Index l = 0; l < depth; ++l) {
            const Index around = enclosing[static_cast<std::size_t>(l)];
            if (around < 0 || ((mask >> around) & 1u))
                product *= (mask >> l) & 1u ? p(l) : 1 - p(l);
        }
        return product;
    };
    std::vector<std::atomic<std::uint64_t>> sums(static_cast<std::size_t>(options.bins) + 2);
    const auto add = [&](std::uint64_t mask, const ConstMatrixRef<Scalar>& y) {
        const double probability = probability_of(mask);
        if (probability == 0) return;
        const auto value = static_cast<double>(score(y));
        if (!(value == value))
            detail::refuse("mask_histogram: score must be a number, got ", value);
        sums[static_cast<std::size_t>(MaskHistogram::bin_of(histogram.edges, value))].fetch_add(
            static_cast<std::uint64_t>(std::ldexp(probability, 62) + 0.5),
            std::memory_order_relaxed);
    };
    std::optional<detail::ProgressMeter> progress;
    if (options.progress)
        progress.emplace(options.progress, evaluations * static_cast<double>(x.cols()));
    detail::MaskTree<Scalar>(
        x.cols(), detail::threads_for(network, x.rows(), x.cols(), evaluations, options.threads),
        progress ? &*progress : nullptr)
        .walk(network, x, add);

    histogram.probabilities.resize(options.bins + 2);
    for (Index k = 0; k < histogram.probabilities.size(); ++k)
        histogram.probabilities(k) =
            std::ldexp(static_cast<double>(sums[static_cast<std::size_t>(k)].load()), -62);
    histogram.probability_error =
        std::ldexp(1.0, static_cast<int>(depth) - 63) +
        (static_cast<double>(depth) + static_cast<double>(options.bins) + 4) *
            std::numeric_limits<double>::epsilon();
    return histogram;
}

}  // namespace stochastic_depth
