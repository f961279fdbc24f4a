// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include <stochastic_depth/expectation/forward_under_each.hpp>
#include <stochastic_depth/pass/evaluations.hpp>
#include <stochastic_depth/pass/work.hpp>
#include <stochastic_depth/survival/independent_law.hpp>
#include <stochastic_depth/survival/mask_law.hpp>
#include <stochastic_depth/survival/most_probable_law_masks.hpp>
#include <stochastic_depth/survival/most_probable_masks.hpp>
#include <stochastic_depth/threads/parallel.hpp>

namespace stochastic_depth {

struct CertifiedIntervalOptions {
    /// The range of the network's outputs, finite, lowest < highest. Every mask's outputs must lie
    /// in it; the caller knows that they do, as with probabilities behind a Softmax.
    double lowest = 0;
    double highest = 1;
    /// The probability mass that may stay without evaluation, in [0, 1).
    double uncovered = 0.01;
    /// The most evaluations of skippable layers that one column may take.
    std::uint64_t max_layer_evaluations = std::uint64_t{1} << 24;
    /// Threads to share the work, at least 1; no more begin than find enough to do. The result has
    /// the same bits for any number.
    unsigned threads = 1;
};

/// Bounds of f_SD(x), for each output and each sample of a batch.
struct CertifiedBounds {
    /// lower <= f_SD(x) <= upper, [outputs x batch].
    Eigen::MatrixXd lower, upper;
    /// Mass of the evaluated masks, rounded down; 1 where they are all.
    double covered = 0;
    /// Number of evaluated masks.
    Index masks = 0;
    /// Evaluations of skippable layers that it took for each column of x.
    double layer_evaluations = 0;
};

namespace detail {

/// A sum of numbers that are not negative, with an error of 2 roundings whatever their number.
/// \source Higham 2002, Accuracy and Stability of Numerical Algorithms, Section 4.3: Kahan's sum.
struct CompensatedSum {
    double sum = 0, error = 0;

    /// Adds a * b, rounded together with the correction: what compilers may do, done by all.
    void add_product(double a, double b) {
        const double corrected = std::fma(a, b, -error);
        const double next = sum + corrected;
        error = (next - sum) - corrected;
        sum = next;
    }
};

}  // namespace detail

/// An interval that surely contains f_SD(x) = E[NN(x, S)] of a network whose outputs have a known
/// range: masks are evaluated in order of falling probability, and what is left can be no worse
/// than the range,
///     lower = lowest + sum P(S) (NN(x, S) - lowest),  upper = highest - sum P(S) (highest - NN(x, S)),
/// summed over the evaluated masks. The width is (highest - lowest) (1 - covered mass). It stops
/// when all but `uncovered` of the mass is covered, or before the mask that would exceed the
/// budget; the answer is valid then as well, and wider.
///
/// What is certain: the bounds hold for the function that the program computes, NN(x, S) being what
/// `network(x, mask)` returns. All rounding of probabilities and sums is bounded, and the interval
/// widened by it: by less than (16 L + 32) 2^-53 (highest - lowest) and two units in the last place
/// of each end. The rounding inside NN is not: against a network of real arithmetic the interval
/// holds once both ends are moved outward by the largest error of any NN(x, S).
///
/// A column's bits depend neither on the batch that it stands in nor on the threads.
class CertifiedInterval {
public:
    CertifiedInterval() = default;

    /// \throws std::invalid_argument  if an option is out of range.
    explicit CertifiedInterval(CertifiedIntervalOptions options) : options_(options) {
        if (!std::isfinite(options.lowest))
            detail::refuse("CertifiedInterval: lowest must be finite, got ", options.lowest);
        if (!(options.highest > options.lowest && std::isfinite(options.highest - options.lowest)))
            detail::refuse("CertifiedInterval: highest must be finite and above lowest, which is ",
                           options.lowest, ", got ", options.highest);
        if (!(options.uncovered >= 0 && options.uncovered < 1))
            detail::refuse("CertifiedInterval: uncovered must lie in [0, 1), got ",
                           options.uncovered);
        if (options.threads < 1)
            detail::refuse("CertifiedInterval: threads must be at least 1, got 0");
    }

    /// \param network  L skippable layers.
    /// \param x        Inputs, [features x batch].
    /// \throws std::invalid_argument  if the network cannot take x, or an output is not a number in
    ///                                [lowest, highest].
    /// \complexity     A masked forward pass for each mask and column; memory for the list of
    ///                 masks.
    template <MaskedNetwork Network>
    [[nodiscard]] CertifiedBounds operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) const {
        return (*this)(network, x, IndependentLaw{network.survival_probabilities()});
    }

    /// The same for the masks of a law, in place of independent ones of the network's p_l: bounds of
    /// its expectation, its conditional probabilities being what they are as numbers.
    ///
    /// \param law  A MaskLaw of L layers.
    /// \throws std::invalid_argument  besides, if the law has another depth or a probability outside
    ///                                [0, 1].
    /// \throws std::length_error      if more than 2^20 of its states differ behind a layer.
    template <MaskedNetwork Network, MaskLaw Law>
    [[nodiscard]] CertifiedBounds operator()(const Network& network,
                                             const ConstMatrixRef<typename Network::Scalar>& x,
                                             const Law& law) const {
        const Index outputs = network.output_size(x.rows());
        detail::check_law("CertifiedInterval", law, network.depth());
        Plan plan;
        if constexpr (std::is_same_v<Law, IndependentLaw>)
            plan = choose_masks(network, MostProbableMasks{law.survival_probabilities()});
        else
            plan = choose_masks(network, MostProbableLawMasks<Law>{law});
        CertifiedBounds result;
        result.lower.resize(outputs, x.cols());
        result.upper.resize(outputs, x.cols());
        result.covered = plan.covered;
        result.masks = plan.size();
        result.layer_evaluations = plan.evaluations;
        const Index blocks = (x.cols() + block_columns - 1) / block_columns;
        const bool blocks_for_all = blocks >= 4 * static_cast<Index>(options_.threads);
        const unsigned threads =
            blocks_for_all ? detail::threads_for(network, x.rows(), x.cols(), plan.evaluations,
                                                 options_.threads)
                           : 1;
        detail::parallel_for(blocks, threads, [&](Index b) {
            const Index first = b * block_columns;
            const Index columns = std::min(block_columns, x.cols() - first);
            bound_block(network, plan, x.middleCols(first, columns), first,
                        blocks_for_all ? 1 : options_.threads, result);
        });
        return result;
    }

private:
    /// Columns that pass the network together.
    static constexpr Index block_columns = 96;
    /// Passes that the threads share before their outputs are summed up.
    static constexpr Index passes_at_once = 16;
    /// Masks less probable than this are left out of the sums, which stay lower bounds: products
    /// with them might underflow.
    static constexpr double negligible = 1e-200;

    /// The masks to evaluate, `words_of_mask` words for each.
    struct Plan {
        std::size_t words_of_mask = 0;
        std::vector<std::uint64_t> words;
        std::vector<double> weights;
        double covered = 0;
        double evaluations = 0;
        /// Bound of the relative error of a sum of P(S) times a difference: 8 L roundings in P(S),
        /// one in the difference, two in the compensated sum, what `at_least` itself adds, and room
        /// to spare.
        double relative_error = 0;

        [[nodiscard]] Index size() const { return static_cast<Index>(weights.size()); }
        [[nodiscard]] bool keeps(Index mask, Index layer) const {
            const std::size_t word = static_cast<std::size_t>(mask) * words_of_mask +
                                     static_cast<std::size_t>(layer) / 64;
            return ((words[word] >> (layer % 64)) & 1u) != 0;
        }
        /// What the exact value of a rounded sum cannot be below.
        [[nodiscard]] double at_least(const detail::CompensatedSum& sum) const {
            // Each product may have lost the smallest of all numbers.
            const double underflow =
                static_cast<double>(size()) * std::numeric_limits<double>::min();
            return std::max(0.0, std::fma(sum.sum, 1 - relative_error, -underflow));
        }
    };

    template <class Network, class Masks>
    [[nodiscard]] Plan choose_masks(const Network& network, Masks masks) const {
        const Index depth = network.depth();
        const std::vector<Index> enclosing = detail::enclosing_layers(network);
        Plan plan;
        plan.words_of_mask = (static_cast<std::size_t>(depth) + 63) / 64;
        plan.relative_error = (8 * static_cast<double>(depth) + 16) * 0x1p-53;
        detail::CompensatedSum mass;
        auto next = masks.next();
        for (; next && !(plan.covered >= 1 - options_.uncovered); next = masks.next()) {
            const double evaluations = plan.evaluations + count_evaluations(next->mask, enclosing);
            if (!(evaluations <= static_cast<double>(options_.max_layer_evaluations))) break;
            plan.evaluations = evaluations;
            plan.words.insert(plan.words.end(), next->mask.words().begin(),
                              next->mask.words().end());
            plan.weights.push_back(next->probability >= negligible ? next->probability : 0);
            mass.add_product(plan.weights.back(), 1);
            plan.covered = plan.at_least(mass);
        }
        if (!next) plan.covered = 1;
        return plan;
    }

    /// Layers inside a skipped one don't run.
    [[nodiscard]] static double count_evaluations(const SurvivalMask& mask,
                                                  const std::vector<Index>& enclosing) {
        SurvivalMask runs = mask;
        for (Index l = 0; l < mask.size(); ++l) {
            const Index around = enclosing[static_cast<std::size_t>(l)];
            if (around >= 0 && !runs[around]) runs.skip(l);
        }
        return static_cast<double>(runs.count());
    }

    template <class Network>
    void bound_block(const Network& network, const Plan& plan,
                     const ConstMatrixRef<typename Network::Scalar>& x, Index first_column,
                     unsigned most_threads, CertifiedBounds& result) const {
        const Index outputs = result.lower.rows(), columns = x.cols(), entries = outputs * columns;
        // A narrow batch passes the network under several masks at once.
        const Index masks_of_pass = std::max<Index>(1, block_columns / columns);
        const Index masks_at_once = std::min(passes_at_once * masks_of_pass, plan.size());
        const double share = static_cast<double>(masks_at_once) / static_cast<double>(plan.size());
        const unsigned threads = detail::threads_for(network, x.rows(), columns,
                                                     share * plan.evaluations, most_threads);
        std::vector<detail::CompensatedSum> above_lowest(static_cast<std::size_t>(entries));
        std::vector<detail::CompensatedSum> below_highest(static_cast<std::size_t>(entries));
        Matrix<typename Network::Scalar> y(outputs, masks_at_once * columns);
        for (Index first = 0; first < plan.size(); first += masks_at_once) {
            const Index count = std::min(masks_at_once, plan.size() - first);
            detail::parallel_for((count + masks_of_pass - 1) / masks_of_pass, threads,
                                 [&](Index pass) {
                                     const Index from = pass * masks_of_pass;
                                     const Index masks = std::min(masks_of_pass, count - from);
                                     evaluate(network, plan, first + from, masks, x,
                                              y.middleCols(from * columns, masks * columns));
                                 });
            for (Index k = 0; k < count; ++k) {
                const double weight = plan.weights[static_cast<std::size_t>(first + k)];
                for (Index i = 0; i < entries; ++i) {
                    const auto value = static_cast<double>(y.data()[k * entries + i]);
                    if (!(value >= options_.lowest && value <= options_.highest))
                        detail::refuse("CertifiedInterval: outputs must lie in [", options_.lowest,
                                       ", ", options_.highest, "], got ", value, " for output ",
                                       i % outputs, " of sample ", first_column + i / outputs);
                    above_lowest[static_cast<std::size_t>(i)].add_product(weight,
                                                                          value - options_.lowest);
                    below_highest[static_cast<std::size_t>(i)].add_product(
                        weight, options_.highest - value);
                }
            }
        }
        constexpr double infinity = std::numeric_limits<double>::infinity();
        for (Index i = 0; i < entries; ++i) {
            const double low =
                options_.lowest + plan.at_least(above_lowest[static_cast<std::size_t>(i)]);
            const double high =
                options_.highest - plan.at_least(below_highest[static_cast<std::size_t>(i)]);
            const Index to = first_column * outputs + i;
            result.lower.data()[to] = std::max(options_.lowest, std::nextafter(low, -infinity));
            result.upper.data()[to] = std::min(options_.highest, std::nextafter(high, infinity));
        }
    }

    /// The outputs under masks [first, first + masks), one batch after another.
    template <class Network>
    static void evaluate(const Network& network, const Plan& plan, Index first, Index masks,
                         const ConstMatrixRef<typename Network::Scalar>& x,
                         MatrixRef<typename Network::Scalar> y) {
        SurvivalMasks of_pass(network.depth(), masks);
        for (Index k = 0; k < masks; ++k)
            for (Index l = 0; l < of_pass.depth(); ++l)
                if (plan.keeps(first + k, l)) of_pass.keep(l, k);
        detail::forward_under_each(network, x, of_pass, y);
    }

    CertifiedIntervalOptions options_;
};

}  // namespace stochastic_depth
