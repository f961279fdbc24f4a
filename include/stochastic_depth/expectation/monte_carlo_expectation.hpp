// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include <stochastic_depth/expectation/control_variates.hpp>
#include <stochastic_depth/expectation/expectation_result.hpp>
#include <stochastic_depth/expectation/law_mask_source.hpp>
#include <stochastic_depth/expectation/monte_carlo_plan.hpp>
#include <stochastic_depth/expectation/progress.hpp>
#include <stochastic_depth/expectation/sample_moments.hpp>
#include <stochastic_depth/expectation/sampled_blocks.hpp>
#include <stochastic_depth/expectation/sampling_rounds.hpp>
#include <stochastic_depth/pass/evaluations.hpp>
#include <stochastic_depth/survival/independent_law.hpp>
#include <stochastic_depth/survival/mask_design.hpp>
#include <stochastic_depth/survival/mask_law.hpp>

namespace stochastic_depth {

struct MonteCarloExpectationOptions {
    /// Number of masks, at least 1: the most, if another limit is given too. Rounded down to whole
    /// pairs or groups.
    Index samples = 100;
    std::uint64_t seed = 0;
    /// Threads to share the work, at least 1; no more begin than find enough to do. The result has
    /// the same bits for any number.
    unsigned threads = 1;
    MaskDesign design = MaskDesign::independent;
    /// Independent groups that stratified and lattice masks are drawn in, at most `samples`; 0: as
    /// the design needs, 1 for stratified masks and 5 for a lattice. Fewer groups make a better
    /// mean; more of them know their error better.
    Index groups = 0;
    /// Number of layers that are not sampled: each sampled mask of the others is evaluated under
    /// all their 2^k combinations, with exact weights. They are those of the largest p_l (1 - p_l),
    /// ties to the later one; at most 20.
    Index enumerated_layers = 0;
    ControlVariates control_variates = ControlVariates::none;
    /// Stop when no standard error is larger, above 0; 0: no such limit.
    double target_standard_error = 0;
    /// Layer evaluations for each column that are not to be exceeded, unless two groups take more.
    double max_layer_evaluations = std::numeric_limits<double>::infinity();
    /// Told of the progress; when it asks to stop, the answer comes from the masks so far.
    ProgressCallback progress = nullptr;
};

/// Estimates mean and variance of the network output from random masks.
///
/// All columns see the same masks, so a column's result does not depend on the batch that it stands
/// in, and the errors of two columns are correlated. Prefixes that masks share run once.
///
/// Plain independent masks: mask k is that of sample k of step 0 of `MaskSampler{p, seed}`, mean
/// and variance are unbiased (divisor samples - 1), and the standard error is sqrt(variance /
/// samples). With one sample, variance and standard error are NaN.
///
/// The mean is unbiased under every design. With control variates it still is for independent and
/// antithetic masks and for two groups and more, because the slopes that correct a part of the
/// sample come from the rest of it. A single group is corrected by its own slopes; its mask bits
/// have means within 1 / samples of p_l, so the bias is of order samples^(-3/2) at most.
///
/// The standard error comes from
/// - the items: masks, pairs, or groups, each as one number (items - 1 degrees of freedom);
/// - what the regression leaves, with items - 1 - rank degrees of freedom: with control variates,
///   and for one group of stratified masks, where the variance that single layers make is gone and
///   the rest is that of independent masks to leading order (Stein 1987). Layers that vary too
///   seldom for a slope, samples p_l (1 - p_l) < 5, are not fitted: of one group the error is too
///   large then, on average, as it is of a single lattice, which does better than its residuals
///   tell;
/// - the groups, for a lattice with control variates.
///
/// With a target or a progress callback, masks are drawn in rounds of doubling size, independent of
/// each other, whose results are merged. Stopping at a target stops early where the error is
/// underestimated: such a standard error is a little too small, and the mean is biased a little. A
/// limit of layer evaluations lets cheap masks be a little more, a bias far below the standard
/// error.
///
/// \source Owen 2013, Monte Carlo theory, methods and examples, chapters 8 and 10.
class MonteCarloExpectation {
public:
    MonteCarloExpectation() = default;

    /// \throws std::invalid_argument  if an option is out of its range.
    explicit MonteCarloExpectation(MonteCarloExpectationOptions options)
        : options_(std::move(options)) {
        const auto refuse_unless = [](bool valid, const char* what, auto value) {
            if (!valid) detail::refuse("MonteCarloExpectation: ", what, ", got ", value);
        };
        const MonteCarloExpectationOptions& o = options_;
        refuse_unless(o.samples >= 1, "samples must be at least 1", o.samples);
        refuse_unless(o.design != MaskDesign::antithetic || o.samples >= 2,
                      "samples of antithetic masks must be at least 2", o.samples);
        refuse_unless(o.threads >= 1, "threads must be at least 1", o.threads);
        refuse_unless(o.groups >= 0, "groups must be at least 0", o.groups);
        refuse_unless(!in_groups() || groups() <= o.samples,
                      "samples must be at least the number of groups", o.samples);
        refuse_unless(o.enumerated_layers >= 0 && o.enumerated_layers <= 20,
                      "enumerated_layers must lie in [0, 20]", o.enumerated_layers);
        refuse_unless(o.target_standard_error >= 0, "target_standard_error must be at least 0",
                      o.target_standard_error);
        refuse_unless(o.max_layer_evaluations > 0, "max_layer_evaluations must be above 0",
                      o.max_layer_evaluations);
    }

    [[nodiscard]] const MonteCarloExpectationOptions& options() const { return options_; }

    /// The masks for a network with these survival probabilities, for many calls.
    /// \throws std::invalid_argument  if a target or a progress callback is given, for which the
    ///                                number of masks depends on the inputs.
    template <MaskedNetwork Network>
    [[nodiscard]] MonteCarloPlan plan(const Network& network) const {
        if (in_rounds())
            detail::refuse("MonteCarloExpectation: plan needs a number of masks that is known: "
                           "neither target_standard_error nor progress");
        const detail::MaskSource source = source_for(network, network.survival_probabilities());
        return {network.survival_probabilities(),
                source.sample(0, rounds().next(source, 0, 0, 0).samples), options_.threads};
    }

    /// \param network  L skippable layers.
    /// \param x        Inputs, [features x batch].
    /// \throws std::invalid_argument  if the network cannot take x.
    /// \complexity     Fewer than `samples` masked forward passes, and those after the first
    ///                 layers; the outputs of all masks in memory, for few columns at a time.
    template <MaskedNetwork Network>
    [[nodiscard]] ExpectationResult<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x) const {
        ExpectationResult<typename Network::Scalar> result;
        (*this)(network, x, result);
        return result;
    }

    /// The same into the caller's result. `plan` allocates less.
    template <MaskedNetwork Network>
    void operator()(const Network& network,
                    const ConstMatrixRef<typename Network::Scalar>& x,
                    ExpectationResult<typename Network::Scalar>& result) const {
        (void)network.output_size(x.rows());
        estimate(network, x, source_for(network, network.survival_probabilities()), result);
    }

    /// The same from masks of a law, in place of independent ones of the network's p_l: mask k is
    /// that of sample k of step 0 of `LawMaskSampler{law, seed}`; for IndependentLaw all is as
    /// above.
    ///
    /// \param law  A MaskLaw of L layers.
    /// \throws std::invalid_argument  besides, if the law has another depth or a probability outside
    ///                                [0, 1]; for an option that needs layers to be independent: a
    ///                                design, enumerated layers, control variates.
    template <MaskedNetwork Network, MaskLaw Law>
    [[nodiscard]] ExpectationResult<typename Network::Scalar> operator()(
        const Network& network, const ConstMatrixRef<typename Network::Scalar>& x,
        const Law& law) const {
        (void)network.output_size(x.rows());
        detail::check_law("MonteCarloExpectation", law, network.depth());
        ExpectationResult<typename Network::Scalar> result;
        if constexpr (std::is_same_v<Law, IndependentLaw>) {
            estimate(network, x, source_for(network, law.survival_probabilities()), result);
        } else {
            refuse_what_needs_independent_layers();
            estimate(network, x,
                     detail::LawMaskSource<Law>(law, detail::enclosing_layers(network),
                                                options_.seed),
                     result);
        }
        return result;
    }

private:
    void refuse_what_needs_independent_layers() const {
        const auto refuse_unless = [](bool valid, const char* option, const char* only) {
            if (!valid)
                detail::refuse("MonteCarloExpectation: ", option, " must be ", only,
                               " under a law, as layers may depend on each other there");
        };
        refuse_unless(options_.design == MaskDesign::independent, "design",
                      "MaskDesign::independent");
        refuse_unless(options_.enumerated_layers == 0, "enumerated_layers", "0");
        refuse_unless(options_.control_variates == ControlVariates::none, "control_variates",
                      "ControlVariates::none");
    }

    template <class Network, class Source, class Scalar = typename Network::Scalar>
    void estimate(const Network& network, const ConstMatrixRef<Scalar>& x, const Source& source,
                  ExpectationResult<Scalar>& result) const {
        const Index outputs = network.output_size(x.rows());
        detail::SampleMoments moments(outputs, x.cols());
        double evaluations = 0;
        Index drawn = 0;
        for (bool more = true; more;) {
            const auto round = rounds().next(source, moments.samples, drawn, evaluations);
            if (round.samples == 0) break;
            const detail::MaskSample sample = source.sample(drawn, round.samples);
            detail::SampleMoments part(outputs, x.cols());
            more = run(network, x, sample, moments.samples, part) && !round.is_last;
            if (part.samples == 0) break;
            moments.merge(std::move(part));
            evaluations += sample.masks.layer_evaluations();
            drawn += source.groups_of(round.samples);
            if (options_.target_standard_error > 0 && x.size() > 0)
                more = more && !reaches_target(moments.squared_error);
        }
        detail::write_result(moments.view(), outputs, x.cols(), result);
        result.degrees_of_freedom = detail::degrees_of_freedom(moments.samples, moments.spread);
        result.layer_evaluations = evaluations;
        result.samples = moments.samples;
    }

    template <class Network>
    [[nodiscard]] detail::MaskSource source_for(const Network& network, Eigen::VectorXd p) const {
        return {std::move(p), detail::enclosing_layers(network),
                {options_.design, groups(), options_.enumerated_layers, options_.control_variates,
                 options_.seed}};
    }

    [[nodiscard]] bool in_groups() const {
        return options_.design == MaskDesign::stratified || options_.design == MaskDesign::lattice;
    }
    [[nodiscard]] Index groups() const {
        if (options_.groups > 0) return options_.groups;
        return options_.design == MaskDesign::lattice ? 5 : 1;
    }
    [[nodiscard]] bool in_rounds() const {
        return options_.target_standard_error > 0 || options_.progress;
    }

    [[nodiscard]] detail::SamplingRounds rounds() const {
        return {options_.samples, in_rounds(), options_.max_layer_evaluations};
    }

    /// Whether no standard error is larger than the target; a NaN is.
    [[nodiscard]] bool reaches_target(const Eigen::MatrixXd& squared_error) const {
        for (Index k = 0; k < squared_error.size(); ++k)
            if (!(std::sqrt(squared_error.data()[k]) <= options_.target_standard_error))
                return false;
        return true;
    }

    /// Evaluates the masks of a round.
    /// \returns  Whether to go on. If the progress callback asks to stop and an answer is there
    ///           already, `to` has no samples.
    template <class Network>
    [[nodiscard]] bool run(const Network& network,
                           const ConstMatrixRef<typename Network::Scalar>& x,
                           const detail::MaskSample& sample, Index done,
                           detail::SampleMoments& to) const {
        const detail::SampledBlocks<Network> blocks(network, x, sample, options_.threads, to.view());
        const Index all = blocks.count();
        const Index at_once = options_.progress ? 4 * static_cast<Index>(options_.threads) : all;
        bool more = true;
        for (Index b = 0; b < all; b += at_once) {
            const Index count = std::min(at_once, all - b);
            blocks.run(b, count);
            if (!options_.progress || !more) continue;
            const double share = static_cast<double>(b + count) / static_cast<double>(all);
            more = options_.progress(
                (static_cast<double>(done) + share * static_cast<double>(sample.samples)) /
                static_cast<double>(options_.samples));
            if (!more && done > 0 && b + count < all) return false;
        }
        to.samples = sample.samples;
        to.spread = detail::spread_of(sample);
        return more;
    }

    MonteCarloExpectationOptions options_;
};

}  // namespace stochastic_depth
