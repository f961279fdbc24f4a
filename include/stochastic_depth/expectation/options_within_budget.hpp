// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>

#include <stochastic_depth/expectation/monte_carlo_expectation.hpp>

namespace stochastic_depth {

/// The sampled estimate that tells most about f_SD for a number of layer evaluations, as measured
/// by benchmarks/estimator_table: lattice masks in 5 groups, corrected by their mask bits; where
/// that leaves few masks for a group, one group of stratified masks. Nothing is enumerated: masks
/// that share prefixes make more samples a better use of the same evaluations.
///
/// \param max_layer_evaluations  For each column, above 0.
/// \param p                      Survival probabilities of the network.
/// \returns  Options under which MonteCarloExpectation stays within the limit, unless two groups
///           take more.
/// \throws std::invalid_argument  outside these ranges.
[[nodiscard]] inline MonteCarloExpectationOptions options_within_budget(double max_layer_evaluations,
                                                                 const Eigen::VectorXd& p,
                                                                 std::uint64_t seed = 0) {
    if (!(max_layer_evaluations > 0))
        detail::refuse("options_within_budget: max_layer_evaluations must be above 0, got ",
                       max_layer_evaluations);
    detail::check_survival_probabilities("options_within_budget", p);
    MonteCarloExpectationOptions options{.seed = seed,
                                         .design = MaskDesign::stratified,
                                         .control_variates = ControlVariates::mask_bits};
    options.max_layer_evaluations = max_layer_evaluations;
    options.samples =
        std::max<Index>(2, static_cast<Index>(std::min(4 * max_layer_evaluations, 0x1p20)));
    if (max_layer_evaluations >= 40 * p.sum()) options.design = MaskDesign::lattice;
    return options;
}

}  // namespace stochastic_depth
