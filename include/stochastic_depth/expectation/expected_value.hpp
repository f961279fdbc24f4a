// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/survival/survival_probability.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// The mean of a number over masks.
struct ExpectedValue {
    double value = 0;
    /// Its derivative by each survival probability, [L].
    Eigen::VectorXd by_survival_probability;
};

/// The mean of a number over independent masks of any survival probabilities, and its derivatives
/// by them, from a table of the number for all 2^L masks:
///
///     E(p) = sum_S P(S) v(S),     d E / d p_l = E[v | s_l = 1] - E[v | s_l = 0].
///
/// The network is not asked again: with `mask_values(network, x, loss)` it is the expected loss for
/// every p, and what lets p be learned (`survival_probability_step`).
///
/// \param mask_values  v, [2^L], as `mask_values` gives them. That of a mask of probability 0 may
///                     be no number: it has no part in the mean.
/// \param p            Survival probabilities, L entries in (0, 1].
/// \throws std::invalid_argument  if a p_l lies outside that range, or there are not 2^L values.
/// \complexity  O(2^L) time and memory.
/// \source      Owen 1972, Multilinear Extensions of Games.
[[nodiscard]] inline ExpectedValue expected_value(const Eigen::VectorXd& mask_values,
                                                  const Eigen::VectorXd& p) {
    detail::check_survival_probabilities("expected_value", p);
    const Index depth = p.size();
    if (!(depth < 62 && mask_values.size() == Index{1} << depth))
        detail::refuse("expected_value: mask_values must be 2^", depth, ", got ",
                       mask_values.size());
    // means[l]: of each prefix of l layers, whose bits are its place. The last layer folds first.
    std::vector<Eigen::VectorXd> means(static_cast<std::size_t>(depth) + 1);
    means.back() = mask_values;
    for (Index l = depth; l-- > 0;) {
        const Eigen::VectorXd& children = means[static_cast<std::size_t>(l) + 1];
        Eigen::VectorXd& folded = means[static_cast<std::size_t>(l)];
        const Index prefixes = Index{1} << l;
        folded = children.tail(prefixes);
        if (p(l) < 1) folded = p(l) * folded + (1 - p(l)) * children.head(prefixes);
    }
    ExpectedValue result{means.front()(0), Eigen::VectorXd::Zero(depth)};
    Eigen::VectorXd probability = Eigen::VectorXd::Ones(mask_values.size());
    for (Index l = 0; l < depth; ++l) {
        const Eigen::VectorXd& children = means[static_cast<std::size_t>(l) + 1];
        const Index prefixes = Index{1} << l;
        for (Index prefix = 0; prefix < prefixes; ++prefix) {
            const double here = probability(prefix);
            if (here > 0)
                result.by_survival_probability(l) +=
                    here * (children(prefix + prefixes) - children(prefix));
            probability(prefix) = (1 - p(l)) * here;
            probability(prefix + prefixes) = p(l) * here;
        }
    }
    return result;
}

}  // namespace stochastic_depth
